/*-------------------------------------------------------------------------
 *
 * declare.c
 *	  Declaring the queues of namespaces, so that one which cannot be had now
 *	  holds up no other.
 *
 * A broker may take a minute to say that the node of a queue is down, and says
 * nothing else on that channel meanwhile.  So these declarations have a few
 * channels of their own.  All go through the first, one after another without
 * waiting for replies; when it falls silent, the declaration that it waits for
 * stays there, and the others are made again on the next channel.
 *
 * Which namespaces are declared when is said by those who need them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/declare.h"
#include "peer/topology/namespaces.h"

#define MAX_CHANNELS 8
#define SPARE_CHANNELS 16		/* to be left to consumers, or else there is
								 * but one */
#define SLOW_AFTER 200			/* ms without a reply, after which a channel
								 * is avoided */
#define CALL_MARGIN 100			/* ms before its deadline at which a call is
								 * told */
#define LOOK_INTERVAL 25		/* ms between looks at a slow channel */

/* when a declaring channel has answered last, or has begun to wait for a reply */
static int64 waits_since[MAX_CHANNELS];

/* when the broker has answered anything at all */
static int64 last_reply;

/* the channel's silence was noticed, and what waits behind is on its way elsewhere */
static bool is_stuck[MAX_CHANNELS];

/* namespaces whose declaration is under way, oldest first */
static dlist_head declaring = DLIST_STATIC_INIT(declaring);

static uint16
last_channel(void)
{
	return Min(rinq_conn_channel_max(rinq_peer.conn), RINQ_CONN_MAX_CHANNEL);
}

static int
num_channels(void)
{
	return last_channel() >= CHANNEL_NAMESPACES + MAX_CHANNELS + SPARE_CHANNELS ? MAX_CHANNELS : 1;
}

static uint16
channel_at(int i)
{
	Assert(i >= 0 && i < MAX_CHANNELS);
	return (uint16) (last_channel() - i);
}

/*
 * Return the highest channel that consumers may have.
 */
uint16
rinq_declare_last_consumer(void)
{
	uint16		last = last_channel();
	int			num = num_channels();

	/* of very few channels, declarations share the last one */
	return (uint16) Max(CHANNEL_NAMESPACES, last - num);
}

/* Return the number of a declaring channel, -1 when it is none. */
static int
number_of(uint16 channel)
{
	int			i = last_channel() - channel;

	return i >= 0 && i < num_channels() && channel >= CHANNEL_NAMESPACES ? i : -1;
}

static bool
is_slow(int i)
{
	return rinq_amqp_channel_requests(rinq_peer.conn, channel_at(i)) > 0 &&
		rinq_peer.now - waits_since[i] >= SLOW_AFTER;
}

/* Open a channel if need be, and note since when it waits for a reply. */
static void
use_channel(int i)
{
	if (!rinq_amqp_channel_usable(rinq_peer.conn, channel_at(i)))
		rinq_amqp_channel_open(rinq_peer.conn, channel_at(i), 0);
	if (rinq_amqp_channel_requests(rinq_peer.conn, channel_at(i)) <= 1)
		waits_since[i] = rinq_peer.now;
}

/*
 * Return a channel to declare a queue on, open and not known to be silent;
 * when all are, one of them.
 */
static uint16
choose_declare_channel(void)
{
	int			last = Max(0, num_channels() - 2);	/* the one after it is for
													 * mending */
	int			i = 0;

	while (i < last && is_slow(i))
		i++;
	use_channel(i);
	return channel_at(i);
}

/*
 * Return a channel for declarations that nothing waits for, 0 when it is
 * silent.
 */
uint16
rinq_declare_mending_channel(void)
{
	int			i = num_channels() - 1;

	if (is_slow(i))
		return 0;
	use_channel(i);
	return channel_at(i);
}

/*
 * Tell whether this is a channel that queues are declared on.
 */
bool
rinq_is_declare_channel(uint16 channel)
{
	return number_of(channel) >= 0;
}

/*
 * Note that the broker has replied on a channel, or has closed it.
 */
void
rinq_declare_replied(uint16 channel)
{
	int			i = number_of(channel);

	last_reply = rinq_peer.now;
	if (i < 0)
		return;
	waits_since[i] = rinq_peer.now;
	is_stuck[i] = false;
}

/* Note that a namespace's queue is being declared, and where. */
static void
begin_declaring(RinqNamespace * ns)
{
	Assert(ns->state != NAMESPACE_DECLARING);
	ns->state = NAMESPACE_DECLARING;
	ns->declare_channel = choose_declare_channel();
	Assert(rinq_is_declare_channel(ns->declare_channel));
	ns->declare_since = rinq_peer.now;
	dlist_push_tail(&declaring, &ns->declaring);
}

/*
 * End the declaring of a namespace's queue, with this state.
 */
void
rinq_declare_end(RinqNamespace * ns, RinqNamespaceState state)
{
	Assert(state != NAMESPACE_DECLARING);
	Assert(state != NAMESPACE_DECLARED || ns->state == NAMESPACE_DECLARING);
	if (ns->state == NAMESPACE_DECLARING)
		dlist_delete(&ns->declaring);
	ns->state = state;
}

/* Tell whether a queue is not to be declared now, since that may cost the connection. */
static bool
has_to_wait(const RinqNamespace * ns)
{
	return ns->suspect && ns->retry_at > rinq_peer.now;
}

/*
 * Declare the queue of a namespace, if that is neither done nor under way, nor put
 * off.
 */
void
rinq_declare_namespace(RinqNamespace * ns)
{
	if (ns->state == NAMESPACE_DECLARING || ns->state == NAMESPACE_DECLARED ||
		has_to_wait(ns) || !rinq_peer.ready)
		return;
	begin_declaring(ns);
	rinq_bind_command_queue(ns, ns->declare_channel, STEP_NAMESPACE, STEP_BIND);
}

/*
 * Return the namespace whose declaration a channel is silent about, or NULL.
 */
RinqNamespace *
rinq_declare_oldest(uint16 channel)
{
	dlist_iter	iter;

	dlist_foreach(iter, &declaring)
	{
		RinqNamespace *ns = dlist_container(RinqNamespace, declaring, iter.cur);

		if (ns->declare_channel == channel)
			return ns;
	}
	return NULL;
}

/*
 * Declare again what was under way on a channel, but for the oldest of it if
 * that is to stay.
 */
void
rinq_declare_elsewhere(uint16 channel, bool oldest_stays)
{
	RinqNamespace *oldest = oldest_stays ? rinq_declare_oldest(channel) : NULL;
	dlist_head	others;
	dlist_mutable_iter iter;

	dlist_init(&others);
	dlist_foreach_modify(iter, &declaring)
	{
		RinqNamespace *ns = dlist_container(RinqNamespace, declaring, iter.cur);

		if (ns->declare_channel != channel || ns == oldest)
			continue;
		dlist_delete(iter.cur);
		dlist_push_tail(&others, iter.cur);
	}
	while (!dlist_is_empty(&others))
	{
		RinqNamespace *ns = dlist_container(RinqNamespace, declaring,
											dlist_pop_head_node(&others));
		int64		since = ns->declare_since;

		ns->state = NAMESPACE_UNDECLARED;
		rinq_declare_namespace(ns);
		if (ns->state == NAMESPACE_DECLARING)
			ns->declare_since = since;
	}
}

/*
 * Say why a declaration that is put off, or under way, is not to be waited for
 * any longer than "patience" ms, in a text that lives until the next one is asked for; or
 * return NULL. A broker that is silent altogether is not to be blamed on a
 * queue.
 */
const char *
rinq_declare_problem(const RinqNamespace * ns, int patience)
{
	static char text[RINQ_LAST_ERROR_LEN];
	int64		waited = rinq_peer.now - ns->declare_since;

	if (has_to_wait(ns))
	{
		snprintf(text, sizeof(text), "the broker closed the connection when queue \"cmd.%s\" was declared, which is tried again in " INT64_FORMAT " ms",
				 ns->name, ns->retry_at - rinq_peer.now);
		return text;
	}
	if (ns->state != NAMESPACE_DECLARING || waited < patience ||
		last_reply < ns->declare_since + SLOW_AFTER)
		return NULL;
	snprintf(text, sizeof(text), "the broker has not answered the declaration of queue \"cmd.%s\" for " INT64_FORMAT " ms",
			 ns->name, waited);
	return text;
}

/*
 * Look at channels that do not answer.  Returns when to look again, 0 for no
 * particular time.
 */
int64
rinq_declare_step(void)
{
	bool		slow = false;
	dlist_mutable_iter iter;
	int			i;

	if (!rinq_peer.ready || dlist_is_empty(&declaring))
		return 0;
	for (i = 0; i < num_channels(); i++)
	{
		if (!is_slow(i) || is_stuck[i])
			continue;
		is_stuck[i] = true;

		/* anything that a broker answers at once, to see whether it does */
		rinq_basic_qos(rinq_peer.conn, choose_declare_channel(), 0, false, 0);
		rinq_declare_elsewhere(channel_at(i), true);
	}
	dlist_foreach_modify(iter, &declaring)
	{
		RinqNamespace *ns = dlist_container(RinqNamespace, declaring, iter.cur);
		const char *problem = rinq_declare_problem(ns, SLOW_AFTER);

		slow |= rinq_peer.now - ns->declare_since >= SLOW_AFTER;
		if (problem == NULL)
			continue;
		rinq_topology_hooks->overdue(ns, rinq_declare_problem(ns, RINQ_DECLARE_PATIENCE) != NULL ?
									 PG_INT64_MAX : rinq_peer.now + CALL_MARGIN, problem);
	}
	return rinq_peer.now + (slow ? LOOK_INTERVAL : SLOW_AFTER);
}

/*
 * Forget everything, since the connection is lost.
 */
void
rinq_declare_connection_lost(void)
{
	while (!dlist_is_empty(&declaring))
		rinq_declare_end(dlist_container(RinqNamespace, declaring, dlist_head_node(&declaring)),
						 NAMESPACE_UNDECLARED);
	last_reply = 0;
	memset(waits_since, 0, sizeof(waits_since));
	memset(is_stuck, 0, sizeof(is_stuck));
}
