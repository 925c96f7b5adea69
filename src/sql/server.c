/*-------------------------------------------------------------------------
 *
 * server.c
 *	  Foreign servers that say where the broker of a database is: what CREATE
 *	  SERVER and CREATE USER MAPPING accept, and which server is used.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/reloptions.h"
#include "backend/bus_server.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/server_options.h"
#include "backend/utility_hook.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rinq_server_validator);
PG_FUNCTION_INFO_V1(rinq_give_wrapper);
PG_FUNCTION_INFO_V1(rinq_use_server);
PG_FUNCTION_INFO_V1(rinq_server_chosen);
PG_FUNCTION_INFO_V1(rinq_server_problem);

/*
 * rinq_internal.server_validator(text[], oid) returns void
 *
 * Checks options of the foreign-data wrapper, its servers and their user
 * mappings.
 */
Datum
rinq_server_validator(PG_FUNCTION_ARGS)
{
	rinq_check_server_options(untransformRelOptions(PG_GETARG_DATUM(0)), PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/*
 * rinq_internal.give_wrapper() returns void
 *
 * Has the foreign-data wrapper belong to the bootstrap superuser, so that the
 * extension can be given to a role that is no superuser.
 */
Datum
rinq_give_wrapper(PG_FUNCTION_ARGS)
{
	if (superuser_arg(BOOTSTRAP_SUPERUSERID))
		(void) AlterForeignDataWrapperOwner(RINQ_WRAPPER, BOOTSTRAP_SUPERUSERID);
	PG_RETURN_VOID();
}

/*
 * Raise an error unless the current role may say where the peer connects to,
 * whatever it has been granted with all functions of a schema.
 */
static void
check_may_choose(void)
{
	if (!superuser() && !has_privs_of_role(GetUserId(), rinq_extension_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to choose the server of this database"),
				 errdetail("Only superusers and the owner of the extension may do so.")));
}

/* Raise an error unless a server can be used. */
static void
check_server_to_choose(const char *name)
{
	RinqServer *server = rinq_server_by_name(name);

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no server \"%s\" of foreign-data wrapper \"%s\"", name, RINQ_WRAPPER),
				 errhint("Use CREATE SERVER ... FOREIGN DATA WRAPPER rinq.")));
	else if (!rinq_server_counts(server->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("server \"%s\" cannot be used", name),
				 errdetail("It belongs to role \"%s\", which is neither a superuser nor the owner of the extension.",
						   GetUserNameFromId(server->owner, false)),
				 errhint("Use ALTER SERVER ... OWNER TO, after having looked at its options.")));
}

/* Wait for others who choose: there is one row at most. */
static void
lock_choice(void)
{
	Oid			relid;

	rinq_lock_extension();
	relid = get_relname_relid(RINQ_CHOSEN_TABLE, rinq_internal_schema());
	if (OidIsValid(relid))
		LockRelationOid(relid, ShareRowExclusiveLock);
}

/*
 * rinq_use_server(name text) returns void
 *
 * Chooses the foreign server that says where the broker of this database is, in
 * effect from commit on; NULL for the only one there is.
 */
Datum
rinq_use_server(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];

	rinq_refuse_parallel(fcinfo);
	PreventCommandDuringRecovery("rinq_use_server()");
	check_may_choose();
	if (!PG_ARGISNULL(0))
		check_server_to_choose(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	lock_choice();
	(void) rinq_own_table_write(rinq_internal_schema(), RINQ_CHOSEN_TABLE, "DELETE FROM %s", 0, NULL,
								NULL, NULL);
	if (!PG_ARGISNULL(0))
	{
		values[0] = PG_GETARG_DATUM(0);
		(void) rinq_own_table_write(rinq_internal_schema(), RINQ_CHOSEN_TABLE,
									"INSERT INTO %s (name) VALUES ($1)", 1, types, values, NULL);
	}
	PG_RETURN_VOID();
}

/*
 * server_chosen() returns trigger
 *
 * On the table of the server that was chosen: has the peer hear of it at commit,
 * and all processes forget who may use the bus.
 */
Datum
rinq_server_chosen(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("server_chosen must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	rinq_utility_hook_reread_at_commit();
	return PointerGetDatum(NULL);
}

/*
 * rinq_internal.server_problem() returns text
 *
 * Says why the foreign servers do not say where the broker is; NULL when they
 * do, or there is none.
 */
Datum
rinq_server_problem(PG_FUNCTION_ARGS)
{
	RinqServerConfig config;

	rinq_refuse_parallel(fcinfo);
	rinq_bus_server_read(&config);
	if (config.problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(config.problem));
}
