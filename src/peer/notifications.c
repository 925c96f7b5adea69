/*-------------------------------------------------------------------------
 *
 * notifications.c
 *	  Notifications: publishing those that transactions have sent, and finding
 *	  the sessions of this peer that those which arrive are for (section 6 of the
 *	  protocol).
 *
 * A notification is acknowledged when it has arrived: it is handled at most
 * once.  Those for one session are handled one after another, in the order in
 * which they came; how they get to an executor is server.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "constraint.h"
#include "notification.h"
#include "peer/peer.h"
#include "peer/session_index.h"
#include "utils/memutils.h"

/* one session's listening to one namespace */
struct RinqSubscription
{
	dlist_node	of_session;
	dlist_node	of_namespace;
	RinqSession *session;
	RinqNamespace *ns;
	RinqReceiveMode mode;
	RinqListener handler;		/* or the channel, in place of its name */
};

static RinqSubscription *
find(RinqSession *session, const RinqNamespace *ns)
{
	dlist_iter	iter;

	if (ns == NULL)
		return NULL;
	dlist_foreach(iter, &session->subscriptions)
	{
		RinqSubscription *subscription = dlist_container(RinqSubscription, of_session, iter.cur);

		if (subscription->ns == ns)
			return subscription;
	}
	return NULL;
}

/*
 * Has a session listen to a namespace: with a function that handles what comes,
 * a channel it goes on to, or none, and then it is kept.  That takes the place
 * of what was said before, if anything.  The peer has to be bound to the
 * namespace before anything comes (topology.c).
 */
void
rinq_notifications_subscribe(RinqSession *session, RinqNamespace *ns, RinqReceiveMode mode, RinqBytes handler,
			   Oid role, Oid owner)
{
	RinqSubscription *subscription = find(session, ns);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (dlist_is_empty(&session->subscriptions))
		rinq_index_add(session);
	if (subscription == NULL)
	{
		subscription = palloc0(sizeof(RinqSubscription));
		subscription->session = session;
		subscription->ns = ns;
		dlist_push_tail(&session->subscriptions, &subscription->of_session);
		dlist_push_tail(&ns->subscriptions, &subscription->of_namespace);
	}
	else
		pfree(subscription->handler.handler);
	subscription->mode = mode;
	subscription->handler.handler = pnstrdup(handler.data, handler.len);
	subscription->handler.role = role;
	subscription->handler.owner = owner;
	MemoryContextSwitchTo(old);
}

static void
end_subscription(RinqSubscription *subscription)
{
	RinqNamespace *ns = subscription->ns;

	dlist_delete(&subscription->of_session);
	if (dlist_is_empty(&subscription->session->subscriptions))
		rinq_index_remove(subscription->session);
	dlist_delete(&subscription->of_namespace);
	pfree(subscription->handler.handler);
	pfree(subscription);
	if (dlist_is_empty(&ns->subscriptions))
		rinq_topology_unsubscribe(ns);
}

/*
 * Ends a session's listening to a namespace; false when it did not.
 */
bool
rinq_notifications_unsubscribe(RinqSession *session, RinqNamespace *ns)
{
	RinqSubscription *subscription = find(session, ns);

	if (subscription == NULL)
		return false;
	end_subscription(subscription);
	return true;
}

/*
 * The same for all namespaces, because the session ends.
 */
void
rinq_notifications_unsubscribe_all(RinqSession *session)
{
	while (!dlist_is_empty(&session->subscriptions))
		end_subscription(dlist_container(RinqSubscription, of_session,
										 dlist_head_node(&session->subscriptions)));
}

/*
 * The handler of a session's notifications in a namespace, NULL when it does not
 * listen, or in another way.
 */
const RinqListener *
rinq_notifications_handler(RinqSession *session, RinqNamespace *ns)
{
	RinqSubscription *subscription = find(session, ns);

	return subscription != NULL && subscription->mode == RINQ_RECEIVE_HANDLER ?
		&subscription->handler : NULL;
}

/*
 * Does a session listen to a namespace whose notifications are kept?
 */
bool
rinq_keeps_notifications(const RinqSession *session)
{
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &session->subscriptions)
	{
		if (dlist_container(RinqSubscription, of_session, iter.cur)->mode == RINQ_RECEIVE_KEEP)
			return true;
	}
	return false;
}

/*
 * Appends the namespaces that a session listens to: their number, and each with
 * its length.
 */
void
rinq_subscriptions_list(const RinqSession *session, StringInfo list)
{
	int			start = list->len;
	uint32		count = 0;
	dlist_iter	iter;

	appendBinaryStringInfo(list, (const char *) &count, sizeof(count));
	dlist_foreach(iter, (dlist_head *) &session->subscriptions)
	{
		const char *name = dlist_container(RinqSubscription, of_session, iter.cur)->ns->name;
		uint32		len = (uint32) strlen(name);

		appendBinaryStringInfo(list, (const char *) &len, sizeof(len));
		appendBinaryStringInfo(list, name, (int) len);
		count++;
	}
	memcpy(list->data + start, &count, sizeof(count));
}

/* for matching: an attribute's value as it is now */
static RinqBytes
value_of(void *session, RinqBytes namespace, RinqBytes key)
{
	RinqAttribute attribute;

	if (!rinq_attribute_find(((RinqSession *) session)->attributes, namespace, key, &attribute))
		return rinq_bytes("", 0);
	return attribute.value;
}

static bool
keep(const RinqDelivery *delivery, RinqSession *session)
{
	const RinqMessage *msg = &delivery->message;
	RinqBytes	fields[RINQ_NOTIFICATION_FIELDS];
	RinqMessageId id;
	RinqSessionId target;
	char		source_text[RINQ_REF_SIZE];
	char		target_text[RINQ_SESSION_ID_SIZE];

	if (!rinq_message_id_parse(msg->message_id.data, msg->message_id.len, &id))
		return false;
	target.peer = rinq_peer.id;
	target.seq = session->seq;
	fields[RINQ_NOTIFICATION_ID] = msg->message_id;
	fields[RINQ_NOTIFICATION_SOURCE] =
		rinq_bytes(source_text, rinq_ref_format(&id.ref, source_text, sizeof(source_text)));
	fields[RINQ_NOTIFICATION_TARGET] =
		rinq_bytes(target_text, rinq_session_id_format(&target, target_text, sizeof(target_text)));
	fields[RINQ_NOTIFICATION_NAMESPACE] = msg->ns;
	fields[RINQ_NOTIFICATION_TYPE] = msg->type.data == NULL ? rinq_bytes("", 0) : msg->type;
	fields[RINQ_NOTIFICATION_PAYLOAD] = delivery->body;
	fields[RINQ_NOTIFICATION_CONSTRAINT] = msg->constraint;
	fields[RINQ_NOTIFICATION_TRACE] = msg->correlation_id.len > 0 ? msg->correlation_id :
		msg->message_id;
	return rinq_kept_add(session, fields);
}

static void
deliver(const RinqDelivery *delivery, RinqSubscription *subscription)
{
	if (subscription->mode == RINQ_RECEIVE_KEEP ? !keep(delivery, subscription->session) :
		!rinq_server_notification(delivery, subscription->session, &subscription->handler,
								  subscription->mode))
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	else
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_RECEIVED);
}

/* to one session; one that does not listen is no reason to complain */
static const char *
unicast(const RinqDelivery *delivery, RinqNamespace *ns)
{
	RinqDelivery copy = *delivery;
	RinqSessionId target;
	RinqSession *session;
	RinqSubscription *subscription;

	/* none belongs here, and nobody has looked whether it is one */
	copy.message.constraint = rinq_bytes(NULL, 0);
	if (!rinq_session_id_parse(delivery->message.target.data, delivery->message.target.len, &target))
		return "missing or invalid target header";
	if (!rinq_peer_id_equal(&target.peer, &rinq_peer.id))
		return NULL;
	session = rinq_own_session_find(target.seq);
	subscription = session == NULL ? NULL : find(session, ns);
	if (subscription != NULL)
		deliver(&copy, subscription);
	return NULL;
}

/* to those of the sessions found that listen to the namespace, and match */
static void
deliver_to_found(const RinqDelivery *delivery, RinqNamespace *ns,
				 const RinqConstraint *constraint, List *postings)
{
	static uint64 number = 0;
	ListCell   *lc;

	number++;
	foreach(lc, postings)
	{
		RinqPosting *posting = lfirst(lc);
		dlist_iter	iter;

		dlist_foreach(iter, &posting->members)
		{
			RinqSession *session = dlist_container(RinqPostingMember, node, iter.cur)->session;
			RinqSubscription *subscription;

			if (session->looked_at == number)
				continue;
			session->looked_at = number;
			subscription = find(session, ns);
			if (subscription != NULL &&
				rinq_constraint_matches(constraint, delivery->message.ns, value_of, session))
				deliver(delivery, subscription);
		}
	}
}

static const char *
multicast(const RinqDelivery *delivery, RinqNamespace *ns)
{
	const char *problem;
	RinqConstraint *constraint = rinq_constraint_decode(delivery->message.constraint, &problem);
	List	   *postings;
	dlist_iter	iter;

	if (constraint == NULL)
		return "missing or invalid constraint";
	if (ns == NULL)
		return NULL;
	if (rinq_index_find(constraint, delivery->message.ns, &postings))
	{
		deliver_to_found(delivery, ns, constraint, postings);
		return NULL;
	}
	dlist_foreach(iter, &ns->subscriptions)
	{
		RinqSubscription *subscription = dlist_container(RinqSubscription, of_namespace, iter.cur);

		if (rinq_constraint_matches(constraint, delivery->message.ns, value_of,
									subscription->session))
			deliver(delivery, subscription);
	}
	return NULL;
}

static const char *
problem_of(const RinqDelivery *delivery)
{
	const RinqMessage *msg = &delivery->message;
	RinqMessageId id;

	if (delivery->malformed_headers)
		return "unreadable headers";
	if (!rinq_message_id_parse(msg->message_id.data, msg->message_id.len, &id))
		return "missing or invalid message id";
	if (msg->ns.data == NULL || !rinq_namespace_valid(msg->ns.data, msg->ns.len) ||
		rinq_namespace_reserved(msg->ns.data, msg->ns.len))
		return "missing or invalid namespace header";
	if (msg->bad_span_context)
		return "invalid span context header";
	if (delivery->oversize)
		return "payload exceeds \"rinq.max_payload\"";
	return NULL;
}

/*
 * A notification has arrived.
 */
void
rinq_notification(const RinqDelivery *delivery)
{
	const char *problem = problem_of(delivery);
	MemoryContext context;
	MemoryContext old;

	if (problem == NULL)
	{
		RinqNamespace *ns = rinq_topology_find(delivery->message.ns);

		context = AllocSetContextCreate(TopMemoryContext, "rinq notification",
										ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(context);
		problem = rinq_bytes_are(delivery->exchange, "ntf.mc") ?
			multicast(delivery, ns) : unicast(delivery, ns);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
	if (problem == NULL)
	{
		(void) rinq_basic_ack(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
		return;
	}
	rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_REJECTED);
	rinq_peer_log_input(problem, delivery);
	(void) rinq_basic_reject(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
}

/*
 * Publishes a notification that a transaction has sent.  Where nobody listens,
 * there is no queue, and that is nobody's concern.
 */
RinqMsgStatus
rinq_notification_publish(const RinqOutgoing *notification, const RinqBytes *fields)
{
	RinqMessage msg;
	bool		unicast = notification->kind == RINQ_SEND_NOTIFICATION;
	char		id[RINQ_MESSAGE_ID_SIZE];
	char		target[RINQ_SESSION_ID_SIZE];
	char		peer[RINQ_PEER_ID_SIZE];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id, rinq_message_id_format(&notification->item.id, id, sizeof(id)));
	rinq_message_set_trace(&msg, fields[RINQ_SEND_TRACE]);
	msg.type = fields[RINQ_SEND_COMMAND];
	msg.ns = fields[RINQ_SEND_NAMESPACE];
	msg.span_context = fields[RINQ_SEND_SPAN];
	msg.traceparent = fields[RINQ_SEND_TRACEPARENT];
	msg.tracestate = fields[RINQ_SEND_TRACESTATE];
	if (unicast)
	{
		rinq_peer_id_format(&notification->target.peer, peer, sizeof(peer));
		msg.target = rinq_bytes(target, rinq_session_id_format(&notification->target, target,
															   sizeof(target)));
		snprintf(key, sizeof(key), "%.*s.%s", (int) msg.ns.len, msg.ns.data, peer);
	}
	else
	{
		msg.constraint = fields[RINQ_SEND_CONSTRAINT];
		snprintf(key, sizeof(key), "%.*s", (int) msg.ns.len, msg.ns.data);
	}
	return rinq_basic_publish(rinq_peer.conn, CHANNEL_PUBLISH,
							  rinq_bytes_str(unicast ? "ntf.uc" : "ntf.mc"),
							  rinq_bytes_str(key), false, &msg,
							  fields[RINQ_SEND_PAYLOAD].len > 0 ?
							  fields[RINQ_SEND_PAYLOAD].data : "",
							  fields[RINQ_SEND_PAYLOAD].len);
}
