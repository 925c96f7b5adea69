/*-------------------------------------------------------------------------
 *
 * consume.c
 *	  Consuming: which queues this peer gets messages from, and trying again what
 *	  cannot be had.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/consume.h"
#include "peer/topology/declare.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/namespaces.h"

#define FIRST_RETRY_DELAY 1000	/* ms */
#define LAST_RETRY_DELAY 15000	/* ms */
#define FIRST_SUSPECT_DELAY 5000	/* ms, for a queue that costs all others
									 * the connection */
#define LAST_SUSPECT_DELAY 300000	/* ms */
#define LOST_AGAIN 10000		/* ms within which what is lost a second time
								 * has to wait */

/* the next channel for a namespace's requests */
static uint16 next_channel = CHANNEL_NAMESPACES;

/* when the next failed namespace is tried again; 0 when there is none */
static int64 next_retry;

/* requests of one consumer that the broker sends ahead */
static uint16
request_prefetch(void)
{
	return (uint16) (rinq_prefetch > 0 ? rinq_prefetch : 4 * rinq_command_workers);
}

/* Begin to consume requests, after the channel was opened. */
static void
start_commands(void)
{
	char		queue[RINQ_OWN_QUEUE_SIZE];

	/*
	 * as much as can be said: requests between peers must not wait behind
	 * others
	 */
	rinq_basic_qos(rinq_peer.conn, CHANNEL_COMMANDS, PG_UINT16_MAX, false, 0);
	rinq_own_queue(".req", queue);
	rinq_basic_consume(rinq_peer.conn, CHANNEL_COMMANDS, rinq_bytes_str(queue),
					   rinq_bytes_str(queue), true, RINQ_COOKIE(STEP_SETUP, 0));
}

/* Begin to consume what sessions get; what is handled is bounded by other means. */
static void
start_session_channel(uint16 channel, const char *suffix)
{
	char		queue[RINQ_OWN_QUEUE_SIZE];

	rinq_basic_qos(rinq_peer.conn, channel, (uint16_t) rinq_session_prefetch, false, 0);
	rinq_own_queue(suffix, queue);
	rinq_basic_consume(rinq_peer.conn, channel, rinq_bytes_str(queue), rinq_bytes_str(queue), true,
					   RINQ_COOKIE(STEP_SETUP, 0));
}

/*
 * Begin to consume from a channel of the peer's own queues, after it was opened;
 * from others nothing is consumed.
 */
void
rinq_consume_start(uint16 channel)
{
	if (channel == CHANNEL_COMMANDS)
		start_commands();
	else if (channel == CHANNEL_RESPONSES)
		start_session_channel(channel, ".rsp");
	else if (channel == CHANNEL_NOTIFICATIONS)
		start_session_channel(channel, ".ntf");
}

/*
 * Return the channel that consumes a namespace's requests, opened if it is not.  Each
 * has its own as long as there are enough, so that one whose queue cannot be
 * consumed takes no other's requests back with it.
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

/*
 * Begin to consume a namespace's requests, if this peer listens to it; have its
 * queue declared before, if need be.
 */
void
rinq_consume_namespace(RinqNamespace * ns)
{
	char		buf[RINQ_COMMAND_QUEUE_SIZE];
	RinqBytes	queue = rinq_command_queue(ns, buf);

	if (!rinq_peer.ready || rinq_peer.stopping || ns->listener == NULL)
		return;
	if (ns->state != NAMESPACE_DECLARED)
	{
		rinq_declare_namespace(ns);
		return;
	}
	if (ns->consuming)
		return;
	ns->consuming = true;
	ns->consumed = false;
	ns->multicast_bound = false;
	rinq_bind_multicast(ns, STEP_MULTICAST);
	rinq_basic_consume(rinq_peer.conn, consuming_channel(ns), queue, queue, false,
					   RINQ_COOKIE(STEP_CONSUME, ns->index));
}

static void
unlisten_namespace(RinqNamespace * ns)
{
	char		buf[RINQ_COMMAND_QUEUE_SIZE];

	if (!ns->consuming)
		return;
	ns->consuming = false;
	if (!rinq_peer.ready)
		return;
	if (rinq_amqp_channel_usable(rinq_peer.conn, ns->channel))
		rinq_basic_cancel(rinq_peer.conn, ns->channel, rinq_command_queue(ns, buf), 0);
	rinq_unbind_multicast(ns);
}

/*
 * Stop consuming: the broker sends no more requests and notifications.
 */
void
rinq_consume_stop(void)
{
	uint32		i;
	char		queue[RINQ_OWN_QUEUE_SIZE];

	for (i = 0; i < rinq_topology_count(); i++)
		unlisten_namespace(rinq_topology_at(i));
	rinq_basic_cancel(rinq_peer.conn, CHANNEL_COMMANDS, rinq_own_queue(".req", queue), 0);
	rinq_mailbox_stop();
	rinq_basic_cancel(rinq_peer.conn, CHANNEL_NOTIFICATIONS, rinq_own_queue(".ntf", queue), 0);
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
	if (listener->order_by.data != NULL)
		pfree((char *) listener->order_by.data);
	pfree(listener);
}

/*
 * Take a new list of listeners, whose memory it keeps, and start and stop
 * consuming accordingly.
 */
void
rinq_consume_configure(List *listeners)
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
			rinq_consume_namespace(rinq_topology_at(i));
		else
			unlisten_namespace(rinq_topology_at(i));
	}
}

/*
 * Have a namespace's queue tried again later.  A consumer that the broker has not
 * ended goes on meanwhile; a second one by its name would be an error.
 */
void
rinq_consume_retry_later(RinqNamespace * ns)
{
	rinq_declare_end(ns, NAMESPACE_FAILED);
	ns->consuming = ns->consuming && rinq_amqp_channel_usable(rinq_peer.conn, ns->channel);
	ns->retry_delay = rinq_backoff_next(ns->retry_delay, FIRST_RETRY_DELAY, LAST_RETRY_DELAY);
	ns->retry_at = rinq_peer.now + ns->retry_delay;
	if (ns->listener != NULL || ns->wanted)
		next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
}

/*
 * Have a queue that cannot be had now tried again by itself, since messages wait
 * for it; that it is there is announced.
 */
void
rinq_consume_want(RinqNamespace * ns)
{
	ns->wanted = true;
	if (ns->state == NAMESPACE_FAILED)
		next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
}

/* Have a namespace's queue tried again later, in another connection. */
static void
suspect_namespace(RinqNamespace * ns)
{
	ns->suspect = true;
	ns->retry_delay = rinq_backoff_next(ns->retry_delay, FIRST_SUSPECT_DELAY, LAST_SUSPECT_DELAY);
	ns->retry_at = rinq_peer.now + ns->retry_delay;
	next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
}

/*
 * Note that the broker has closed the connection because of a queue.  It does
 * not say which: those that it was at have to wait, longer each time, so that
 * the others have the next connection for themselves.
 */
void
rinq_consume_closed_connection(void)
{
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->state == NAMESPACE_DECLARING && rinq_declare_oldest(ns->declare_channel) == ns)
			suspect_namespace(ns);
	}
}

/*
 * Note that the broker does not let this peer consume a namespace's queue any
 * more.  True when it may be tried again at once; what is lost again and again has to wait.
 */
bool
rinq_consume_lost(RinqNamespace * ns)
{
	bool		again = ns->lost_at != 0 && rinq_peer.now - ns->lost_at < LOST_AGAIN;

	ns->consuming = false;
	ns->lost_at = rinq_peer.now;
	if (ns->state == NAMESPACE_DECLARING)
		return true;			/* when that is answered */
	if (again)
		rinq_consume_retry_later(ns);
	return !again;
}

/*
 * Try failed namespaces again when their time has come.  Returns when to
 * look again, or 0.
 */
int64
rinq_consume_retry(void)
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

		if (ns->state != NAMESPACE_FAILED || (ns->listener == NULL && !ns->wanted))
			continue;
		if (ns->retry_at <= rinq_peer.now)
			rinq_declare_namespace(ns);
		else
			next_retry = rinq_clock_earlier(next_retry, ns->retry_at);
	}
	return next_retry;
}

/*
 * Forget everything, since the connection is lost.
 */
void
rinq_consume_connection_lost(void)
{
	next_channel = CHANNEL_NAMESPACES;
}
