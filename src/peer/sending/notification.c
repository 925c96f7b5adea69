/*-------------------------------------------------------------------------
 *
 * notification.c
 *	  Publishing notifications that transactions have sent (section 6 of the
 *	  protocol).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/headers.h"
#include "peer/sending/notification.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sent.h"

static void
notification_refused(const RinqPublication * what, const char *text, bool for_good)
{
	rinq_sent_dropped(text);
}

static const RinqPublishOwner notification_owner = {
	.refused = notification_refused
};

/*
 * Publish a notification that a transaction has sent.  Where no session
 * listens, there is no queue, and nothing is wrong with that.
 */
RinqMsgStatus
rinq_notification_publish(const RinqOutbound *notification, const RinqFields *fields)
{
	RinqMessage msg;
	RinqPublication what;
	bool		unicast = notification->kind == RINQ_SEND_NOTIFICATION;
	char		id[RINQ_MESSAGE_ID_SIZE];
	char		target[RINQ_SESSION_ID_SIZE];
	char		peer[RINQ_PEER_ID_SIZE];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id, rinq_message_id_format(&notification->item.id, id, sizeof(id)));
	rinq_message_set_trace(&msg, rinq_get_bytes(fields, RINQ_SEND_TRACE));
	msg.type = rinq_get_bytes(fields, RINQ_SEND_TYPE);
	msg.ns = rinq_get_bytes(fields, RINQ_SEND_NAMESPACE);
	msg.span_context = rinq_get_bytes(fields, RINQ_SEND_SPAN);
	msg.traceparent = rinq_get_bytes(fields, RINQ_SEND_TRACEPARENT);
	msg.tracestate = rinq_get_bytes(fields, RINQ_SEND_TRACESTATE);
	if (unicast)
	{
		rinq_peer_id_format(&notification->target.peer, peer, sizeof(peer));
		msg.target = rinq_bytes(target, rinq_session_id_format(&notification->target, target,
															   sizeof(target)));
		snprintf(key, sizeof(key), "%.*s.%s", (int) msg.ns.len, msg.ns.data, peer);
	}
	else
	{
		msg.constraint = rinq_get_bytes(fields, RINQ_SEND_CONSTRAINT);
		snprintf(key, sizeof(key), "%.*s", (int) msg.ns.len, msg.ns.data);
	}
	memset(&what, 0, sizeof(what));
	what.kind = RINQ_PUBLISH_NOTIFICATION;
	what.owner = &notification_owner;
	return rinq_publish(&what, unicast ? "ntf.uc" : "ntf.mc", rinq_bytes_str(key), false, &msg,
						rinq_get_bytes(fields, RINQ_SEND_PAYLOAD));
}
