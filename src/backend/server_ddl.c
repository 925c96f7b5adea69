/*-------------------------------------------------------------------------
 *
 * backend/server_ddl.c
 *	  Commands on foreign servers that say where the broker is, their user
 *	  mappings and privileges.
 *
 * The hook for access to objects tells of nearly all of them, in whatever way
 * they come about: what it does not tell of is found in the command.  Servers
 * of other wrappers are of no interest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/bus_server.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/server_ddl.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/extension.h"
#include "foreign/foreign.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

typedef Oid (*ColumnOf) (HeapTuple tuple);

static Oid
wrapper_column(HeapTuple tuple)
{
	return ((Form_pg_foreign_server) GETSTRUCT(tuple))->srvfdw;
}

static Oid
server_column(HeapTuple tuple)
{
	return ((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver;
}

/*
 * Read a column of a row by its OID; InvalidOid when there is none.  A row that
 * was made just now is found as well, and one that is about to be deleted.
 */
static Oid
column_by_oid(Oid catalog, Oid index, AttrNumber key_column, Oid oid, ColumnOf column)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, key_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, index, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = column(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static bool
is_bus_server(Oid server)
{
	Oid			wrapper = rinq_wrapper();

	return OidIsValid(wrapper) && OidIsValid(server) &&
		column_by_oid(ForeignServerRelationId, ForeignServerOidIndexId, Anum_pg_foreign_server_oid,
					  server, wrapper_column) == wrapper;
}

static bool
is_bus_mapping(Oid mapping)
{
	return OidIsValid(rinq_wrapper()) &&
		is_bus_server(column_by_oid(UserMappingRelationId, UserMappingOidIndexId,
									Anum_pg_user_mapping_oid, mapping, server_column));
}

/*
 * Tell whether a server of the wrapper, or a user mapping of one, is made,
 * changed or dropped, or the wrapper changed.
 */
bool
rinq_server_ddl_noticed(ObjectAccessType access, Oid classId, Oid objectId)
{
	if ((access != OAT_POST_CREATE && access != OAT_POST_ALTER && access != OAT_DROP) ||
		!OidIsValid(MyDatabaseId) || creating_extension)
		return false;
	if (classId == ForeignServerRelationId)
		return is_bus_server(objectId);
	if (classId == UserMappingRelationId)
		return is_bus_mapping(objectId);
	return classId == ForeignDataWrapperRelationId && objectId == rinq_wrapper();
}

/* Tell whether a GRANT or REVOKE is about one of the servers. */
static bool
grants_bus_server(GrantStmt *stmt)
{
	ListCell   *lc;

	if (stmt->objtype != OBJECT_FOREIGN_SERVER)
		return false;
	foreach(lc, stmt->objects)
	{
		if (is_bus_server(get_foreign_server_oid(strVal(lfirst(lc)), true)))
			return true;
	}
	return false;
}

/*
 * Write down the new name of a server that was chosen.  Servers that do not count
 * have nothing to do with the choice, also when one of them has the name of one
 * that was chosen and dropped.
 */
static void
rename_choice(RenameStmt *stmt)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	RinqServer *server;

	CommandCounterIncrement();
	server = rinq_server_by_name(stmt->newname);
	if (server == NULL || (!rinq_server_counts(server->owner) && !superuser()))
		return;
	values[0] = CStringGetTextDatum(strVal(stmt->object));
	values[1] = CStringGetTextDatum(stmt->newname);
	(void) rinq_own_table_write(rinq_internal_schema(), RINQ_CHOSEN_TABLE,
								"UPDATE %s SET name = $2 WHERE name OPERATOR(pg_catalog.=) $1",
								2, types, values, NULL);
}

/*
 * After a command: tell whether it has changed what the hook for access to
 * objects does not tell of.
 */
bool
rinq_server_ddl_done(Node *command)
{
	if (IsA(command, RenameStmt) && ((RenameStmt *) command)->renameType == OBJECT_FOREIGN_SERVER)
		rename_choice((RenameStmt *) command);
	if (IsA(command, AlterUserMappingStmt))
		return is_bus_server(get_foreign_server_oid(((AlterUserMappingStmt *) command)->servername, true));
	return IsA(command, GrantStmt) && grants_bus_server((GrantStmt *) command);
}
