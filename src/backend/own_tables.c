/*-------------------------------------------------------------------------
 *
 * backend/own_tables.c
 *	  Reading and writing the extension's own tables, on behalf of roles that
 *	  have no privileges on them.
 *
 * Statements run as the table's owner, in a context in which PostgreSQL refuses
 * what outlives it, and with a search path of their own; their text qualifies
 * every name all the same, operators included.  A table that carries anything
 * that is not the extension's is refused (backend/own_relation.c).  When an error ends a
 * statement, the transaction's abort puts role and search path back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/relation.h"
#include "access/xact.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "catalog/namespace.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* is a table open?  They are used one at a time */
static bool in_use = false;

static void
transaction_ended(XactEvent event, void *arg)
{
	in_use = false;
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		in_use = false;
}

/* Note that a table is open, until it is closed or an error ends its use. */
static void
mark_in_use(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(transaction_ended, NULL);
		RegisterSubXactCallback(subtransaction_ended, NULL);
	}
	registered = true;
	in_use = true;
}

/*
 * Begin to use a table of the extension, in SPI.  What is allocated from now
 * on is gone with rinq_own_table_close.
 */
void
rinq_own_table_open(RinqOwnTable *table, Oid schema, const char *name)
{
	Oid			relid;
	Relation	rel;

	rinq_lock_extension();
	relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
	rel = OidIsValid(relid) ? try_relation_open(relid, RowExclusiveLock) : NULL;
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" does not exist", name),
				 errhint("Use DROP EXTENSION rinq and CREATE EXTENSION rinq.")));

	/* the lock stays, and keeps the table as it was found */
	rinq_check_own_relation(rel, RINQ_OWN_WRITE);
	table->name = quote_qualified_identifier(get_namespace_name(schema), name);
	GetUserIdAndSecContext(&table->saved_user, &table->saved_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   table->saved_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	relation_close(rel, NoLock);
	table->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	mark_in_use();
}

/*
 * Tell whether the current statement is one of the extension's own.
 */
bool
rinq_own_tables_in_use(void)
{
	return in_use;
}

/*
 * Run a statement.  Returns the number of rows, which are in SPI_tuptable.
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

static void
keep_plan(SPIPlanPtr * plan, const char *query, int nargs, Oid *types)
{
	SPIPlanPtr	made;

	if (*plan != NULL)
		return;
	made = SPI_prepare(query, nargs, types);
	if (made == NULL || SPI_keepplan(made) != 0)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	*plan = made;
}

static uint64
execute_kept_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only)
{
	int			result = SPI_execute_plan(plan, values, nulls, read_only, 0);

	if (result < 0)
		elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Run a query whose plan is kept, on the active snapshot.
 */
uint64
rinq_own_table_read_kept(SPIPlanPtr * plan, const char *query, int nargs, Oid *types, Datum *values)
{
	keep_plan(plan, query, nargs, types);
	return execute_kept_plan(*plan, values, NULL, true);
}

/*
 * Run a statement whose plan is kept for the next time; its text is always the
 * same, and so are the types of its arguments.
 */
uint64
rinq_own_table_execute_kept(SPIPlanPtr * plan, const char *query, int nargs, Oid *types,
							Datum *values, const char *nulls)
{
	keep_plan(plan, query, nargs, types);
	return execute_kept_plan(*plan, values, nulls, false);
}

/*
 * Return a text column of a row as it is sent; absent when it is NULL.
 */
RinqBytes
rinq_own_row_text(HeapTuple row, TupleDesc desc, int column)
{
	char	   *text = SPI_getvalue(row, desc, column);

	return text == NULL ? rinq_bytes(NULL, 0) : rinq_text_to_wire(text);
}

/*
 * Return a column of bytes of a row; absent when it is NULL.
 */
RinqBytes
rinq_own_row_bytes(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? rinq_bytes(NULL, 0) : rinq_bytea_bytes(DatumGetByteaPP(value));
}

void
rinq_own_table_close(RinqOwnTable *table)
{
	in_use = false;
	SPI_finish();
	AtEOXact_GUC(false, table->guc_level);
	SetUserIdAndSecContext(table->saved_user, table->saved_context);
}

/*
 * Run one statement on a table, whose name is to be filled into "query".
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
