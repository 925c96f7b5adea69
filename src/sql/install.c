/*-------------------------------------------------------------------------
 *
 * install.c
 *	  What the install script does to all objects of the extension alike.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/own_schema.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rinq_protect_tables);
PG_FUNCTION_INFO_V1(rinq_take_default_privileges);

/* the tables of the extension, as names that are qualified and quoted */
#define OWN_TABLES \
	"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name" \
	" FROM pg_catalog.pg_class c" \
	" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" \
	" WHERE n.nspname OPERATOR(pg_catalog.=) '" RINQ_INTERNAL_SCHEMA "'" \
	" AND c.relkind OPERATOR(pg_catalog.=) 'r'"

#define GUARD_TRIGGERS \
	"SELECT pg_catalog.format(f.command, t.name)" \
	" FROM (" OWN_TABLES ") t CROSS JOIN (VALUES" \
	" (1, 'CREATE OR REPLACE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s" \
	" FOR EACH STATEMENT EXECUTE FUNCTION " RINQ_INTERNAL_SCHEMA ".guard()')," \
	" (2, 'CREATE OR REPLACE TRIGGER keep_local BEFORE INSERT OR UPDATE OR DELETE ON %s" \
	" FOR EACH ROW EXECUTE FUNCTION " RINQ_INTERNAL_SCHEMA ".keep_local()')," \
	" (3, 'COMMENT ON TRIGGER guard ON %s IS ''Refuses what roles other than the owner write''')," \
	" (4, 'COMMENT ON TRIGGER keep_local ON %s IS ''Ignores what logical replication brings''')" \
	") f (step, command) ORDER BY t.name, f.step"

#define ALWAYS_TRIGGERS \
	"SELECT pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.name, g.tgname)" \
	" FROM (" OWN_TABLES ") t JOIN pg_catalog.pg_trigger g" \
	" ON g.tgrelid OPERATOR(pg_catalog.=) t.name::pg_catalog.regclass AND NOT g.tgisinternal" \
	" ORDER BY t.name, g.tgname"

/* the roles that privileges were granted to, but the owner and, on functions and types, everybody */
#define DEFAULT_PRIVILEGES \
	"WITH own AS (" \
	"SELECT d.classid, d.objid FROM pg_catalog.pg_depend d" \
	" WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass" \
	" AND d.deptype OPERATOR(pg_catalog.=) 'e' AND d.refobjid OPERATOR(pg_catalog.=) $1" \
	" AND EXISTS (SELECT 1 FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) n (classid, objid)" \
	" WHERE n.classid OPERATOR(pg_catalog.=) d.classid AND n.objid OPERATOR(pg_catalog.=) d.objid)" \
	"), granted AS (" \
	"SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END" \
	" OPERATOR(pg_catalog.||) c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relacl AS acl, c.relowner AS owner, true AS public" \
	" FROM own JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) own.objid" \
	" AND own.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass" \
	" WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,S}'::pg_catalog.\"char\"[])" \
	" UNION ALL SELECT 'ROUTINE ' OPERATOR(pg_catalog.||) p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proacl, p.proowner, false" \
	" FROM own JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) own.objid" \
	" AND own.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass" \
	" UNION ALL SELECT 'TYPE ' OPERATOR(pg_catalog.||) t.oid::pg_catalog.regtype::pg_catalog.text, t.typacl, t.typowner, false" \
	" FROM own JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) own.objid" \
	" AND own.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass" \
	" WHERE t.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid" \
	" UNION ALL SELECT 'SCHEMA ' OPERATOR(pg_catalog.||) n.oid::pg_catalog.regnamespace::pg_catalog.text, n.nspacl, n.nspowner, true" \
	" FROM own JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) own.objid" \
	" AND own.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass" \
	")" \
	" SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', g.name," \
	" CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'" \
	" ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)" \
	" FROM granted g CROSS JOIN LATERAL pg_catalog.aclexplode(g.acl) a" \
	" WHERE a.grantee OPERATOR(pg_catalog.<>) g.owner" \
	" AND (g.public OR a.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid)"

/* up to which command of which transaction default privileges were taken away */
static TransactionId taken_by = InvalidTransactionId;
static CommandId taken_until;

static void
run_command(const char *command)
{
	int			result = SPI_execute(command, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", command, SPI_result_code_string(result));
}

/*
 * Run the commands that a query returns.
 */
static void
run_commands_of(const char *query, int nargs, Oid *types, Datum *values)
{
	SPITupleTable *commands;
	uint64		count;
	uint64		i;

	if (SPI_execute_with_args(query, nargs, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list what is to be done");
	commands = SPI_tuptable;
	count = SPI_processed;
	for (i = 0; i < count; i++)
		run_command(SPI_getvalue(commands->vals[i], commands->tupdesc, 1));
}

/*
 * Begin the commands of the script: names are written in full, and nothing is
 * found in the user's schemas.
 */
static int
begin_commands(void)
{
	int			level;

	if (!creating_extension || CurrentExtensionObject != get_extension_oid("rinq", true))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function is for the scripts of the extension")));
	level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	return level;
}

static void
end_commands(int level)
{
	SPI_finish();
	AtEOXact_GUC(false, level);
}

/*
 * protect_tables() returns void
 *
 * Gives each table of the extension the triggers that keep others from writing
 * it, has all triggers fire in every mode, and writes down what the tables look
 * like (backend/own_relation.c).
 */
Datum
rinq_protect_tables(PG_FUNCTION_ARGS)
{
	int			level = begin_commands();

	run_commands_of(GUARD_TRIGGERS, 0, NULL, NULL);
	run_commands_of(ALWAYS_TRIGGERS, 0, NULL, NULL);
	run_command("DELETE FROM " RINQ_INTERNAL_SCHEMA ".manifest");
	run_command("INSERT INTO " RINQ_INTERNAL_SCHEMA ".manifest (relation, shape)"
				" SELECT c.relname, " RINQ_INTERNAL_SCHEMA ".relation_shape(c.oid)"
				" FROM pg_catalog.pg_class c"
				" WHERE c.relnamespace OPERATOR(pg_catalog.=) '" RINQ_INTERNAL_SCHEMA "'::pg_catalog.regnamespace::pg_catalog.oid"
				" AND c.relkind OPERATOR(pg_catalog.=) 'r'");
	end_commands(level);
	PG_RETURN_VOID();
}

/*
 * Tell whether this script has made the object that a row of pg_depend is about.  A new
 * installation may run several scripts in one transaction, and what the one
 * before has granted on its objects is to stay.
 */
static bool
is_new_member(HeapTuple depend)
{
	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(depend->t_data)))
		return false;
	return taken_by != GetTopTransactionId() ||
		HeapTupleHeaderGetCmin(depend->t_data) > taken_until;
}

/*
 * List the members of the extension that this script has made.
 */
static void
list_new_members(Datum *classes, Datum *objects)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ArrayBuildState *class_list = initArrayResult(OIDOID, CurrentMemoryContext, false);
	ArrayBuildState *object_list = initArrayResult(OIDOID, CurrentMemoryContext, false);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(CurrentExtensionObject));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (!is_new_member(tuple))
			continue;
		accumArrayResult(class_list, ObjectIdGetDatum(depend->classid), false, OIDOID,
						 CurrentMemoryContext);
		accumArrayResult(object_list, ObjectIdGetDatum(depend->objid), false, OIDOID,
						 CurrentMemoryContext);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	*classes = makeArrayResult(class_list, CurrentMemoryContext);
	*objects = makeArrayResult(object_list, CurrentMemoryContext);
}

/*
 * take_default_privileges() returns void
 *
 * Takes away what ALTER DEFAULT PRIVILEGES has granted on the extension's
 * objects while they were made, but not what PostgreSQL itself grants to
 * everybody on functions and types.  What an upgrade finds keeps the privileges
 * that were granted on it since.
 */
Datum
rinq_take_default_privileges(PG_FUNCTION_ARGS)
{
	Oid			types[3] = {OIDOID, OIDARRAYOID, OIDARRAYOID};
	Datum		values[3];
	int			level = begin_commands();

	values[0] = ObjectIdGetDatum(CurrentExtensionObject);
	list_new_members(&values[1], &values[2]);
	run_commands_of(DEFAULT_PRIVILEGES, 3, types, values);
	taken_by = GetTopTransactionId();
	taken_until = GetCurrentCommandId(true);
	end_commands(level);
	PG_RETURN_VOID();
}
