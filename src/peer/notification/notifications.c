/*-------------------------------------------------------------------------
 *
 * notifications.c
 *	  Notifications: which sessions of this peer listen to which namespaces
 *	  (section 6 of the protocol).
 *
 * Those that arrive are matching.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "peer/notification/notifications.h"
#include "peer/notification/session_index.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "protocol/packed.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* subscriptions by session and namespace; a session may have very many */
typedef struct SubscriptionKey
{
	uint32		session;
	uint32		ns;				/* index of the namespace */
} SubscriptionKey;

typedef struct SubscriptionEntry
{
	SubscriptionKey key;		/* hash key */
	RinqSubscription *subscription;
} SubscriptionEntry;

static HTAB *subscriptions = NULL;

/* the one that the scan of a namespace comes to next, while there is a scan */
static RinqSubscription * scan_next = NULL;

static SubscriptionKey
subscription_key(const RinqSession * session, const RinqNamespace * ns)
{
	SubscriptionKey key;

	key.session = session->seq;
	key.ns = ns->index;
	return key;
}

static SubscriptionEntry *
search_subscription(const RinqSession * session, const RinqNamespace * ns, HASHACTION action)
{
	SubscriptionKey key = subscription_key(session, ns);

	if (subscriptions == NULL)
	{
		subscriptions = rinq_make_hash_table("rinq subscriptions of sessions", 256, sizeof(SubscriptionKey), sizeof(SubscriptionEntry), TopMemoryContext);
	}
	return hash_search(subscriptions, &key, action, NULL);
}

/*
 * Find a session's subscription to a namespace; NULL when it does not listen.
 */
RinqSubscription *
rinq_subscription_find(const RinqSession * session, const RinqNamespace * ns)
{
	SubscriptionEntry *entry = ns == NULL ? NULL : search_subscription(session, ns, HASH_FIND);

	return entry == NULL ? NULL : entry->subscription;
}

/*
 * Begin to walk over the subscriptions to a namespace.  They may come and go
 * meanwhile; there is one such walk at a time.
 */
void
rinq_subscription_scan_begin(RinqNamespace * ns)
{
	Assert(scan_next == NULL);
	scan_next = dlist_is_empty(&ns->subscriptions) ? NULL :
		dlist_container(RinqSubscription, of_namespace, dlist_head_node(&ns->subscriptions));
}

static RinqSubscription *
next_subscription(RinqSubscription * subscription)
{
	dlist_head *list = &subscription->ns->subscriptions;

	return !dlist_has_next(list, &subscription->of_namespace) ? NULL :
		dlist_container(RinqSubscription, of_namespace,
						dlist_next_node(list, &subscription->of_namespace));
}

RinqSubscription *
rinq_subscription_scan_next(void)
{
	RinqSubscription *subscription = scan_next;

	if (subscription != NULL)
		scan_next = next_subscription(subscription);
	return subscription;
}

void
rinq_subscription_scan_end(void)
{
	scan_next = NULL;
}

static void
free_subscription_handler(RinqSubscription * subscription)
{
	if (subscription->handler.handler != NULL)
		pfree(subscription->handler.handler);
	if (subscription->handler.channel != NULL)
		pfree(subscription->handler.channel);
	subscription->handler.handler = NULL;
	subscription->handler.channel = NULL;
}

/*
 * Have a session listen to a namespace: with a function that handles what
 * comes, a NOTIFY channel it goes on to, or none, and then it is buffered.
 * That takes the place of what was said before, if anything.  The peer has to
 * be bound to the namespace before anything comes (topology.c).
 */
void
rinq_notifications_subscribe(RinqSession * session, RinqNamespace * ns, RinqReceiveMode mode, RinqBytes name,
							 Oid role, Oid owner)
{
	RinqSubscription *subscription = rinq_subscription_find(session, ns);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (dlist_is_empty(&session->subscriptions))
		rinq_index_add(session);
	if (subscription == NULL)
	{
		subscription = palloc0(sizeof(RinqSubscription));
		subscription->session = session;
		subscription->ns = ns;
		Assert(ns->index < rinq_topology_count());
		dlist_push_tail(&session->subscriptions, &subscription->of_session);
		dlist_push_tail(&ns->subscriptions, &subscription->of_namespace);
		search_subscription(session, ns, HASH_ENTER)->subscription = subscription;
	}
	else
	{
		session->num_buffering -= subscription->mode == RINQ_RECEIVE_BUFFER;
		free_subscription_handler(subscription);
	}
	subscription->mode = mode;
	session->num_buffering += mode == RINQ_RECEIVE_BUFFER;
	if (mode == RINQ_RECEIVE_HANDLER)
		subscription->handler.handler = pnstrdup(name.data, name.len);
	else if (mode == RINQ_RECEIVE_CHANNEL)
		subscription->handler.channel = pnstrdup(name.data, name.len);
	subscription->handler.role = role;
	subscription->handler.owner = owner;
	subscription->subscriber = NULL;
	MemoryContextSwitchTo(old);
}

/*
 * Have a session listen for a durable subscription.
 */
void
rinq_notifications_subscribe_durably(RinqSession * session, RinqNamespace * ns,
									 const RinqListener *listener, RinqSubscriber * subscriber)
{
	rinq_notifications_subscribe(session, ns, RINQ_RECEIVE_HANDLER, rinq_bytes_str(listener->handler),
								 listener->role, listener->owner);
	rinq_subscription_find(session, ns)->subscriber = subscriber;
	session->subscriber = subscriber;
}

static void
end_subscription(RinqSubscription * subscription)
{
	RinqNamespace *ns = subscription->ns;

	if (scan_next == subscription)
		scan_next = next_subscription(subscription);
	if (search_subscription(subscription->session, ns, HASH_REMOVE) == NULL)
		Assert(false);			/* a subscription is in the table */
	subscription->session->num_buffering -= subscription->mode == RINQ_RECEIVE_BUFFER;
	Assert(subscription->session->num_buffering >= 0);
	dlist_delete(&subscription->of_session);
	if (dlist_is_empty(&subscription->session->subscriptions))
		rinq_index_remove(subscription->session);
	dlist_delete(&subscription->of_namespace);
	free_subscription_handler(subscription);
	pfree(subscription);
	if (dlist_is_empty(&ns->subscriptions))
		rinq_topology_unsubscribe(ns);
}

/*
 * End a session's listening to a namespace; false when it did not.
 */
bool
rinq_notifications_unsubscribe(RinqSession * session, RinqNamespace * ns)
{
	RinqSubscription *subscription = rinq_subscription_find(session, ns);

	if (subscription == NULL)
		return false;
	end_subscription(subscription);
	return true;
}

/*
 * End all listening of a session, because the session ends.
 */
void
rinq_notifications_unsubscribe_all(RinqSession * session)
{
	while (!dlist_is_empty(&session->subscriptions))
		end_subscription(dlist_container(RinqSubscription, of_session,
										 dlist_head_node(&session->subscriptions)));
}

/*
 * Tell whether a session listens to a namespace whose notifications are
 * buffered.
 */
bool
rinq_buffers_notifications(const RinqSession * session)
{
	return session->num_buffering > 0;
}

/*
 * Append the namespaces that a session listens to.
 */
void
rinq_subscriptions_list(const RinqSession * session, StringInfo list)
{
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &session->subscriptions)
	{
		RinqFields	fields;

		rinq_fields_init(&fields, RINQ_KIND_NAMESPACE);
		rinq_put_bytes(&fields, RINQ_NAMESPACE_NAME,
					   rinq_bytes_str(dlist_container(RinqSubscription, of_session, iter.cur)->ns->name));
		rinq_fields_append(list, &fields);
	}
}
