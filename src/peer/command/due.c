/*-------------------------------------------------------------------------
 *
 * due.c
 *	  When commands that wait in the inbox are due, by namespace; and when
 *	  notifications are, by subscription.
 *
 * This process cannot look into the inbox.  The reader says what it found there
 * with the listeners; an executor, with the result of a request, what it has
 * put there or seen.  Whatever is said is the time of a look at the inbox, which may
 * be in vain.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "peer/command/due.h"
#include "peer/process.h"

/* nothing is due before; 0 is never */
static int64 next_due = 0;

static RinqClockWatch wall_clock;

/*
 * Note that the first of a namespace's commands may be due at a time; 0 is
 * never.
 */
void
rinq_inbox_due_at(RinqNamespace * ns, int64 at)
{
	Assert(at >= 0);
	ns->due = rinq_clock_earlier(ns->due, at);
	next_due = rinq_clock_earlier(next_due, at);
}

/*
 * Note the same of a subscription's notifications.
 */
void
rinq_inbox_subscriber_due_at(RinqSubscriber * subscriber, int64 at)
{
	rinq_subscriber_due_at(subscriber, at);
	next_due = rinq_clock_earlier(next_due, at);
}

/*
 * Note what the reader has found.
 */
void
rinq_inbox_due_configured(void)
{
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener != NULL)
			rinq_inbox_due_at(ns, ns->listener->due);
	}
	rinq_subscribers_due_configured();
	next_due = rinq_clock_earlier(next_due, rinq_subscriber_next_due());
}

/* Find out when the next one of any namespace or subscription that is listened to is due. */
static int64
find_next(void)
{
	int64		found = rinq_subscriber_next_due();
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		const		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener != NULL)
			found = rinq_clock_earlier(found, ns->due);
	}
	return found;
}

/* Return a namespace with something due, of which nothing is noted any more then. */
static RinqNamespace *
take_due_namespace(void)
{
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener == NULL || ns->due == 0 || ns->due > rinq_peer.now)
			continue;
		ns->due = 0;
		return ns;
	}
	return NULL;
}

/* Have all that is due at a time looked at now: rows say so on the wall clock, which was stepped. */
static void
look_at_all_due(void)
{
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->due != 0)
			ns->due = rinq_peer.now;
	}
	rinq_subscribers_due_at(rinq_peer.now);
	next_due = rinq_peer.now;
}

/*
 * Find a namespace or a subscription with something due, of which nothing is noted
 * any more then; false when there is none, and *next is when there will be, 0 for
 * never.  All of them are looked at only when something is due.
 */
bool
rinq_inbox_due_take(RinqDue * due, int64 *next)
{
	due->ns = NULL;
	due->subscriber = NULL;
	if (next_due != 0 && rinq_clock_stepped(&wall_clock, rinq_peer.now))
		look_at_all_due();
	if (next_due != 0 && next_due <= rinq_peer.now)
	{
		due->ns = take_due_namespace();
		if (due->ns == NULL)
			due->subscriber = rinq_subscriber_take_due(rinq_peer.now);
		if (due->ns != NULL || due->subscriber != NULL)
			return true;
		next_due = find_next();
	}
	*next = next_due == 0 ? 0 : rinq_clock_earlier(next_due, wall_clock.next);
	return false;
}
