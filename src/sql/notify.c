/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  rinq_notify and rinq_notify_many: notifications to a session, and to all
 *	  that match a constraint, sent when the transaction commits.
 *
 * Notifications are ephemeral, as Rinq defines them: they are sent from
 * memory, and it is not confirmed that they have arrived.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/bus_access.h"
#include "backend/calls.h"
#include "backend/parallel.h"
#include "fmgr.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "sql/session_ref.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_notify);
PG_FUNCTION_INFO_V1(rinq_notify_raw);
PG_FUNCTION_INFO_V1(rinq_notify_many);
PG_FUNCTION_INFO_V1(rinq_notify_many_raw);

enum
{
	ARG_NAMESPACE,
	ARG_TYPE,
	ARG_TARGET,					/* or constraint */
	ARG_PAYLOAD,
	ARG_SESSION
};

static Datum
send_by_arguments(FunctionCallInfo fcinfo, RinqOutbound *message, RinqBytes constraint, RinqPayloadForm form)
{
	RinqBytes	namespace = rinq_bytes_str(rinq_namespace_argument(fcinfo, ARG_NAMESPACE));
	RinqBytes	type = rinq_check_notification_type(rinq_text_argument(fcinfo, ARG_TYPE, "type"));
	RinqBytes	payload = rinq_payload_argument(fcinfo, ARG_PAYLOAD, form);
	RinqDatabase *db;
	char		id[RINQ_MESSAGE_ID_SIZE];

	rinq_require_preloaded();
	rinq_check_bus_access(GetUserId());
	db = rinq_require_peer();
	rinq_send_allocate_id_argument(fcinfo, ARG_SESSION, db, &message->item.id);
	rinq_send_notification(db, message, true, namespace, type, payload, constraint);
	rinq_message_id_format(&message->item.id, id, sizeof(id));
	PG_RETURN_DATUM(CStringGetTextDatum(id));
}

static Datum
notify_session(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	RinqOutbound message;
	RinqSessionRef target;

	rinq_refuse_parallel(fcinfo);
	rinq_session_ref_argument(fcinfo, ARG_TARGET, &target);
	rinq_check_notification_target(&target);
	memset(&message, 0, sizeof(message));
	message.kind = RINQ_SEND_NOTIFICATION;
	message.target = target.ref.session;
	return send_by_arguments(fcinfo, &message, rinq_bytes(NULL, 0), form);
}

static Datum
notify_many(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	RinqOutbound message;
	bytea	   *constraint;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(ARG_TARGET))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("constraint must not be null"),
				 errhint("Use rinq_all() for all sessions.")));
	constraint = PG_GETARG_BYTEA_PP(ARG_TARGET);
	memset(&message, 0, sizeof(message));
	message.kind = RINQ_SEND_MULTICAST;
	return send_by_arguments(fcinfo, &message,
							 rinq_bytes(VARDATA_ANY(constraint), VARSIZE_ANY_EXHDR(constraint)), form);
}

/*
 * rinq_notify(namespace text, type text, target text, payload jsonb, session
 * text) returns rinq_message_id
 *
 * Notifies one session, of whichever peer, when and if the transaction
 * commits.
 */
Datum
rinq_notify(PG_FUNCTION_ARGS)
{
	return notify_session(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_notify_raw(namespace text, type text, target text, payload bytea, session
 * text) returns rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_notify_raw(PG_FUNCTION_ARGS)
{
	return notify_session(fcinfo, RINQ_PAYLOAD_RAW);
}

/*
 * rinq_notify_many(namespace text, type text, constraint rinq_constraint,
 * payload jsonb, session text) returns rinq_message_id
 *
 * Notifies all sessions that listen to the namespace and match the constraint.
 */
Datum
rinq_notify_many(PG_FUNCTION_ARGS)
{
	return notify_many(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_notify_many_raw(namespace text, type text, filter rinq_constraint, payload
 * bytea, session text) returns rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_notify_many_raw(PG_FUNCTION_ARGS)
{
	return notify_many(fcinfo, RINQ_PAYLOAD_RAW);
}
