/*-------------------------------------------------------------------------
 *
 * listen.c
 *	  rinq_listen and rinq_unlisten: which namespaces this database serves,
 *	  and by which function.
 *
 * Listeners are rows of a table that only its owner may write, since a row
 * says as whom a function runs; these functions write it after their checks.
 * A trigger on the table has the peer told at commit, however it was changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/bus_access.h"
#include "backend/handler_rules.h"
#include "backend/handler_signature.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/registration.h"
#include "backend/retry_policy.h"
#include "backend/utility_hook.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "ipc/listener_config.h"
#include "sql/arguments.h"
#include "sql/listen.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_listen);
PG_FUNCTION_INFO_V1(rinq_unlisten);
PG_FUNCTION_INFO_V1(rinq_listener_changed);
PG_FUNCTION_INFO_V1(rinq_listener_registered);
PG_FUNCTION_INFO_V1(rinq_inbox_due);

#define TABLE_NAME "listener"

/*
 * Raise an error unless executors can be started for a role: one that cannot
 * log in cannot have a session of its own either.
 */
void
rinq_check_handler_role(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		can_login;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (RINQ_HANDLER_NEEDS_LOGIN && !can_login)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in", GetUserNameFromId(role, false)),
				 errdetail("Handlers run in sessions that belong to the role that registers them."),
				 errhint("Use ALTER ROLE ... LOGIN, or register the handler as another role.")));
}

/*
 * Raise an error unless a function can be a handler, and a role can have it
 * run.
 */
void
rinq_check_handler(Oid func, RinqWork work, Oid role)
{
	const char *problem = rinq_handler_problem(func, work);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be a handler", format_procedure(func)),
				 errdetail_internal("The function cannot be used: %s.", problem),
				 work == RINQ_WORK_RESPONSE ?
				 errhint("A handler of responses takes one rinq_response.") :
				 work == RINQ_WORK_NOTIFICATION ?
				 errhint("A handler of notifications takes one rinq_notification.") :
				 errhint("A handler takes one rinq_request and returns jsonb, or one rinq_raw_request and returns bytea.")));
	if (!rinq_can_execute(func, role))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(func));
	rinq_check_superuser_handler(func, role);
	rinq_check_bus_access(role);
	rinq_check_handler_role(role);
}

/*
 * Check a handler, and tell an operation on a session which function it is.
 */
void
rinq_handler_input(Oid func, RinqWork work, RinqOperationInput *input)
{
	rinq_check_handler(func, work, GetUserId());
	input->handler = rinq_handler_reference(func, format_procedure_qualified(func));
	input->handler_owner = rinq_function_owner(func);
}

/* Refuse what contradicts: a standby cannot note what was handled. */
static void
check_on_standby(bool on_standby, bool deduplicate)
{
	if (on_standby && deduplicate)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a listener that deduplicates cannot serve on a standby"),
				 errdetail("What was handled is written down, and a standby writes nothing.")));
}

/*
 * Raise an error unless the elements of a path are texts that the reader can
 * read, and few bytes, since the path is in memory with each request.
 */
static void
check_path_elements(ArrayType *path)
{
	Datum	   *elements;
	size_t		size = 0;
	int			count;
	int			i;

	deconstruct_array(path, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (i = 0; i < count; i++)
	{
		RinqBytes	element = rinq_limited_text(TextDatumGetCString(elements[i]), RINQ_MAX_ORDER_BY, "element of order_by");

		size += element.len + 1;
	}
	if (size > RINQ_MAX_ORDER_BY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("order_by of %d elements is too long", count),
				 errdetail("It may have up to %d bytes in UTF-8, with one for each element.", RINQ_MAX_ORDER_BY)));
}

/*
 * Raise an error unless an array is the path of a value in a payload, as the
 * operator #> takes it, which the handler gets as jsonb.
 */
static void
check_order_by(ArrayType *path, Oid func)
{
	if (ARR_NDIM(path) != 1 || array_contains_nulls(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("order_by must be a path of one element or more"),
				 errhint("For example, ARRAY['customer', 'id'].")));
	check_path_elements(path);
	if (get_func_rettype(func) == BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("requests to a handler of raw payloads cannot be ordered by them")));
}

/*
 * rinq_listen(namespace text, handler regprocedure, max_concurrent integer,
 * deduplicate boolean, timeout interval, on_standby boolean,
 * retry jsonb, order_by text[]) returns void
 *
 * Has requests to a namespace handled by a function, as the current role; in
 * effect from commit on.  At most max_concurrent are handled at the same time,
 * NULL for no limit; with deduplicate, a request is not handled again that was
 * handled already; a handler may take as long as timeout says, NULL for what the
 * setting says; and commands that fail are tried again as retry says, NULL for
 * never.  With order_by, one is handled at a time for
 * each value that the payload has there.  With on_standby, standbys serve the namespace as well.  A listener of
 * one's own is replaced.
 */
Datum
rinq_listen(PG_FUNCTION_ARGS)
{
	char	   *namespace;
	Oid			schema = rinq_internal_schema();
	Oid			func;
	Oid			types[] = {TEXTOID, TEXTOID, OIDOID, BOOLOID, OIDOID, INT4OID, BOOLOID, INT4OID, BOOLOID, JSONBOID,
	TEXTARRAYOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 0);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	func = PG_GETARG_OID(1);
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_concurrent must be positive")));
	if (!PG_ARGISNULL(6))
		rinq_retry_policy_check(PG_GETARG_JSONB_P(6));
	rinq_require_preloaded();
	rinq_registration_lock(func);
	rinq_check_handler(func, RINQ_WORK_REQUEST, GetUserId());
	if (!PG_ARGISNULL(7))
		check_order_by(PG_GETARG_ARRAYTYPE_P(7), func);

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(namespace);
	values[1] = CStringGetTextDatum(format_procedure_qualified(func));
	values[2] = ObjectIdGetDatum(GetUserId());
	values[3] = BoolGetDatum(superuser());
	values[4] = ObjectIdGetDatum(rinq_function_owner(func));
	values[5] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	nulls[5] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[6] = BoolGetDatum(!PG_ARGISNULL(3) && PG_GETARG_BOOL(3));
	nulls[7] = PG_ARGISNULL(4) ? 'n' : ' ';
	values[7] = PG_ARGISNULL(4) ? (Datum) 0 :
		Int32GetDatum((int32) rinq_interval_ms(PG_GETARG_INTERVAL_P(4)));
	values[8] = BoolGetDatum(!PG_ARGISNULL(5) && PG_GETARG_BOOL(5));
	check_on_standby(DatumGetBool(values[8]), DatumGetBool(values[6]));
	nulls[9] = PG_ARGISNULL(6) ? 'n' : ' ';
	values[9] = PG_ARGISNULL(6) ? (Datum) 0 : PG_GETARG_DATUM(6);
	nulls[10] = PG_ARGISNULL(7) ? 'n' : ' ';
	values[10] = PG_ARGISNULL(7) ? (Datum) 0 : PG_GETARG_DATUM(7);
	if (rinq_own_table_write(schema, TABLE_NAME,
							 "INSERT INTO %s AS l"
							 " (namespace, handler, role, owner, max_concurrent, deduplicate, timeout_ms, on_standby,"
							 " retry, order_by)"
							 " VALUES ($1, $2, rinq_internal.role_reference($3),"
							 " rinq_internal.role_reference($5), $6, $7, $8, $9, $10, $11)"
							 " ON CONFLICT (namespace) DO UPDATE"
							 " SET handler = excluded.handler, role = excluded.role,"
							 " owner = excluded.owner, max_concurrent = excluded.max_concurrent,"
							 " deduplicate = excluded.deduplicate, timeout_ms = excluded.timeout_ms,"
							 " on_standby = excluded.on_standby, retry = excluded.retry,"
							 " order_by = excluded.order_by,"
							 " identity = excluded.identity"
							 " WHERE rinq_internal.role_oid(l.role) OPERATOR(pg_catalog.=) $3 OR $4",
							 lengthof(types), types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("namespace \"%s\" is listened to by another role", namespace),
				 errhint("That role, or a superuser, can use rinq_unlisten.")));
	PG_RETURN_VOID();
}

/*
 * rinq_unlisten(namespace text) returns boolean
 *
 * Ends listening to a namespace, from commit on; false when there was no
 * listener.
 */
Datum
rinq_unlisten(PG_FUNCTION_ARGS)
{
	char	   *namespace;
	RinqRemoval removal;

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 0);
	rinq_require_preloaded();
	removal = rinq_registration_remove(TABLE_NAME, "namespace", namespace);
	if (removal == RINQ_REMOVAL_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("namespace \"%s\" is listened to by another role", namespace)));
	PG_RETURN_BOOL(removal == RINQ_REMOVAL_DONE);
}

/*
 * listener_changed() returns trigger
 *
 * On the tables of listeners and subscriptions: has the peer read them again at
 * commit.  For each row as well, since logical replication fires no triggers
 * for a statement, if an administrator lets it write these tables.
 */
Datum
rinq_listener_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("listener_changed must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	if (TRIGGER_FIRED_FOR_STATEMENT(((TriggerData *) fcinfo->context)->tg_event))
		rinq_registration_tidy();
	rinq_utility_hook_reread_at_commit();
	return PointerGetDatum(NULL);
}

/*
 * inbox_due() returns trigger
 *
 * On the table of commands and notifications that wait for another attempt: has
 * the reader find out at commit when the next one is due.  What the extension itself writes, the
 * peer hears of in another way.
 */
Datum
rinq_inbox_due(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("inbox_due must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	if (!rinq_own_tables_in_use())
		rinq_utility_hook_inbox_at_commit();
	return PointerGetDatum(NULL);
}

/*
 * listener_registered() returns trigger
 *
 * On the same tables, for each row that gets a role: keeps the role from being
 * dropped.
 */
Datum
rinq_listener_registered(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	Datum		role;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("listener_registered must be called as a trigger for rows")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	role = heap_getattr(row, get_attnum(RelationGetRelid(trigger->tg_relation), "role"),
						RelationGetDescr(trigger->tg_relation), &isnull);
	if (!isnull)
		rinq_registration_add(((RinqRoleReference *) DatumGetPointer(role))->role);
	return PointerGetDatum(NULL);
}
