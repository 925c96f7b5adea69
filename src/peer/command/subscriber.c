/*-------------------------------------------------------------------------
 *
 * subscriber.c
 *	  Durable subscriptions, as those that run their handlers know them: by name,
 *	  beyond the sessions that each connection makes for them.
 *
 * A notification for one with a retry policy is handled as the subscription says
 * when its turn comes, whatever has become of the session that it came for.  What
 * is on its way uses the subscriber, which is forgotten when there is neither
 * such a subscription nor such a use any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hash_table.h"
#include "peer/command/subscriber.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

static HTAB *subscribers = NULL;

/* those with something that will be due */
static dlist_head waiting = DLIST_STATIC_INIT(waiting);

static void
make_subscribers(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = RINQ_MAX_SUBSCRIPTION_NAME + 1;
	ctl.entrysize = sizeof(RinqSubscriber);
	ctl.hcxt = TopMemoryContext;
	subscribers = hash_create("rinq subscribers", 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Walk over all subscribers; call "visit" for each. */
static void
visit_subscribers(void (*visit) (RinqSubscriber * subscriber))
{
	HASH_SEQ_STATUS seq;
	RinqSubscriber *subscriber;

	if (subscribers == NULL)
		return;
	hash_seq_init(&seq, subscribers);
	while ((subscriber = hash_seq_search(&seq)) != NULL)
		visit(subscriber);
}

static void
unset_listener(RinqSubscriber * subscriber)
{
	subscriber->listener = NULL;
}

/*
 * Begin to take a new list of subscriptions: those that it does not name are
 * none any more.
 */
void
rinq_subscribers_begin(void)
{
	visit_subscribers(unset_listener);
}

/*
 * Say how notifications of a subscription are handled from now on; the listener
 * is the caller's, and has to stay until the next list.
 */
RinqSubscriber *
rinq_subscriber_configure(const char *name, const RinqListener *listener)
{
	static uint64 last_number = 0;
	RinqSubscriber *subscriber;
	bool		found;

	Assert(strlen(name) <= RINQ_MAX_SUBSCRIPTION_NAME);
	if (subscribers == NULL)
		make_subscribers();
	subscriber = hash_search(subscribers, name, HASH_ENTER, &found);
	if (!found)
	{
		subscriber->number = ++last_number;
		subscriber->due = 0;
		subscriber->asking = NULL;
		subscriber->uses = 0;
		subscriber->problem_noted = 0;
	}
	subscriber->listener = listener;
	return subscriber;
}

static void
forget_if_gone(RinqSubscriber * subscriber)
{
	if (subscriber->listener != NULL || subscriber->uses > 0)
		return;
	if (subscriber->due != 0)
		dlist_delete(&subscriber->node);
	hash_search(subscribers, subscriber->name, HASH_REMOVE, NULL);
}

/*
 * End the list.  No session points to a subscriber that it did not name.
 */
void
rinq_subscribers_end(void)
{
	visit_subscribers(forget_if_gone);
}

/*
 * Note that one more notification of a subscription is on its way.
 */
void
rinq_subscriber_use(RinqSubscriber * subscriber)
{
	subscriber->uses++;
}

/*
 * Note that a notification of a subscription is over.
 */
void
rinq_subscriber_release(RinqSubscriber * subscriber)
{
	Assert(subscriber->uses > 0);
	subscriber->uses--;
}

/*
 * Tell whether notifications of a subscription that fail are kept, and all of
 * them outlive their session.
 */
bool
rinq_subscriber_keeps(const RinqSubscriber * subscriber)
{
	return subscriber->listener != NULL && subscriber->listener->retry.attempts > 0;
}

/*
 * Note that something of a subscription may be due at a time; 0 is never.
 */
void
rinq_subscriber_due_at(RinqSubscriber * subscriber, int64 at)
{
	if (at == 0)
		return;
	if (subscriber->due == 0)
		dlist_push_tail(&waiting, &subscriber->node);
	subscriber->due = rinq_clock_earlier(subscriber->due, at);
}

/*
 * Return a subscription that may have something due at a time or before, of which
 * nothing is noted any more then; NULL when there is none.
 */
RinqSubscriber *
rinq_subscriber_take_due(int64 time)
{
	dlist_iter	iter;

	dlist_foreach(iter, &waiting)
	{
		RinqSubscriber *subscriber = dlist_container(RinqSubscriber, node, iter.cur);

		if (subscriber->listener == NULL || subscriber->due > time)
			continue;
		subscriber->due = 0;
		dlist_delete(&subscriber->node);
		return subscriber;
	}
	return NULL;
}

/*
 * Have all that wait for a time looked at at another one.
 */
void
rinq_subscribers_due_at(int64 at)
{
	dlist_iter	iter;

	dlist_foreach(iter, &waiting)
		dlist_container(RinqSubscriber, node, iter.cur)->due = at;
}

/*
 * Return when the first of all subscriptions may have something due; 0 is never.
 */
int64
rinq_subscriber_next_due(void)
{
	dlist_iter	iter;
	int64		found = 0;

	dlist_foreach(iter, &waiting)
	{
		const		RinqSubscriber *subscriber = dlist_container(RinqSubscriber, node, iter.cur);

		if (subscriber->listener != NULL)
			found = rinq_clock_earlier(found, subscriber->due);
	}
	return found;
}

static void
take_configured_due(RinqSubscriber * subscriber)
{
	if (subscriber->listener != NULL)
		rinq_subscriber_due_at(subscriber, subscriber->listener->due);
}

/*
 * Note what the reader has found of all subscriptions.
 */
void
rinq_subscribers_due_configured(void)
{
	visit_subscribers(take_configured_due);
}
