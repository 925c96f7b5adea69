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

#include "base/burst.h"
#include "guc.h"
#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/consume.h"
#include "peer/topology/declare.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/mending.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "utils/memutils.h"

#define MAX_CLOSES 5			/* of the peer's own channels, in a few
								 * seconds */

/* of channels that the peer consumes from, for no request of its own */
static RinqBurst closes;

/*
 * Set up everything that an open connection with a reserved identity needs,
 * without waiting for any of it.  The last reply makes the peer ready.
 */
void
rinq_topology_opened(void)
{
	rinq_declare_own(false, 0);
}

static void
bind_notifications(RinqNamespace * ns)
{
	ns->notifications = NOTIFICATIONS_BINDING;
	ns->binds++;
	rinq_bind_notifications(ns, STEP_NAMESPACE, STEP_SUBSCRIBE);
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
	if (ns->notifications == NOTIFICATIONS_UNBOUND)
		return;
	ns->notifications = NOTIFICATIONS_UNBOUND;
	if (rinq_peer.ready)
		rinq_unbind_notifications(ns);
}

/*
 * Forget what was declared, since the next connection starts afresh; calls
 * that wait for a queue have nothing to wait for.
 */
void
rinq_topology_connection_lost(void)
{
	uint32		i;

	rinq_consume_connection_lost();
	rinq_mailbox_connection_lost();
	memset(&closes, 0, sizeof(closes));
	rinq_declare_connection_lost();

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		ns->state = ns->suspect ? NAMESPACE_FAILED : NAMESPACE_UNDECLARED;
		ns->channel = 0;
		ns->consuming = false;
		if (!ns->suspect)
		{
			ns->retry_at = 0;
			ns->retry_delay = 0;
		}
		ns->wanted = false;
		ns->refused = false;	/* by that broker, then */
		ns->lost_at = 0;
		ns->bound_at = 0;
		ns->unbind_first = false;
		ns->mend_after = 0;
		ns->notifications = NOTIFICATIONS_UNBOUND;
		ns->binds = 0;
		rinq_topology_hooks->bound(ns, "the connection to the broker was lost");
		rinq_topology_hooks->declared(ns, RINQ_OUTCOME_CONNECTION_LOST,
									  "the connection to the broker was lost before the request was sent");
	}
}

/*
 * Forget which namespaces' queues a broker has closed the connection for, since
 * the next connection is to another one.
 */
void
rinq_topology_another_broker(void)
{
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
		rinq_topology_at(i)->suspect = false;
}

static void
became_ready(void)
{
	uint32		i;

	rinq_peer.ready = true;
	rinq_mending_opened();
	for (i = 0; i < rinq_topology_count(); i++)
		rinq_consume_namespace(rinq_topology_at(i));
	rinq_mailbox_open();
}

/* Go on with a namespace whose queue is there, and bound. */
static void
queue_declared(RinqNamespace * ns)
{
	rinq_declare_end(ns, NAMESPACE_DECLARED);
	ns->unbind_first = false;
	ns->suspect = false;
	if (ns->bound_at == 0)
		ns->bound_at = rinq_peer.now;
	if (ns->listener == NULL)
		ns->retry_delay = 0;	/* else when it is consumed, too */
	rinq_topology_hooks->declared(ns, RINQ_OUTCOME_SUCCESS, NULL);
	ns->wanted = false;
	ns->refused = false;
	if (ns->consuming && rinq_peer.ready && !rinq_peer.stopping)
		rinq_bind_multicast(ns, STEP_MULTICAST);	/* it may have been that
													 * which was refused */
	rinq_consume_namespace(ns);
}

/*
 * Take the broker's reply to one of the requests made here.
 */
void
rinq_topology_reply(const RinqReply *reply)
{
	RinqNamespace *ns;

	rinq_declare_replied(reply->channel);
	switch (RINQ_COOKIE_STEP(reply->cookie))
	{
		case STEP_SETUP_LAST:
			rinq_consume_start(CHANNEL_COMMANDS);
			rinq_consume_start(CHANNEL_RESPONSES);
			rinq_consume_start(CHANNEL_NOTIFICATIONS);
			became_ready();
			break;
		case STEP_BIND:
			ns = rinq_topology_at(RINQ_COOKIE_INDEX(reply->cookie));
			if (ns->state != NAMESPACE_DECLARING)
				break;
			queue_declared(ns);
			break;
		case STEP_SUBSCRIBE:
			ns = rinq_topology_at(RINQ_COOKIE_INDEX(reply->cookie));
			Assert(ns->binds > 0);
			if (--ns->binds > 0)
				break;			/* of one that was undone since */
			if (ns->notifications == NOTIFICATIONS_BINDING)
				ns->notifications = NOTIFICATIONS_BOUND;
			rinq_topology_hooks->bound(ns, NULL);
			break;
		case STEP_MULTICAST:
			rinq_topology_at(RINQ_COOKIE_INDEX(reply->cookie))->multicast_bound = true;
			break;
		case STEP_MAILBOX_LAST:
			rinq_mailbox_opened();
			break;
		case STEP_CONSUME:
			ns = rinq_topology_at(RINQ_COOKIE_INDEX(reply->cookie));
			ns->retry_delay = 0;
			ns->consumed = true;
			break;
		default:
			break;
	}
}

/* Tell whether a queue that is refused with this code is so until an administrator mends it. */
static bool
is_lasting(uint16_t code)
{
	return code == 403 || code == 405 || code == 406;
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
				 errhint("With 403, grant the permission that the broker's user lacks; with 406, delete the queue or make it anew. The peer tries again by itself.")));
	rinq_peer_show_error(text);

	ns->refused = is_lasting(info->code);
	rinq_consume_retry_later(ns);
	rinq_topology_hooks->declared(ns, RINQ_OUTCOME_NO_QUEUE, text);
}

/* Tell those who wait that notifications of a namespace cannot be had. */
static void
notifications_failed(RinqNamespace * ns, const RinqAmqpChannelClosed *info)
{
	char		text[RINQ_LAST_ERROR_LEN];

	snprintf(text, sizeof(text), "the broker refused %s for notifications of namespace \"%s\": %u %s",
			 info->method, ns->name, info->code, info->text);
	rinq_peer_show_error(text);
	ns->notifications = NOTIFICATIONS_UNBOUND;
	rinq_topology_hooks->bound(ns, text);
	rinq_topology_hooks->binding_refused(ns);
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

	if (info->request_failed && RINQ_COOKIE_STEP(info->cookie) == STEP_AGAIN)
	{
		rinq_mending_refused(info, rinq_topology_at(RINQ_COOKIE_INDEX(info->cookie)));
		failed = NULL;
	}
	else if (info->request_failed && RINQ_COOKIE_INDEX(info->cookie) < rinq_topology_count())
		failed = rinq_topology_at(RINQ_COOKIE_INDEX(info->cookie));
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
	int			step = info->request_failed ? RINQ_COOKIE_STEP(info->cookie) : 0;
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
	if (info->channel == CHANNEL_MAILBOX)
	{
		rinq_topology_hooks->channel_lost(info->channel);
		rinq_mailbox_channel_closed(info);
		return;
	}
	if (rinq_is_declare_channel(info->channel))
	{
		declare_channel_closed(info);
		return;
	}
	if (!info->request_failed && info->channel < CHANNEL_NAMESPACES &&
		rinq_too_often(&closes, rinq_peer.now, MAX_CLOSES))
	{
		char		reason[RINQ_LAST_ERROR_LEN];

		snprintf(reason, sizeof(reason), "the broker closes channel %u again and again: %u %s",
				 info->channel, info->code, info->text);
		rinq_peer_fail(reason);
		return;
	}
	if (step == STEP_AGAIN || step == STEP_AGAIN_OWN)
		rinq_mending_refused(info, NULL);
	else if (step != 0 && RINQ_COOKIE_INDEX(info->cookie) < rinq_topology_count())
		failed = rinq_topology_at(RINQ_COOKIE_INDEX(info->cookie));
	if (failed == NULL && !rinq_too_often(&logged, rinq_peer.now, MAX_CLOSES))
		ereport(LOG,
				(errmsg("rinq peer %s: the broker closed channel %u after %s: %u %s",
						rinq_peer.id_text, info->channel, info->method,
						info->code, info->text)));

	if (info->channel < CHANNEL_NAMESPACES)
		rinq_amqp_channel_open(rinq_peer.conn, info->channel, 0);
	if (step == STEP_AGAIN_OWN)
		rinq_declare_own(true, (int) RINQ_COOKIE_INDEX(info->cookie) + 1);
	rinq_topology_hooks->channel_lost(info->channel);
	rinq_consume_start(info->channel);

	/* a queue that vanished between declaring and consuming is made again */
	if (failed != NULL && step == STEP_CONSUME && info->code == 404)
	{
		if (rinq_consume_lost(failed) && failed->state != NAMESPACE_DECLARING)
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
			if (ns->consuming && !ns->multicast_bound && ns != failed)
				rinq_bind_multicast(ns, STEP_MULTICAST);
		}
		if (ns->channel == info->channel && ns->consuming)
			(void) rinq_consume_lost(ns);
		if (ns->state != NAMESPACE_FAILED)
			rinq_consume_namespace(ns);
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
	char		queue[RINQ_OWN_QUEUE_SIZE];

	if (consumer_tag.len > 4 && memcmp(consumer_tag.data, "cmd.", 4) == 0)
		ns = rinq_topology_find(rinq_bytes(consumer_tag.data + 4, consumer_tag.len - 4));
	if (rinq_mailbox_cancelled(consumer_tag))
		return;
	rinq_own_queue(".req", queue);
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
	if (!rinq_consume_lost(ns))
		return;
	if (ns->state != NAMESPACE_DECLARING)
		rinq_declare_end(ns, NAMESPACE_UNDECLARED);
	rinq_consume_namespace(ns);
	rinq_mending_soon();
}
