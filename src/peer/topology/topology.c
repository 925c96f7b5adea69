/*-------------------------------------------------------------------------
 *
 * topology.c
 *	  Exchanges, queues and bindings, and the namespaces this peer serves.
 *
 * Each namespace has a durable queue shared by all peers, cmd.<namespace>,
 * which callers and listeners declare alike before they use it.  Declaring
 * happens on a channel of its own: when the broker refuses one queue and
 * closes the channel, calls and requests on the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include <limits.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "peer/command/dispatch.h"
#include "peer/command/invoker.h"
#include "peer/network.h"
#include "peer/notification/matching.h"
#include "peer/notification/subscriptions.h"
#include "peer/process.h"
#include "peer/session/session_requests.h"
#include "peer/topology/declare.h"
#include "peer/topology/mending.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "peer/turn.h"
#include "utils/memutils.h"

#define FIRST_RETRY_DELAY 1000	/* ms */
#define LAST_RETRY_DELAY 60000	/* ms */
#define LOST_AGAIN 10000		/* ms within which what is lost a second time
								 * has to wait */
#define MAX_CLOSES 5			/* of the peer's own channels, in a few
								 * seconds */

/* what a cookie says: the step in the upper half, the namespace in the lower */
enum
{
	STEP_SETUP = 1,				/* of the peer's own queues, and exchanges */
	STEP_SETUP_LAST,
	STEP_BIND,					/* of cmd.<namespace>, the last of its steps */
	STEP_NAMESPACE,				/* other steps of a namespace */
	STEP_CONSUME,
	STEP_SUBSCRIBE,				/* the last binding for notifications */
	STEP_AGAIN_OWN,				/* of what is there already: the peer's own */
	STEP_AGAIN					/* and a namespace's */
};

#define COOKIE(step, index) (((uint64) (step) << 32) | (index))
#define COOKIE_STEP(cookie) ((int) ((cookie) >> 32))
#define COOKIE_INDEX(cookie) ((uint32) (cookie))

static const struct
{
	const char *name;
	const char *kind;
}			exchanges[] = {
	{"cmd.bal", "direct"},
	{"cmd.uc", "direct"},
	{"cmd.mc", "direct"},
	{"cmd.rsp", "topic"},
	{"ntf.uc", "direct"},
	{"ntf.mc", "direct"}
};

/* the next channel for a namespace's requests */
static uint16 next_channel = CHANNEL_NAMESPACES;

/* when the next failed namespace is tried again; 0 when there is none */
static int64 next_retry;

/* of channels that the peer consumes from, for no request of its own */
static RinqBurst closes;

static RinqBytes
own_queue(const char *suffix, char buf[16])
{
	rinq_network_queue_name(buf, 16, suffix);
	return rinq_bytes_str(buf);
}

static RinqBytes
command_queue(const RinqNamespace * ns, char buf[RINQ_NAMESPACE_MAXLEN + 8])
{
	snprintf(buf, RINQ_NAMESPACE_MAXLEN + 8, "cmd.%s", ns->name);
	return rinq_bytes_str(buf);
}

static void
bind_own(const char *suffix, const char *exchange, const char *key, uint64 cookie)
{
	char		queue[16];

	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(suffix, queue),
					rinq_bytes_str(exchange), rinq_bytes_str(key), cookie);
}

/* Declare one of the exchanges, or bind one of the peer's own queues. */
static void
declare_own(int number, uint64 cookie)
{
	char		all_responses[RINQ_PEER_ID_SIZE + 2];

	switch (number - (int) lengthof(exchanges))
	{
		case 0:
			bind_own(".req", "cmd.uc", rinq_peer.id_text, cookie);
			break;
		case 1:
			bind_own(".req", "cmd.mc", "_sess", cookie);
			break;
		case 2:
			snprintf(all_responses, sizeof(all_responses), "%s.*", rinq_peer.id_text);
			bind_own(".rsp", "cmd.rsp", all_responses, cookie);
			break;
		default:
			rinq_exchange_declare(rinq_peer.conn, CHANNEL_TOPOLOGY,
								  rinq_bytes_str(exchanges[number].name),
								  rinq_bytes_str(exchanges[number].kind),
								  rinq_declare_exchanges == RINQ_DECLARE_PASSIVE, cookie);
			break;
	}
}

/*
 * Declare exchanges, and bind the peer's own queues to them; or do so again,
 * should any have been deleted, from a number on.
 */
void
rinq_topology_declare_own(bool again, int first)
{
	int			last = (int) lengthof(exchanges) + 2;
	int			i;

	for (i = first; i <= last; i++)
		declare_own(i, COOKIE(again ? STEP_AGAIN_OWN : i < last ? STEP_SETUP : STEP_SETUP_LAST, i));
}

/*
 * Set up everything that an open connection with a reserved identity needs,
 * without waiting for any of it.  The last reply makes the peer ready.
 */
void
rinq_topology_opened(void)
{
	rinq_topology_declare_own(false, 0);
}

/* Return how many requests of one consumer the broker sends ahead. */
static uint16
request_prefetch(void)
{
	return (uint16) (rinq_request_prefetch > 0 ? rinq_request_prefetch : 4 * rinq_command_workers);
}

/* Start to consume on the channel of commands, after it was opened. */
static void
start_commands(void)
{
	char		queue[16];

	/*
	 * as much as can be said: requests between peers must not wait behind
	 * others
	 */
	rinq_basic_qos(rinq_peer.conn, CHANNEL_COMMANDS, PG_UINT16_MAX, false, 0);
	own_queue(".req", queue);
	rinq_basic_consume(rinq_peer.conn, CHANNEL_COMMANDS, rinq_bytes_str(queue),
					   rinq_bytes_str(queue), true, COOKIE(STEP_SETUP, 0));
}

/*
 * Start to consume on a channel for what sessions get; what is handled is
 * bounded by other means.
 */
static void
start_session_channel(uint16 channel, const char *suffix)
{
	char		queue[16];

	rinq_basic_qos(rinq_peer.conn, channel, (uint16_t) rinq_session_prefetch, false, 0);
	own_queue(suffix, queue);
	rinq_basic_consume(rinq_peer.conn, channel, rinq_bytes_str(queue), rinq_bytes_str(queue), true,
					   COOKIE(STEP_SETUP, 0));
}

static void
start_responses(void)
{
	start_session_channel(CHANNEL_RESPONSES, ".rsp");
}

static void
start_notifications(void)
{
	start_session_channel(CHANNEL_NOTIFICATIONS, ".ntf");
}

/* end the operations that wait for notifications of a namespace */
static void
finish_binding_operations(RinqNamespace * ns, const char *error)
{
	List	   *binding = ns->binding;
	ListCell   *lc;

	ns->binding = NIL;
	foreach(lc, binding)
		rinq_operation_bound(lfirst(lc), error);
	list_free_deep(binding);
}

static void
send_notification_bindings(RinqNamespace * ns, int step, int last_step)
{
	char		own[16];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	snprintf(key, sizeof(key), "%s.%s", ns->name, rinq_peer.id_text);
	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".ntf", own),
					rinq_bytes_str("ntf.uc"), rinq_bytes_str(key), COOKIE(step, ns->index));
	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".ntf", own),
					rinq_bytes_str("ntf.mc"), rinq_bytes_str(ns->name),
					COOKIE(last_step, ns->index));
}

static void
bind_notifications(RinqNamespace * ns)
{
	ns->notifications = NOTIFICATIONS_BINDING;
	ns->binds++;
	send_notification_bindings(ns, STEP_NAMESPACE, STEP_SUBSCRIBE);
}

/*
 * Have the broker send the notifications of a namespace that a session listens
 * to.  False when the operation in a slot has to wait for that; there is none
 * with RINQ_NO_SLOT.
 */
bool
rinq_topology_subscribe(RinqNamespace * ns, uint32 index)
{
	if (ns->notifications == NOTIFICATIONS_BOUND)
		return true;
	if (ns->notifications == NOTIFICATIONS_UNBOUND)
		bind_notifications(ns);
	if (index != RINQ_NO_SLOT)
		rinq_wait_in(&ns->binding, index, rinq_peer.slots->slot[index].serial, sizeof(RinqWaiter));
	return false;
}

/*
 * End the sending of notifications of a namespace that no session listens to
 * any more.
 */
void
rinq_topology_unsubscribe(RinqNamespace * ns)
{
	char		own[16];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	if (ns->notifications == NOTIFICATIONS_UNBOUND)
		return;
	ns->notifications = NOTIFICATIONS_UNBOUND;
	if (!rinq_peer.ready)
		return;
	snprintf(key, sizeof(key), "%s.%s", ns->name, rinq_peer.id_text);
	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".ntf", own),
					  rinq_bytes_str("ntf.uc"), rinq_bytes_str(key),
					  COOKIE(STEP_NAMESPACE, ns->index));
	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".ntf", own),
					  rinq_bytes_str("ntf.mc"), rinq_bytes_str(ns->name),
					  COOKIE(STEP_NAMESPACE, ns->index));
}

/*
 * Forget what was declared, since the next connection starts afresh; calls
 * that wait for a queue have nothing to wait for.
 */
void
rinq_topology_connection_lost(void)
{
	uint32		i;

	next_channel = CHANNEL_NAMESPACES;
	memset(&closes, 0, sizeof(closes));
	rinq_declare_connection_lost();

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		ns->state = NAMESPACE_UNDECLARED;
		ns->channel = 0;
		ns->consuming = false;
		ns->retry_at = 0;
		ns->retry_delay = 0;
		ns->lost_at = 0;
		ns->notifications = NOTIFICATIONS_UNBOUND;
		ns->binds = 0;
		finish_binding_operations(ns, "the connection to the broker was lost");
		rinq_invoker_declared(ns, RINQ_OUTCOME_CONNECTION_LOST,
							  "the connection to the broker was lost before the request was sent");
	}
}

static void
send_queue_declaration(RinqNamespace * ns, uint16 channel, int step, int last_step)
{
	char		buf[RINQ_NAMESPACE_MAXLEN + 8];
	RinqBytes	queue = command_queue(ns, buf);

	/*
	 * A broker takes no type for "classic", unless its default is another
	 * one: so peers that do not send the argument agree, and hosts on which
	 * queues are quorum queues by default, which have no x-max-priority,
	 * work.
	 */
	rinq_queue_declare(rinq_peer.conn, channel, queue, true, false, 3, "classic",
					   COOKIE(step, ns->index));
	rinq_queue_bind(rinq_peer.conn, channel, queue, rinq_bytes_str("cmd.bal"),
					rinq_bytes_str(ns->name), COOKIE(last_step, ns->index));
}

/*
 * Declare the queue of a namespace, if that is neither done nor under way.
 */
void
rinq_topology_declare(RinqNamespace * ns)
{
	if (ns->state == NAMESPACE_DECLARING || ns->state == NAMESPACE_DECLARED ||
		!rinq_peer.ready)
		return;
	rinq_declare_begin(ns);
	send_queue_declaration(ns, ns->declare_channel, STEP_NAMESPACE, STEP_BIND);
}

static void
bind_multicast(RinqNamespace * ns, int step)
{
	char		own[16];

	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".req", own),
					rinq_bytes_str("cmd.mc"), rinq_bytes_str(ns->name), COOKIE(step, ns->index));
}

/*
 * Declare again what this peer needs of a namespace to hear of it.  What it only
 * calls is declared again when a request is returned.
 */
void
rinq_topology_declare_again(RinqNamespace * ns)
{
	uint16		channel;

	if (ns->notifications == NOTIFICATIONS_BOUND)
		send_notification_bindings(ns, STEP_AGAIN, STEP_AGAIN);
	if (!ns->consuming || ns->state != NAMESPACE_DECLARED || ns->mend_after > rinq_peer.now)
		return;
	bind_multicast(ns, STEP_AGAIN);
	channel = rinq_declare_mending_channel();
	if (channel != 0)
		send_queue_declaration(ns, channel, STEP_AGAIN, STEP_AGAIN);
}

/*
 * Declare a namespace's queue and binding again, for listeners of this peer,
 * too, since the broker has returned a message: one of them is gone.
 */
void
rinq_topology_mend(RinqNamespace * ns)
{
	if (ns->state == NAMESPACE_DECLARED)
		ns->state = NAMESPACE_UNDECLARED;
	rinq_topology_declare(ns);
	rinq_mending_soon();
}

/*
 * Return the channel that consumes a namespace's requests, opened if it is
 * not.  Each has its own as long as there are enough, so that one whose queue
 * cannot be consumed takes no other's requests back with it.
 */
static uint16
consuming_channel(RinqNamespace * ns)
{
	uint16		last = rinq_declare_last_consumer();

	if (ns->channel == 0)
	{
		if (next_channel > last)
			next_channel = CHANNEL_NAMESPACES;
		ns->channel = next_channel++;
	}
	if (!rinq_amqp_channel_usable(rinq_peer.conn, ns->channel))
	{
		rinq_amqp_channel_open(rinq_peer.conn, ns->channel, 0);
		rinq_basic_qos(rinq_peer.conn, ns->channel, request_prefetch(), false, 0);
	}
	return ns->channel;
}

static void
listen_to_namespace(RinqNamespace * ns)
{
	char		buf[RINQ_NAMESPACE_MAXLEN + 8];
	RinqBytes	queue = command_queue(ns, buf);

	if (!rinq_peer.ready || rinq_peer.stopping || ns->consuming || ns->listener == NULL)
		return;
	if (ns->state != NAMESPACE_DECLARED)
	{
		rinq_topology_declare(ns);
		return;
	}
	ns->consuming = true;
	bind_multicast(ns, STEP_NAMESPACE);
	rinq_basic_consume(rinq_peer.conn, consuming_channel(ns), queue, queue, false,
					   COOKIE(STEP_CONSUME, ns->index));
}

static void
unlisten_namespace(RinqNamespace * ns)
{
	char		buf[RINQ_NAMESPACE_MAXLEN + 8];
	char		own[16];

	if (!ns->consuming)
		return;
	ns->consuming = false;
	if (!rinq_peer.ready)
		return;
	if (rinq_amqp_channel_usable(rinq_peer.conn, ns->channel))
		rinq_basic_cancel(rinq_peer.conn, ns->channel, command_queue(ns, buf), 0);
	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, own_queue(".req", own),
					  rinq_bytes_str("cmd.mc"), rinq_bytes_str(ns->name),
					  COOKIE(STEP_NAMESPACE, ns->index));
}

void
rinq_topology_stop_consuming(void)
{
	uint32		i;
	char		queue[16];

	for (i = 0; i < rinq_topology_count(); i++)
		unlisten_namespace(rinq_topology_at(i));
	rinq_basic_cancel(rinq_peer.conn, CHANNEL_COMMANDS, own_queue(".req", queue), 0);
	rinq_basic_cancel(rinq_peer.conn, CHANNEL_NOTIFICATIONS, own_queue(".ntf", queue), 0);
}

static void
free_listener(RinqListener *listener)
{
	if (listener == NULL)
		return;
	pfree(listener->namespace);
	pfree(listener->handler);
	if (listener->problem != NULL)
		pfree(listener->problem);
	pfree(listener);
}

/*
 * Take a new list of listeners, whose memory it keeps, and start and stops
 * consuming accordingly.
 */
void
rinq_topology_configure(List *listeners)
{
	ListCell   *lc;
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		free_listener(rinq_topology_at(i)->listener);
		rinq_topology_at(i)->listener = NULL;
	}
	foreach(lc, listeners)
	{
		RinqListener *listener = lfirst(lc);
		RinqNamespace *ns = rinq_topology_namespace(rinq_bytes_str(listener->namespace), INT_MAX);

		if (ns == NULL)
		{
			ereport(WARNING,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("rinq ignores a listener to an invalid namespace")));
			free_listener(listener);
			continue;
		}
		ns->listener = listener;
	}
	list_free(listeners);
	for (i = 0; i < rinq_topology_count(); i++)
	{
		if (rinq_topology_at(i)->listener != NULL)
			listen_to_namespace(rinq_topology_at(i));
		else
			unlisten_namespace(rinq_topology_at(i));
	}
}

static void
became_ready(void)
{
	uint32		i;

	rinq_peer.ready = true;
	rinq_mending_opened();
	for (i = 0; i < rinq_topology_count(); i++)
		listen_to_namespace(rinq_topology_at(i));
}

/*
 * Take the broker's reply to one of the requests made here.
 */
void
rinq_topology_reply(const RinqReply *reply)
{
	RinqNamespace *ns;

	rinq_declare_replied(reply->channel);
	switch (COOKIE_STEP(reply->cookie))
	{
		case STEP_SETUP_LAST:
			start_commands();
			start_responses();
			start_notifications();
			became_ready();
			break;
		case STEP_BIND:
			ns = rinq_topology_at(COOKIE_INDEX(reply->cookie));
			if (ns->state != NAMESPACE_DECLARING)
				break;
			rinq_declare_end(ns, NAMESPACE_DECLARED);
			if (ns->listener == NULL)
				ns->retry_delay = 0;
			rinq_invoker_declared(ns, RINQ_OUTCOME_SUCCESS, NULL);
			listen_to_namespace(ns);
			break;
		case STEP_SUBSCRIBE:
			ns = rinq_topology_at(COOKIE_INDEX(reply->cookie));
			if (--ns->binds > 0)
				break;			/* of one that was undone since */
			if (ns->notifications == NOTIFICATIONS_BINDING)
				ns->notifications = NOTIFICATIONS_BOUND;
			finish_binding_operations(ns, NULL);
			break;
		case STEP_CONSUME:
			rinq_topology_at(COOKIE_INDEX(reply->cookie))->retry_delay = 0;
			break;
		default:
			break;
	}
}

/* Have a namespace's queue tried again later. */
static void
retry_later(RinqNamespace * ns)
{
	rinq_declare_end(ns, NAMESPACE_FAILED);
	ns->consuming = false;
	ns->retry_delay = rinq_backoff_next(ns->retry_delay, FIRST_RETRY_DELAY, LAST_RETRY_DELAY);
	ns->retry_at = rinq_peer.now + ns->retry_delay;
	if (ns->listener != NULL)
		next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
}

/*
 * Note that the broker does not let this peer consume a namespace's queue any
 * more.  True when it may be tried again at once; what is lost again and again
 * has to wait.
 */
static bool
consumer_lost(RinqNamespace * ns)
{
	bool		again = ns->lost_at != 0 && rinq_peer.now - ns->lost_at < LOST_AGAIN;

	ns->consuming = false;
	ns->lost_at = rinq_peer.now;
	if (ns->state == NAMESPACE_DECLARING)
		return true;			/* when that is answered */
	if (again)
		retry_later(ns);
	return !again;
}

/* Note that one namespace's queue cannot be had now; the others go on. */
static void
namespace_failed(RinqNamespace * ns, const RinqAmqpChannelClosed *info)
{
	char		text[RINQ_LAST_ERROR_LEN];

	snprintf(text, sizeof(text), "the broker refused %s for queue \"cmd.%s\": %u %s",
			 info->method, ns->name, info->code, info->text);
	if (ns->listener != NULL && ns->retry_delay == 0)
		ereport(WARNING,
				(errmsg("rinq cannot listen to namespace \"%s\"", ns->name),
				 errdetail_internal("%s", text),
				 errhint("Delete or change the queue on the broker; the peer tries again by itself.")));
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.last_error, text, RINQ_LAST_ERROR_LEN);
	SpinLockRelease(&rinq_peer.db->mutex);

	retry_later(ns);
	rinq_invoker_declared(ns, RINQ_OUTCOME_NO_QUEUE, text);
}

/* Tell those who wait that notifications of a namespace cannot be had. */
static void
notifications_failed(RinqNamespace * ns, const RinqAmqpChannelClosed *info)
{
	char		text[RINQ_LAST_ERROR_LEN];

	snprintf(text, sizeof(text), "the broker refused %s for notifications of namespace \"%s\": %u %s",
			 info->method, ns->name, info->code, info->text);
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.last_error, text, RINQ_LAST_ERROR_LEN);
	SpinLockRelease(&rinq_peer.db->mutex);
	ns->notifications = NOTIFICATIONS_UNBOUND;
	finish_binding_operations(ns, text);
	rinq_durable_retry();
}

/* Tell whether it was a binding for notifications that the broker refused. */
static bool
is_notifications(const RinqNamespace * ns, int step, const RinqAmqpChannelClosed *info)
{
	return ns->notifications == NOTIFICATIONS_BINDING &&
		(step == STEP_SUBSCRIBE || step == STEP_NAMESPACE) &&
		strcmp(info->method, "queue.bind") == 0;
}

/*
 * Handle the closing of a channel on which queues are declared: the
 * declaration that is meant has failed, the others are made again.
 */
static void
declare_channel_closed(const RinqAmqpChannelClosed *info)
{
	RinqNamespace *failed = rinq_declare_oldest(info->channel);

	if (info->request_failed && COOKIE_STEP(info->cookie) == STEP_AGAIN)
	{
		rinq_mending_refused(info, rinq_topology_at(COOKIE_INDEX(info->cookie)));
		failed = NULL;
	}
	else if (info->request_failed && COOKIE_INDEX(info->cookie) < rinq_topology_count())
		failed = rinq_topology_at(COOKIE_INDEX(info->cookie));
	rinq_declare_replied(info->channel);
	if (failed != NULL)
		namespace_failed(failed, info);
	rinq_declare_elsewhere(info->channel, false);
}

/*
 * Handle the closing of a channel by the broker: the request it refused has
 * failed, the others that were under way there are made again.
 */
void
rinq_topology_channel_closed(const RinqAmqpChannelClosed *info)
{
	RinqNamespace *failed = NULL;
	int			step = info->request_failed ? COOKIE_STEP(info->cookie) : 0;
	static RinqBurst logged;
	uint32		i;

	if (step == STEP_SETUP || step == STEP_SETUP_LAST)
	{
		char		reason[RINQ_LAST_ERROR_LEN];

		snprintf(reason, sizeof(reason), "the broker refused %s: %u %s",
				 info->method, info->code, info->text);
		rinq_peer_fail(reason);
		return;
	}
	if (rinq_is_declare_channel(info->channel))
	{
		declare_channel_closed(info);
		return;
	}
	if (!info->request_failed && info->channel < CHANNEL_NAMESPACES &&
		rinq_too_often(&closes, MAX_CLOSES))
	{
		char		reason[RINQ_LAST_ERROR_LEN];

		snprintf(reason, sizeof(reason), "the broker closes channel %u again and again: %u %s",
				 info->channel, info->code, info->text);
		rinq_peer_fail(reason);
		return;
	}
	if (step == STEP_AGAIN || step == STEP_AGAIN_OWN)
		rinq_mending_refused(info, NULL);
	else if (step != 0 && COOKIE_INDEX(info->cookie) < rinq_topology_count())
		failed = rinq_topology_at(COOKIE_INDEX(info->cookie));
	if (failed == NULL && !rinq_too_often(&logged, MAX_CLOSES))
		ereport(LOG,
				(errmsg("rinq peer %s: the broker closed channel %u after %s: %u %s",
						rinq_peer.id_text, info->channel, info->method,
						info->code, info->text)));

	if (info->channel < CHANNEL_NAMESPACES)
		rinq_amqp_channel_open(rinq_peer.conn, info->channel, 0);
	if (step == STEP_AGAIN_OWN)
		rinq_topology_declare_own(true, (int) COOKIE_INDEX(info->cookie) + 1);
	if (info->channel == CHANNEL_COMMANDS)
	{
		rinq_dispatch_channel_lost(info->channel);
		start_commands();
	}
	else if (info->channel == CHANNEL_RESPONSES)
		start_responses();
	else if (info->channel == CHANNEL_NOTIFICATIONS)
	{
		rinq_notifications_channel_lost();
		start_notifications();
	}
	else if (info->channel >= CHANNEL_NAMESPACES)
		rinq_dispatch_channel_lost(info->channel);

	/* a queue that vanished between declaring and consuming is made again */
	if (failed != NULL && step == STEP_CONSUME && info->code == 404)
	{
		if (consumer_lost(failed) && failed->state != NAMESPACE_DECLARING)
			rinq_declare_end(failed, NAMESPACE_UNDECLARED);
	}
	else if (failed != NULL && is_notifications(failed, step, info))
		notifications_failed(failed, info);
	else if (failed != NULL)
		namespace_failed(failed, info);

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (info->channel == CHANNEL_TOPOLOGY)
		{
			ns->binds = 0;
			if (ns->notifications == NOTIFICATIONS_BINDING)
				bind_notifications(ns);
		}
		if (ns->channel == info->channel && ns->consuming)
			(void) consumer_lost(ns);
		if (ns->state != NAMESPACE_FAILED)
			listen_to_namespace(ns);
	}
}

/*
 * Handle the cancelling of a consumer by the broker, because its queue was
 * deleted.
 */
void
rinq_topology_cancelled(RinqBytes consumer_tag)
{
	RinqNamespace *ns = NULL;
	char		queue[16];

	if (consumer_tag.len > 4 && memcmp(consumer_tag.data, "cmd.", 4) == 0)
		ns = rinq_topology_find(rinq_bytes(consumer_tag.data + 4, consumer_tag.len - 4));
	own_queue(".req", queue);
	if (ns == NULL)
	{
		/* a queue of our own: without it, this identity is of no use */
		rinq_peer_fail("a queue of this peer was deleted on the broker");
		return;
	}
	if (!ns->consuming)
		return;					/* that was known */
	ereport(LOG,
			(errmsg("rinq peer %s: queue \"cmd.%s\" was deleted on the broker, declaring it again",
					rinq_peer.id_text, ns->name)));
	if (!consumer_lost(ns))
		return;
	if (ns->state != NAMESPACE_DECLARING)
		rinq_declare_end(ns, NAMESPACE_UNDECLARED);
	listen_to_namespace(ns);
	rinq_mending_soon();
}

/*
 * Try failed namespaces again when their time has come.  Returns when to
 * look again, or 0.
 */
int64
rinq_topology_retry(void)
{
	uint32		i;

	if (!rinq_peer.ready)
		return 0;
	if (next_retry == 0 || rinq_peer.now < next_retry)
		return next_retry;

	next_retry = 0;
	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->state != NAMESPACE_FAILED || ns->listener == NULL)
			continue;
		if (ns->retry_at <= rinq_peer.now)
			listen_to_namespace(ns);
		else
			next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
	}
	return next_retry;
}
