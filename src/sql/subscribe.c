/*-------------------------------------------------------------------------
 *
 * subscribe.c
 *	  rinq_subscribe and rinq_unsubscribe: durable subscriptions to
 *	  notifications.
 *
 * Like listeners, they are rows of a table that only its owner may write; and a
 * trigger on it has the peer told at commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/handler_signature.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/registration.h"
#include "backend/retry_policy.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "ipc/listener_config.h"
#include "miscadmin.h"
#include "protocol/attribute.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/listen.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

PG_FUNCTION_INFO_V1(rinq_subscribe);
PG_FUNCTION_INFO_V1(rinq_unsubscribe);

#define TABLE_NAME "subscription"

static char *
name_argument(FunctionCallInfo fcinfo)
{
	char	   *name = rinq_text_argument(fcinfo, 0, "name");

	if (name[0] == '\0' || strlen(name) > RINQ_MAX_SUBSCRIPTION_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of a subscription: \"%s\"", name),
				 errdetail("A name has 1 to %d bytes.", RINQ_MAX_SUBSCRIPTION_NAME)));
	return name;
}

/*
 * rinq_subscribe(name text, namespace text, handler regprocedure, attributes
 * jsonb, retry jsonb) returns void
 *
 * Has notifications in a namespace handled by a function, as the current role,
 * from commit on: those to a session with these attributes, in that namespace,
 * which the peer makes whenever it connects.  Those that fail are tried again as
 * retry says, and then set aside; NULL is that they are not kept.  A subscription
 * of one's own with the same name is replaced.
 */
Datum
rinq_subscribe(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *namespace;
	Oid			func;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, OIDOID, OIDOID, JSONBOID, BOOLOID, JSONBOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];
	Jsonb	   *attributes;
	char	   *text;

	rinq_refuse_parallel(fcinfo);
	name = name_argument(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 1);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("attributes must not be null")));
	func = PG_GETARG_OID(2);
	attributes = PG_GETARG_JSONB_P(3);
	if (!PG_ARGISNULL(4))
		rinq_retry_policy_check(PG_GETARG_JSONB_P(4));
	rinq_require_preloaded();
	rinq_registration_lock(func);
	rinq_check_handler(func, RINQ_WORK_NOTIFICATION, GetUserId());
	if (!JB_ROOT_IS_OBJECT(attributes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes must be an object")));

	/* what the reader would refuse */
	text = JsonbToCString(NULL, &attributes->root, VARSIZE(attributes));
	(void) rinq_text_to_wire(text);
	if (strlen(text) > RINQ_MAX_SUBSCRIPTION_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("attributes of %zu bytes are too large", strlen(text)),
				 errdetail("Those of a subscription may have %d bytes as text.",
						   RINQ_MAX_SUBSCRIPTION_SIZE)));
	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(namespace);
	values[2] = CStringGetTextDatum(format_procedure_qualified(func));
	values[3] = ObjectIdGetDatum(GetUserId());
	values[4] = ObjectIdGetDatum(rinq_function_owner(func));
	values[5] = JsonbPGetDatum(attributes);
	values[6] = BoolGetDatum(superuser());
	nulls[7] = PG_ARGISNULL(4) ? 'n' : ' ';
	values[7] = PG_ARGISNULL(4) ? (Datum) 0 : PG_GETARG_DATUM(4);
	if (rinq_own_table_write(rinq_internal_schema(), TABLE_NAME,
							 "INSERT INTO %s AS s (name, namespace, handler, role, owner, attributes, retry)"
							 " VALUES ($1, $2, $3, rinq_internal.role_reference($4),"
							 " rinq_internal.role_reference($5), $6, $8)"
							 " ON CONFLICT (name) DO UPDATE"
							 " SET namespace = excluded.namespace, handler = excluded.handler,"
							 " role = excluded.role, owner = excluded.owner,"
							 " attributes = excluded.attributes, retry = excluded.retry, identity = excluded.identity"
							 " WHERE rinq_internal.role_oid(s.role) OPERATOR(pg_catalog.=) $4 OR $7",
							 lengthof(types), types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("subscription \"%s\" belongs to another role", name),
				 errhint("That role, or a superuser, can use rinq_unsubscribe.")));
	PG_RETURN_VOID();
}

/*
 * rinq_unsubscribe(name text) returns boolean
 *
 * Ends a subscription, from commit on; false when there was none.
 */
Datum
rinq_unsubscribe(PG_FUNCTION_ARGS)
{
	char	   *name;
	RinqRemoval removal;

	rinq_refuse_parallel(fcinfo);
	name = name_argument(fcinfo);
	rinq_require_preloaded();
	removal = rinq_registration_remove(TABLE_NAME, "name", name);
	if (removal == RINQ_REMOVAL_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("subscription \"%s\" belongs to another role", name)));
	PG_RETURN_BOOL(removal == RINQ_REMOVAL_DONE);
}
