/*-------------------------------------------------------------------------
 *
 * matching.c
 *	  Notifications that arrive, and the sessions of this peer that they are for
 *	  (section 6 of the protocol).
 *
 * To match a constraint costs its length times the sessions that listen.  So it
 * is done in steps, each of which looks at one session, and a notification that
 * is not through when the slice is over goes on in the next turn.  Those that
 * arrive meanwhile wait behind it, which keeps the order that each session gets
 * them in.  A notification is acknowledged when it is through: the broker sends
 * no more ahead than it was asked to.
 *
 * Those for one session are handled one after another; how they get to an
 * executor is server.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/command/server.h"
#include "peer/notification/buffer.h"
#include "peer/notification/matching.h"
#include "peer/notification/notifications.h"
#include "peer/notification/session_index.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "peer/turn.h"
#include "protocol/constraint.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

typedef enum ArrivalPhase
{
	ARRIVAL_NEW,
	ARRIVAL_INDEXING,			/* an index that it needs is being built */
	ARRIVAL_FOUND,				/* sessions that the index has found are
								 * looked at */
	ARRIVAL_ALL					/* all that listen to the namespace are */
} ArrivalPhase;

/* a notification that has arrived, with copies of all its texts */
typedef struct Arrival
{
	dlist_node	node;			/* in "arrivals", while it waits */
	MemoryContext context;		/* has all of it */
	Size		size;			/* of that, while it waits */
	ArrivalPhase phase;
	uint64		number;
	uint32		epoch;			/* of the channel that it came through */
	RinqDelivery delivery;
	RinqNamespace *ns;			/* NULL when no session has ever listened */
	RinqConstraint *constraint; /* NULL: it is for one session */
	RinqMatcher *matcher;		/* made of that, when it is its turn */
} Arrival;

/* oldest first: the first one may be half through, the others are new */
static dlist_head arrivals = DLIST_STATIC_INIT(arrivals);
static Size waiting_bytes = 0;
static uint32 channel_epoch = 0;

/* Copy a delivery but for its body into the current memory context. */
static void
copy_delivery(RinqDelivery *copy, const RinqDelivery *delivery)
{
	RinqMessage *msg = &copy->message;

	*copy = *delivery;
	copy->consumer_tag = rinq_bytes(NULL, 0);
	copy->exchange = rinq_bytes_copy(delivery->exchange);
	copy->routing_key = rinq_bytes_copy(delivery->routing_key);
	msg->message_id = rinq_bytes_copy(msg->message_id);
	msg->correlation_id = rinq_bytes_copy(msg->correlation_id);
	msg->reply_to = rinq_bytes_copy(msg->reply_to);
	msg->expiration = rinq_bytes_copy(msg->expiration);
	msg->type = rinq_bytes_copy(msg->type);
	msg->ns = rinq_bytes_copy(msg->ns);
	msg->command = rinq_bytes_copy(msg->command);
	msg->constraint = rinq_bytes_copy(msg->constraint);
	msg->target = rinq_bytes_copy(msg->target);
	msg->failure_message = rinq_bytes_copy(msg->failure_message);
	msg->span_context = rinq_bytes_copy(msg->span_context);
	msg->traceparent = rinq_bytes_copy(msg->traceparent);
	msg->tracestate = rinq_bytes_copy(msg->tracestate);
}

static bool
buffer_delivery(const RinqDelivery *delivery, RinqSession * session)
{
	RinqBytes	none = rinq_bytes(NULL, 0);
	RinqNotificationTexts texts;
	RinqFields	fields;

	if (!rinq_server_notification_fields(&fields, delivery, session, &texts))
		return false;
	rinq_put_bytes(&fields, RINQ_NOTIFICATION_PAYLOAD, delivery->body);

	/* there is no handler that would pass them on */
	rinq_put_bytes(&fields, RINQ_NOTIFICATION_SPAN, none);
	rinq_put_bytes(&fields, RINQ_NOTIFICATION_TRACEPARENT, none);
	rinq_put_bytes(&fields, RINQ_NOTIFICATION_TRACESTATE, none);
	return rinq_buffer_add(session, &fields);
}

static void
deliver_to_subscription(const RinqDelivery *delivery, RinqSubscription * subscription)
{
	if (subscription->mode == RINQ_RECEIVE_BUFFER ? !buffer_delivery(delivery, subscription->session) :
		!rinq_server_notification(delivery, subscription->session, &subscription->handler,
								  subscription->subscriber))
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	else
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_RECEIVED);
}

/*
 * Deliver to one session; one that does not listen is no reason to complain.
 */
static void
deliver_to_target(const Arrival * arrival)
{
	RinqBytes	text = arrival->delivery.message.target;
	RinqSessionId target;
	RinqSession *session;
	RinqSubscription *subscription;

	if (!rinq_session_id_parse(text.data, text.len, &target) ||
		!rinq_peer_id_equal(&target.peer, &rinq_peer.id))
		return;
	session = rinq_own_session_find(target.seq);
	subscription = session == NULL ? NULL : rinq_subscription_find(session, arrival->ns);
	if (subscription != NULL)
		deliver_to_subscription(&arrival->delivery, subscription);
}

static void
deliver_if_matching(const Arrival * arrival, RinqSubscription * subscription)
{
	if (rinq_matcher_matches(arrival->matcher, subscription->session->attributes))
		deliver_to_subscription(&arrival->delivery, subscription);
}

/* look at the sessions that the index has found; false when the slice is over */
static bool
deliver_to_found(const Arrival * arrival)
{
	RinqSession *session;

	while ((session = rinq_index_next()) != NULL)
	{
		RinqSubscription *subscription = session->last_match == arrival->number ? NULL :
			rinq_subscription_find(session, arrival->ns);

		/* several values of the constraint may have found it */
		session->last_match = arrival->number;
		if (subscription != NULL)
			deliver_if_matching(arrival, subscription);
		if (rinq_slice_over())
			return false;
	}
	rinq_index_end();
	return true;
}

/* look at all that listen to the namespace; false when the slice is over */
static bool
deliver_to_all(const Arrival * arrival)
{
	RinqSubscription *subscription;

	while ((subscription = rinq_subscription_scan_next()) != NULL)
	{
		deliver_if_matching(arrival, subscription);
		if (rinq_slice_over())
			return false;
	}
	return true;
}

/* Deliver to all sessions that match the constraint. */
static bool
deliver_to_matching(Arrival * arrival)
{
	RinqBytes	namespace = arrival->delivery.message.ns;

	if (arrival->phase <= ARRIVAL_INDEXING)
	{
		if (arrival->matcher == NULL)
			arrival->matcher = rinq_matcher_make(arrival->constraint, namespace);
		arrival->phase = ARRIVAL_INDEXING;
		if (!rinq_index_build(arrival->constraint, namespace))
			return false;
		arrival->phase = rinq_index_find(arrival->constraint, namespace) ?
			ARRIVAL_FOUND : ARRIVAL_ALL;
		if (arrival->phase == ARRIVAL_ALL)
			rinq_subscription_scan_begin(arrival->ns);
	}
	return arrival->phase == ARRIVAL_FOUND ? deliver_to_found(arrival) : deliver_to_all(arrival);
}

/*
 * Go on with a notification; false when the slice is over, and it is not through.
 */
static bool
advance_arrival(Arrival * arrival)
{
	MemoryContext old;
	bool		through = true;

	if (arrival->ns == NULL)
		return true;
	old = MemoryContextSwitchTo(arrival->context);
	if (arrival->constraint == NULL)
		deliver_to_target(arrival);
	else
		through = deliver_to_matching(arrival);
	MemoryContextSwitchTo(old);
	return through;
}

static const char *
delivery_problem(const RinqDelivery *delivery)
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

/* read whom it is for; NULL, or what is wrong with that */
static const char *
read_recipients(Arrival * arrival)
{
	RinqMessage *msg = &arrival->delivery.message;
	const char *problem;
	RinqSessionId target;

	if (rinq_bytes_are(arrival->delivery.exchange, "ntf.mc"))
	{
		arrival->constraint = rinq_constraint_decode(msg->constraint, &problem);
		return arrival->constraint == NULL ? "missing or invalid constraint" : NULL;
	}

	/* no constraint belongs here, and it was not checked whether it is one */
	msg->constraint = rinq_bytes(NULL, 0);
	return rinq_session_id_parse(msg->target.data, msg->target.len, &target) ? NULL :
		"missing or invalid target header";
}

/*
 * Make a delivery an arrival; NULL when it makes no sense, and then *problem
 * says why.
 */
static Arrival *
make_arrival(const RinqDelivery *delivery, const char **problem)
{
	static uint64 last_number = 0;
	MemoryContext context;
	MemoryContext old;
	Arrival    *arrival;

	*problem = delivery_problem(delivery);
	if (*problem != NULL)
		return NULL;
	context = AllocSetContextCreate(TopMemoryContext, "rinq notification", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	arrival = palloc0(sizeof(Arrival));
	arrival->context = context;
	arrival->number = ++last_number;
	arrival->epoch = channel_epoch;
	copy_delivery(&arrival->delivery, delivery);
	arrival->ns = rinq_topology_find(delivery->message.ns);
	*problem = read_recipients(arrival);
	MemoryContextSwitchTo(old);
	if (*problem == NULL)
		return arrival;
	MemoryContextDelete(context);
	return NULL;
}

/* acknowledge it, if the broker still knows its delivery, and forget it */
static void
end_arrival(Arrival * arrival)
{
	if (arrival->epoch == channel_epoch && rinq_peer.conn != NULL)
		(void) rinq_basic_ack(rinq_peer.conn, arrival->delivery.channel,
							  arrival->delivery.delivery_tag, false);
	MemoryContextDelete(arrival->context);
}

/*
 * Have a notification wait until those before it are through; false when there
 * is no room, as there always is for the first one.
 */
static bool
defer_arrival(Arrival * arrival)
{
	RinqBytes	body = arrival->delivery.body;
	char	   *copy;

	if (waiting_bytes + body.len > (Size) rinq_payload_memory * 1024 * 1024)
		return false;
	copy = MemoryContextAllocHuge(arrival->context, Max(body.len, 1));
	memcpy(copy, body.data, body.len);
	arrival->delivery.body = rinq_bytes(copy, body.len);
	arrival->size = MemoryContextMemAllocated(arrival->context, true);
	waiting_bytes += arrival->size;
	dlist_push_tail(&arrivals, &arrival->node);
	return true;
}

static Arrival *
first_arrival(void)
{
	return dlist_container(Arrival, node, dlist_head_node(&arrivals));
}

static Arrival *
stop_waiting(void)
{
	Arrival    *arrival = first_arrival();

	dlist_delete(&arrival->node);
	Assert(waiting_bytes >= arrival->size);
	waiting_bytes -= arrival->size;
	return arrival;
}

/*
 * Tell whether a notification waits already that the broker sends again, since
 * their channel was closed.
 */
static bool
waits_already(const RinqDelivery *delivery)
{
	dlist_iter	iter;

	dlist_foreach(iter, &arrivals)
	{
		Arrival    *arrival = dlist_container(Arrival, node, iter.cur);

		if (arrival->epoch != channel_epoch &&
			rinq_bytes_equal(arrival->delivery.message.message_id, delivery->message.message_id))
			return true;
	}
	return false;
}

/*
 * Take a notification that has arrived.
 */
void
rinq_notification(const RinqDelivery *delivery)
{
	const char *problem;
	Arrival    *arrival = make_arrival(delivery, &problem);

	if (arrival == NULL)
	{
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_REJECTED);
		rinq_peer_log_input(problem, delivery);
		(void) rinq_basic_reject(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
		return;
	}
	if ((delivery->redelivered && waits_already(delivery)) ||
		(dlist_is_empty(&arrivals) && advance_arrival(arrival)))
	{
		end_arrival(arrival);
		return;
	}
	if (defer_arrival(arrival))
		return;
	Assert(arrival->phase == ARRIVAL_NEW);
	rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	end_arrival(arrival);
}

/*
 * Go on with the notifications that wait; true when some are left, since the
 * slice is over.
 */
bool
rinq_notifications_step(void)
{
	while (!dlist_is_empty(&arrivals))
	{
		if (!advance_arrival(first_arrival()))
			return true;
		end_arrival(stop_waiting());
		if (rinq_slice_over())
			return !dlist_is_empty(&arrivals);
	}
	return false;
}

/*
 * Forget that the broker waits for acknowledgements: the channel of notifications
 * was closed.
 */
void
rinq_notifications_channel_lost(void)
{
	channel_epoch++;
}

/*
 * Drop the notifications that wait: the sessions that they were for end.
 */
void
rinq_notifications_drop(void)
{
	channel_epoch++;
	rinq_index_end();
	rinq_subscription_scan_end();
	while (!dlist_is_empty(&arrivals))
	{
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
		end_arrival(stop_waiting());
	}
}
