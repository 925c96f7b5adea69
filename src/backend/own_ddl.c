/*-------------------------------------------------------------------------
 *
 * backend/own_ddl.c
 *	  Commands on the extension's own tables.
 *
 * Triggers tell when listeners, subscriptions and the outbox are written.
 * They are silent when they were disabled, as pg_restore --disable-triggers
 * does while it loads; what it does before and after is a command on the
 * table, after which the table is read again.
 *
 * That restore leaves all triggers as those that do not fire in the mode of
 * replication.  The extension's own have to fire always, and so are set back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/own_ddl.h"
#include "backend/own_schema.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define SILENT_TRIGGERS \
	"SELECT pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I'," \
	" t.tgrelid::pg_catalog.regclass, t.tgname)" \
	" FROM pg_catalog.pg_trigger t" \
	" JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid" \
	" WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND NOT t.tgisinternal" \
	" AND t.tgenabled OPERATOR(pg_catalog.=) 'O' AND p.pronamespace OPERATOR(pg_catalog.=) $2"

static bool
is_own_relation(Oid relid)
{
	Oid			schema = get_rel_namespace(relid);

	return OidIsValid(schema) && schema == rinq_internal_schema();
}

/*
 * Tell whether a table of the extension is altered, in whatever way but by
 * triggers, which are objects of their own: then the tables are to be read again.
 */
bool
rinq_own_ddl_noticed(ObjectAccessType access, Oid classId, Oid objectId)
{
	return (access == OAT_POST_ALTER || access == OAT_TRUNCATE) && classId == RelationRelationId &&
		OidIsValid(MyDatabaseId) && is_own_relation(objectId);
}

static bool
enables_triggers(AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableType subtype = ((AlterTableCmd *) lfirst(lc))->subtype;

		if (subtype == AT_EnableTrig || subtype == AT_EnableTrigAll || subtype == AT_EnableTrigUser)
			return true;
	}
	return false;
}

static void
set_triggers_back(Oid relid)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	SPITupleTable *commands;
	uint64		count;
	uint64		i;
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	values[0] = ObjectIdGetDatum(relid);
	values[1] = ObjectIdGetDatum(rinq_internal_schema());
	CommandCounterIncrement();
	SPI_connect();
	if (SPI_execute_with_args(SILENT_TRIGGERS, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for triggers");
	commands = SPI_tuptable;
	count = SPI_processed;
	for (i = 0; i < count; i++)
	{
		if (SPI_execute(SPI_getvalue(commands->vals[i], commands->tupdesc, 1), false, 0) < 0)
			elog(ERROR, "could not enable a trigger");
	}
	SPI_finish();
	AtEOXact_GUC(false, level);
}

/*
 * After a command: set the triggers back that it has enabled, and tell whether
 * the tables are to be read again.  The command has shown that the current role
 * owns the table.
 */
bool
rinq_own_ddl_done(Node *command)
{
	AlterTableStmt *stmt = (AlterTableStmt *) command;
	Oid			relid;

	if (!IsA(command, AlterTableStmt) || stmt->relation == NULL || !IsTransactionState())
		return false;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !is_own_relation(relid))
		return false;
	if (enables_triggers(stmt))
		set_triggers_back(relid);
	return true;
}
