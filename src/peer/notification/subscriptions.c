/*-------------------------------------------------------------------------
 *
 * subscriptions.c
 *	  Subscriptions that outlive connections: for each, a session is made at
 *	  every connect, has its attributes set, and listens.
 *
 * A session that is destroyed, or made to listen in another way, by whomever,
 * is made again.  A subscription that changes keeps its session if it can, and
 * else has the new one before the old one ends: the broker has to send its
 * notifications all the while, which it does as long as some session listens.
 * What the reader found says which subscriptions there are; how notifications
 * get to their handlers is notifications.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/command/subscriber.h"
#include "peer/notification/notifications.h"
#include "peer/notification/subscriptions.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "peer/turn.h"
#include "protocol/packed.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 5000		/* ms, when a session cannot be made */

typedef struct Subscription
{
	RinqDurableSubscription *durable;
	RinqSubscriber *subscriber; /* that its notifications are handled for */
	uint32		session;		/* number and serial of its session; 0 is none */
	uint64		serial;
	bool		outdated;		/* the session is as an earlier list had it */
	bool		stays;			/* the subscription is in a new list, too */
} Subscription;

static List *subscriptions = NIL;
static int64 retry_at = 0;

/* may a session be missing, or not listen as it should? */
static bool look = false;

/* how many subscriptions have been looked at, while the slice was over before the end */
static int	num_checked = 0;

static RinqSession *
subscription_session(const Subscription * subscription)
{
	RinqSession *session = rinq_own_session_find(subscription->session);

	return session != NULL && session->serial == subscription->serial ? session : NULL;
}

static void
free_durable(RinqDurableSubscription *durable)
{
	pfree(durable->name);
	pfree(durable->listener.namespace);
	pfree(durable->listener.handler);
	if (durable->listener.problem != NULL)
		pfree(durable->listener.problem);
	if (durable->attributes.data != NULL)
		pfree((char *) durable->attributes.data);
	pfree(durable);
}

static bool
same_text(const char *a, const char *b)
{
	return rinq_bytes_equal(rinq_bytes_str(a), rinq_bytes_str(b));
}

/* Tell whether a subscription can keep the session that it has. */
static bool
is_same_session(const RinqDurableSubscription *a, const RinqDurableSubscription *b)
{
	return same_text(a->listener.namespace, b->listener.namespace) &&
		a->listener.role == b->listener.role && rinq_bytes_equal(a->attributes, b->attributes);
}

static bool
is_same_handler(const RinqListener *a, const RinqListener *b)
{
	return same_text(a->handler, b->handler) && same_text(a->problem, b->problem) &&
		a->role == b->role && a->owner == b->owner;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(Subscription * const *) a)->durable->name,
				  (*(Subscription * const *) b)->durable->name);
}

static Subscription * *sort_by_name(List *list)
{
	Subscription **sorted = palloc_extended(Max(list_length(list), 1) * sizeof(Subscription *),
											MCXT_ALLOC_HUGE);
	ListCell   *lc;
	int			count = 0;

	foreach(lc, list)
		sorted[count++] = lfirst(lc);
	qsort(sorted, count, sizeof(Subscription *), compare_names);
	return sorted;
}

/* Take the subscription of a name; NULL when there was none. */
static Subscription *
take_of_name(Subscription * *sorted, int count, RinqDurableSubscription *durable)
{
	Subscription probe = {.durable = durable};
	Subscription *key = &probe;
	Subscription **found = bsearch(&key, sorted, count, sizeof(Subscription *), compare_names);

	if (found == NULL)
		return NULL;
	Assert(!(*found)->stays);	/* names are unique in a list */
	(*found)->stays = true;
	return *found;
}

/* Tell whether a subscription has a session, as it is now, that listens for it. */
static bool
is_subscription_served(const Subscription * subscription)
{
	RinqNamespace *ns = rinq_topology_find(rinq_bytes_str(subscription->durable->listener.namespace));
	RinqSession *session = subscription_session(subscription);
	const		RinqSubscription *listening;

	if (session == NULL || subscription->outdated)
		return false;
	listening = rinq_subscription_find(session, ns);
	return listening != NULL && listening->subscriber == subscription->subscriber;
}

/* Have the session of a subscription listen with the handler that this has now. */
static void
change_handler(const Subscription * subscription)
{
	const RinqListener *listener = &subscription->durable->listener;

	if (is_subscription_served(subscription))
		rinq_notifications_subscribe_durably(subscription_session(subscription),
											 rinq_topology_find(rinq_bytes_str(listener->namespace)),
											 listener, subscription->subscriber);
}

static void
log_problem(const RinqDurableSubscription *durable)
{
	if (durable->listener.problem != NULL)
		ereport(LOG,
				(errmsg("rinq cannot run the handler of subscription \"%s\": %s",
						durable->name, durable->listener.problem)));
}

static Subscription *
make_subscription(RinqDurableSubscription *durable)
{
	Subscription *subscription = palloc0(sizeof(Subscription));

	subscription->durable = durable;
	log_problem(durable);
	return subscription;
}

/* Have a subscription be as the new list says. */
static void
change_subscription(Subscription * subscription, RinqDurableSubscription *durable)
{
	RinqDurableSubscription *old = subscription->durable;

	subscription->durable = durable;
	if (!is_same_session(old, durable))
		subscription->outdated = true;
	if (!is_same_handler(&old->listener, &durable->listener))
	{
		log_problem(durable);
		change_handler(subscription);
	}
	free_durable(old);
}

static void
end_its_session(const Subscription * subscription)
{
	RinqSession *session = subscription_session(subscription);

	if (session != NULL)
		(void) rinq_own_session_destroy(session->seq, session->revision);
}

/* end those that the new list does not have */
static void
end_others(Subscription * *sorted, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		if (sorted[i]->stays)
		{
			sorted[i]->stays = false;
			continue;
		}
		end_its_session(sorted[i]);
		free_durable(sorted[i]->durable);
		pfree(sorted[i]);
	}
}

/*
 * Take a new list of subscriptions, whose memory it keeps.
 */
void
rinq_durable_configure(List *durables)
{
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
	List	   *old = subscriptions;
	Subscription **sorted = sort_by_name(old);
	ListCell   *lc;

	subscriptions = NIL;
	rinq_subscribers_begin();
	foreach(lc, durables)
	{
		RinqDurableSubscription *durable = lfirst(lc);
		Subscription *subscription = take_of_name(sorted, list_length(old), durable);

		if (subscription != NULL)
			change_subscription(subscription, durable);
		else
			subscription = make_subscription(durable);
		subscription->subscriber = rinq_subscriber_configure(subscription->durable->name,
															 &subscription->durable->listener);
		subscriptions = lappend(subscriptions, subscription);
	}
	end_others(sorted, list_length(old));
	rinq_subscribers_end();
	pfree(sorted);
	list_free(old);
	list_free(durables);
	MemoryContextSwitchTo(context);
	num_checked = 0;
	look = true;
}

/*
 * Look, in the next step, at the subscriptions whose session ends, or listens
 * in another way; or, with NULL, at all, whose sessions have ended.
 */
void
rinq_durable_look(const RinqSession * session)
{
	if (session == NULL || session->subscriber != NULL)
		look = true;
}

/*
 * Try again, after a while, to have notifications of a namespace that the
 * broker has refused.
 */
void
rinq_durable_retry(void)
{
	if (retry_at == 0)
		retry_at = rinq_peer.now + RETRY_INTERVAL;
}

/* Ask again for what the broker has refused before. */
static void
bind_if_refused(const Subscription * subscription)
{
	RinqNamespace *ns =
		rinq_topology_find(rinq_bytes_str(subscription->durable->listener.namespace));

	if (ns->notifications == NOTIFICATIONS_UNBOUND)
		(void) rinq_topology_subscribe(ns, RINQ_NO_SLOT);
}

/* Make a session with the attributes of a subscription; NULL when there is no room for it. */
static RinqSession *
create_session(const RinqDurableSubscription *durable, RinqAttribute *attributes, int count)
{
	RinqSession *session = rinq_own_session_create(durable->listener.role);
	RinqBytes	frozen_key;

	if (session == NULL || count == 0 ||
		rinq_own_session_update(session->seq, 0, rinq_bytes_str(durable->listener.namespace), attributes, count,
								&frozen_key) == RINQ_OUTCOME_SUCCESS)
		return session;
	(void) rinq_own_session_destroy(session->seq, 0);
	return NULL;
}

/*
 * Make the session of a subscription, in the place of one that does not serve it
 * if need be; say why that could not be done, or return NULL.
 */
static const char *
make_session(Subscription * subscription)
{
	RinqDurableSubscription *durable = subscription->durable;
	RinqNamespace *ns = rinq_topology_namespace(rinq_bytes_str(durable->listener.namespace), rinq_max_namespaces);
	RinqSession *session;
	RinqAttribute *attributes;
	int			count;

	if (ns == NULL)
		return "\"rinq.max_namespaces\" namespaces are known already";
	if (!rinq_attributes_unpack(durable->attributes, &attributes, &count))
		return "its attributes cannot be read";
	session = create_session(durable, attributes, count);
	if (session == NULL && subscription_session(subscription) != NULL)
	{
		end_its_session(subscription);
		session = create_session(durable, attributes, count);
	}
	if (session == NULL)
		return "there is no room for its session within \"rinq.session_memory\"";
	rinq_notifications_subscribe_durably(session, ns, &durable->listener, subscription->subscriber);
	(void) rinq_topology_subscribe(ns, RINQ_NO_SLOT);
	end_its_session(subscription);
	subscription->session = session->seq;
	subscription->serial = session->serial;
	subscription->outdated = false;
	return NULL;
}

/*
 * Tell whether a subscription is to have a session: one whose handler cannot be run
 * is if what comes for it is kept.
 */
static bool
wants_session(const Subscription * subscription)
{
	const RinqDurableSubscription *durable = subscription->durable;

	if (durable->attributes.data == NULL)
		return false;
	return durable->listener.problem == NULL || rinq_subscriber_keeps(subscription->subscriber);
}

/* See to it that a subscription has its session, if that can be. */
static void
check_subscription(Subscription * subscription)
{
	const char *problem;

	if (!wants_session(subscription))
	{
		end_its_session(subscription);
		return;
	}
	if (is_subscription_served(subscription))
	{
		bind_if_refused(subscription);
		return;
	}
	problem = make_session(subscription);
	if (problem == NULL)
		return;
	end_its_session(subscription);
	ereport(LOG,
			(errmsg("rinq peer %s has no session for subscription \"%s\": %s",
					rinq_peer.id_text, subscription->durable->name, problem)));
	retry_at = rinq_peer.now + RETRY_INTERVAL;
}

/*
 * Make the sessions that are missing, as far as the slice goes.  Returns when to
 * go on, or to try again, or 0.
 */
int64
rinq_durable_step(void)
{
	MemoryContext context;
	MemoryContext old;

	/* without a connection there is nothing to try, however long that lasts */
	if (subscriptions == NIL || !rinq_peer.ready || rinq_peer.stopping)
		return 0;
	if (!look && num_checked == 0 && (retry_at == 0 || rinq_peer.now < retry_at))
		return retry_at;
	if (num_checked == 0)
	{
		/* what is noticed from now on may concern those that were looked at */
		retry_at = 0;
		look = false;
	}
	context = AllocSetContextCreate(TopMemoryContext, "rinq subscription", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	while (num_checked < list_length(subscriptions) && !rinq_slice_over())
		check_subscription(list_nth(subscriptions, num_checked++));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	if (num_checked < list_length(subscriptions))
		return rinq_peer.now;
	num_checked = 0;
	return look ? rinq_peer.now : retry_at;
}

static bool
is_heard(const Subscription * subscription)
{
	RinqNamespace *ns =
		rinq_topology_find(rinq_bytes_str(subscription->durable->listener.namespace));

	return subscription_session(subscription) != NULL && !subscription->outdated && ns != NULL &&
		ns->notifications == NOTIFICATIONS_BOUND;
}

/*
 * Return the name of a subscription, by its number from 0 on, that notifications
 * do not come to; of others, an empty one, and NULL when there are no more.
 */
const char *
rinq_durable_unready(int number)
{
	Subscription *subscription;

	if (number >= list_length(subscriptions))
		return NULL;
	subscription = list_nth(subscriptions, number);
	return is_heard(subscription) ? "" : subscription->durable->name;
}

/*
 * Append those that have a session which notifications come to: the name, with
 * its length, the number of the session, and its role.
 */
void
rinq_durable_list(StringInfo list)
{
	ListCell   *lc;

	foreach(lc, subscriptions)
	{
		Subscription *subscription = lfirst(lc);
		RinqFields	fields;

		if (!is_heard(subscription))
			continue;
		rinq_fields_init(&fields, RINQ_KIND_SUBSCRIBER);
		rinq_put_bytes(&fields, RINQ_SUBSCRIBER_NAME, rinq_bytes_str(subscription->durable->name));
		rinq_put_uint32(&fields, RINQ_SUBSCRIBER_SESSION, subscription->session);
		rinq_put_oid(&fields, RINQ_SUBSCRIBER_ROLE, subscription->durable->listener.role);
		rinq_fields_append(list, &fields);
	}
}
