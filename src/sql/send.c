/*-------------------------------------------------------------------------
 *
 * send.c
 *	  What all functions share that send messages at commit: what a message
 *	  inherits from the request being handled, its id, and notifications.
 *
 * Arguments of SQL functions are the business of the files that have these
 * functions; what becomes of a message is backend/commit_queue.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backend/calls.h"
#include "backend/commit_queue.h"
#include "backend/request_context.h"
#include "ipc/session_ids.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "sql/session_ref.h"

/*
 * Fill in what a message inherits from the request that is being handled, or
 * has by settings.
 */
void
rinq_send_inherited(RinqFields *fields)
{
	rinq_put_bytes(fields, RINQ_SEND_TRACE, rinq_current_trace());
	rinq_put_bytes(fields, RINQ_SEND_SPAN, rinq_inherited.span_context);
	rinq_put_bytes(fields, RINQ_SEND_TRACEPARENT, rinq_inherited.traceparent);
	rinq_put_bytes(fields, RINQ_SEND_TRACESTATE, rinq_inherited.tracestate);
}

/*
 * Allocate the id of the next message of the connection's own session; without
 * a connection to the broker there is none, and the id is made up.
 */
void
rinq_send_allocate_id(RinqDatabase *db, RinqMessageId *id)
{
	if (rinq_session_allocate_id(db, rinq_client_number(), id) == 0)
		rinq_session_allocate_id_unconnected(id);
}

/*
 * Allocate the id of the next message of the session that an argument names,
 * or of the connection's own if it is NULL.
 */
void
rinq_send_allocate_id_argument(FunctionCallInfo fcinfo, int n, RinqDatabase *db, RinqMessageId *id)
{
	bool		uncorrelated;

	if (!rinq_allocate_id_argument(fcinfo, n, id, &uncorrelated))
		rinq_send_allocate_id(db, id);
}

/*
 * Return a notification's type as it is sent, in UTF-8; it travels in a
 * property.
 */
RinqBytes
rinq_check_notification_type(const char *type)
{
	return rinq_limited_text(type, RINQ_MAX_TYPE_LEN, "notification type");
}

/*
 * Raise an error unless a session can be notified.
 */
void
rinq_check_notification_target(const RinqSessionRef *session)
{
	if (session->ref.session.seq == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("session \"%s\" cannot be notified", session->text),
				 errdetail("The session of number 0 is for what peers tell each other.")));
}

/*
 * Have a notification sent when the transaction commits.  The caller has set
 * the kind of the message, and the target of one to a session, all else being
 * zero; and, with "has_id", its id, which otherwise is allocated here from the
 * connection's own session.  Namespace and type were checked; the constraint
 * is absent but for RINQ_SEND_MULTICAST.
 */
void
rinq_send_notification(RinqDatabase *db, RinqOutbound *message, bool has_id,
					   RinqBytes namespace, RinqBytes type, RinqBytes payload,
					   RinqBytes constraint)
{
	RinqFields	fields;

	rinq_fields_init(&fields, RINQ_KIND_SEND);
	rinq_put_bytes(&fields, RINQ_SEND_NAMESPACE, namespace);
	rinq_put_bytes(&fields, RINQ_SEND_TYPE, type);
	rinq_put_bytes(&fields, RINQ_SEND_PAYLOAD, payload);
	rinq_send_inherited(&fields);
	rinq_put_bytes(&fields, RINQ_SEND_CONSTRAINT, constraint);
	if (!has_id)
		rinq_send_allocate_id(db, &message->item.id);
	rinq_send_at_commit(db, message, &fields);
}
