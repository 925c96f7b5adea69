/*-------------------------------------------------------------------------
 *
 * mending.c
 *	  Declaring everything again now and then.
 *
 * Others delete exchanges, queues and bindings, and no broker tells of it when
 * it is a binding: a peer would be deaf, and connected.  What is there already
 * is declared again without effect.  That is done in small portions, since a
 * peer may listen to thousands of namespaces; and soon after a message was
 * returned, which shows that something is missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/declare.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/mending.h"
#include "peer/topology/namespaces.h"

#define PORTION 20				/* namespaces looked at in one go */
#define PORTION_INTERVAL 50		/* ms between portions */
#define SOONEST 1000			/* ms between rounds, whatever is returned */
#define REFUSED_PAUSE 600000	/* ms, for a queue that could not be declared
								 * again */
#define BINDING_SETTLES 1000	/* ms in which a new binding may not have
								 * reached all nodes of the broker */

static int64 last_round;		/* when the latest one began */
static bool soon;				/* the next one does not wait for the interval */
static bool in_round;
static uint32 next_namespace;	/* of the round */
static int64 next_portion;

/*
 * Begin the rounds of mending: the connection has all it needs, for the first
 * time.
 */
void
rinq_mending_opened(void)
{
	in_round = false;
	soon = false;
	last_round = rinq_peer.now;
}

/*
 * Look at the rest soon, since something was missing.
 */
void
rinq_mending_soon(void)
{
	soon = true;
}

/* Return when the next round begins, by the setting as it is now. */
static int64
next_round(void)
{
	return last_round + (soon ? Min(SOONEST, rinq_redeclare_interval) : rinq_redeclare_interval);
}

static void
begin_round(void)
{
	in_round = true;
	soon = false;
	last_round = rinq_peer.now;
	next_namespace = 0;
	next_portion = rinq_peer.now + PORTION_INTERVAL;	/* when there are
														 * exchanges */
	rinq_declare_own(true, 0);
	rinq_mailbox_mend();
}

/*
 * Declare again what this peer needs of a namespace to hear of it.  What it only
 * calls is declared again when a request is returned.
 */
static void
declare_namespace_again(RinqNamespace * ns)
{
	uint16		channel;

	if (ns->notifications == NOTIFICATIONS_BOUND)
		rinq_bind_notifications(ns, STEP_AGAIN, STEP_AGAIN);
	if (!ns->consuming || ns->state != NAMESPACE_DECLARED || ns->mend_after > rinq_peer.now)
		return;
	rinq_bind_multicast(ns, STEP_AGAIN);
	channel = rinq_declare_mending_channel();
	if (channel != 0)
		rinq_bind_command_queue(ns, channel, STEP_AGAIN, STEP_AGAIN);
}

static void
mend_portion(void)
{
	uint32		end = Min(next_namespace + PORTION, rinq_topology_count());

	for (; next_namespace < end; next_namespace++)
		declare_namespace_again(rinq_topology_at(next_namespace));
	next_portion = rinq_peer.now + PORTION_INTERVAL;
	in_round = next_namespace < rinq_topology_count();
}

/*
 * Declare again the queue of a namespace, or its binding, which are gone since the
 * broker has returned a message to it; for listeners of this peer, too.
 *
 * RabbitMQ 4.3 may know a binding that it does not route by, after its exchange
 * was deleted and declared in the same moment, and takes no notice when it is
 * made again.  To unbind one that is not there is no error.
 */
void
rinq_mend_namespace(RinqNamespace * ns)
{
	if (ns->state == NAMESPACE_DECLARED)
	{
		ns->unbind_first = rinq_peer.now - ns->bound_at >= BINDING_SETTLES;
		ns->state = NAMESPACE_UNDECLARED;
	}
	rinq_declare_namespace(ns);
	rinq_mending_soon();
}

/*
 * Note that what was there before cannot be declared again.  It is tried again
 * with everything else, but for a queue (of "ns", if it is one) that the broker
 * may have been silent about for long.
 */
void
rinq_mending_refused(const RinqAmqpChannelClosed *info, RinqNamespace * ns)
{
	char		text[RINQ_LAST_ERROR_LEN];

	snprintf(text, sizeof(text), "the broker refused %s for what was declared before: %u %s",
			 info->method, info->code, info->text);
	rinq_peer_show_error(text);
	if (ns != NULL && strcmp(info->method, "queue.declare") == 0)
		ns->mend_after = rinq_peer.now + REFUSED_PAUSE;
}

/*
 * Declare again what is due.  Returns when to look again, 0 for never.
 */
int64
rinq_mending_step(void)
{
	if (!rinq_peer.ready || rinq_peer.stopping || rinq_redeclare_interval == 0)
		return 0;
	if (!in_round && rinq_peer.now >= next_round())
		begin_round();
	if (in_round && rinq_peer.now >= next_portion)
		mend_portion();
	return in_round ? next_portion : next_round();
}
