/*-------------------------------------------------------------------------
 *
 * due.c
 *	  When commands that wait in the inbox are due, by namespace.
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

/* no namespace has anything due before; 0 is never */
static int64 next_due = 0;

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
}

/* Find out when the next one of any namespace that is listened to is due. */
static int64
find_next(void)
{
	int64		found = 0;
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		const		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener != NULL)
			found = rinq_clock_earlier(found, ns->due);
	}
	return found;
}

/*
 * Return a namespace with something due, of which nothing is noted any more then;
 * NULL when there is none, and *next is when there will be, 0 for never.  All
 * namespaces are looked at only when something is due.
 */
RinqNamespace *
rinq_inbox_due_take(int64 *next)
{
	uint32		i;

	for (i = 0; next_due != 0 && next_due <= rinq_peer.now && i < rinq_topology_count(); i++)
	{
		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener == NULL || ns->due == 0 || ns->due > rinq_peer.now)
			continue;
		ns->due = 0;
		return ns;
	}
	if (next_due != 0 && next_due <= rinq_peer.now)
		next_due = find_next();
	*next = next_due;
	return NULL;
}
