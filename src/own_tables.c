/*-------------------------------------------------------------------------
 *
 * own_tables.c
 *	  Reading and writing the extension's own tables, on behalf of roles that
 *	  have no privileges on them.
 *
 * Statements run as the table's owner, with nothing but the current role
 * changed: their text must qualify every name, operators included.  When an
 * error ends one, the transaction's abort puts the role back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "own_tables.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * The schema that the extension lives in; InvalidOid when it is not there.
 */
Oid
rinq_extension_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	Oid			result = InvalidOid;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_extension extension = (Form_pg_extension) GETSTRUCT(tuple);

		if (strcmp(NameStr(extension->extname), "rinq") == 0)
			result = extension->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* the schema of the tables, as it was found, until a schema changes */
static Oid	internal_schema = InvalidOid;

static void
forget_internal_schema(Datum arg, int cache, uint32 hash)
{
	internal_schema = InvalidOid;
}

/*
 * Find the schema of the extension's tables; InvalidOid when it is not there.
 * A schema of that name that is not the extension's own is not used.
 */
Oid
rinq_internal_schema(void)
{
	static bool registered = false;
	Oid			schema;
	Oid			extension;

	if (OidIsValid(internal_schema))
		return internal_schema;
	if (!registered)
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_internal_schema, (Datum) 0);
	registered = true;
	schema = get_namespace_oid(RINQ_INTERNAL_SCHEMA, true);
	if (!OidIsValid(schema))
		return InvalidOid;
	extension = getExtensionOfObject(NamespaceRelationId, schema);
	if (!OidIsValid(extension) || extension != get_extension_oid("rinq", true))
		return InvalidOid;
	internal_schema = schema;
	return schema;
}

/*
 * Begins to use a table of the extension, in SPI.  What is allocated from now
 * on is gone with rinq_own_table_close.
 */
void
rinq_own_table_open(RinqOwnTable *table, Oid schema, const char *name)
{
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" does not exist", name),
				 errhint("Use DROP EXTENSION rinq and CREATE EXTENSION rinq.")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	table->name = quote_qualified_identifier(get_namespace_name(schema), name);
	GetUserIdAndSecContext(&table->saved_user, &table->saved_context);
	SetUserIdAndSecContext(owner, table->saved_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
}

/*
 * Runs a statement.  Returns the number of rows, which are in SPI_tuptable.
 */
uint64
rinq_own_table_execute(const char *query, int nargs, Oid *types, Datum *values,
					   const char *nulls)
{
	int			result = SPI_execute_with_args(query, nargs, types, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(result));
	return SPI_processed;
}

void
rinq_own_table_close(RinqOwnTable *table)
{
	SPI_finish();
	SetUserIdAndSecContext(table->saved_user, table->saved_context);
}

/*
 * Runs one statement on a table, whose name is to be filled into "query".
 * Returns the number of rows.
 */
uint64
rinq_own_table_write(Oid schema, const char *name, const char *query, int nargs, Oid *types,
					 Datum *values, const char *nulls)
{
	RinqOwnTable table;
	uint64		rows;

	rinq_own_table_open(&table, schema, name);
	rows = rinq_own_table_execute(psprintf(query, table.name), nargs, types, values, nulls);
	rinq_own_table_close(&table);
	return rows;
}
