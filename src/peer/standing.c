/*-------------------------------------------------------------------------
 *
 * standing.c
 *	  Subscriptions that outlive connections: for each, a session is made at
 *	  every connect, has its attributes set, and listens.
 *
 * A session that is destroyed, or made to listen in another way, by whomever,
 * is made again.  What the reader
 * found says which subscriptions there are; how notifications get to their
 * handlers is notifications.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/peer.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 5000		/* ms, when a session cannot be made */

typedef struct Subscription
{
	RinqStanding *standing;
	uint32		session;		/* number and serial of its session; 0 is none */
	uint64		serial;
} Subscription;

static List *subscriptions = NIL;
static int64 retry_at = 0;

/* may a session be missing, or not listen as it should? */
static bool look = false;

static RinqSession *
session_of(const Subscription *subscription)
{
	RinqSession *session = rinq_own_session_find(subscription->session);

	return session != NULL && session->serial == subscription->serial ? session : NULL;
}

static void
free_standing(RinqStanding *standing)
{
	pfree(standing->name);
	pfree(standing->listener.namespace);
	pfree(standing->listener.handler);
	if (standing->listener.problem != NULL)
		pfree(standing->listener.problem);
	pfree((char *) standing->attributes.data);
	pfree(standing);
}

static bool
same_text(const char *a, const char *b)
{
	return rinq_bytes_equal(rinq_bytes_str(a), rinq_bytes_str(b));
}

static bool
same(const RinqStanding *a, const RinqStanding *b)
{
	return strcmp(a->name, b->name) == 0 &&
		same_text(a->listener.namespace, b->listener.namespace) &&
		same_text(a->listener.handler, b->listener.handler) &&
		same_text(a->listener.problem, b->listener.problem) &&
		a->listener.role == b->listener.role && a->listener.owner == b->listener.owner &&
		rinq_bytes_equal(a->attributes, b->attributes);
}

static Subscription *
take_same(List **old, const RinqStanding *standing)
{
	ListCell   *lc;

	foreach(lc, *old)
	{
		Subscription *subscription = lfirst(lc);

		if (!same(subscription->standing, standing))
			continue;
		*old = foreach_delete_current(*old, lc);
		return subscription;
	}
	return NULL;
}

/*
 * Takes a new list of subscriptions, whose memory it keeps.  Those that are as
 * before keep their sessions.
 */
void
rinq_standing_configure(List *standings)
{
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
	List	   *old = subscriptions;
	ListCell   *lc;

	subscriptions = NIL;
	foreach(lc, standings)
	{
		RinqStanding *standing = lfirst(lc);
		Subscription *subscription = take_same(&old, standing);

		if (subscription != NULL)
			free_standing(standing);
		else
		{
			subscription = palloc0(sizeof(Subscription));
			subscription->standing = standing;
			if (standing->listener.problem != NULL)
				ereport(LOG,
						(errmsg("rinq cannot run the handler of subscription \"%s\": %s",
								standing->name, standing->listener.problem)));
		}
		subscriptions = lappend(subscriptions, subscription);
	}
	foreach(lc, old)
	{
		Subscription *subscription = lfirst(lc);
		RinqSession *session = session_of(subscription);

		if (session != NULL)
			(void) rinq_own_session_destroy(session->seq, session->revision);
		free_standing(subscription->standing);
		pfree(subscription);
	}
	list_free(old);
	list_free(standings);
	MemoryContextSwitchTo(context);
	look = true;
}

/*
 * A session ends, or listens in another way; or, with NULL, all have ended.  If
 * that concerns subscriptions, their sessions are looked at in the next step.
 */
void
rinq_standing_look(const RinqSession *session)
{
	if (session == NULL || session->standing)
		look = true;
}

/*
 * The broker has refused notifications of a namespace: that is tried again,
 * after a while.
 */
void
rinq_standing_retry(void)
{
	if (retry_at == 0)
		retry_at = rinq_peer.now + RETRY_INTERVAL;
}

/* does a subscription have a session that listens for it? */
static bool
is_served(const Subscription *subscription)
{
	const RinqListener *wanted = &subscription->standing->listener;
	RinqSession *session = session_of(subscription);
	const RinqListener *handler;

	if (session == NULL)
		return false;
	handler = rinq_notifications_handler(session,
										 rinq_topology_find(rinq_bytes_str(wanted->namespace)));
	if (handler != NULL && strcmp(handler->handler, wanted->handler) == 0 &&
		handler->role == wanted->role)
		return true;
	(void) rinq_own_session_destroy(session->seq, session->revision);
	return false;
}

/* what the broker has refused before is asked for again */
static void
bind_if_refused(const Subscription *subscription)
{
	RinqNamespace *ns =
		rinq_topology_find(rinq_bytes_str(subscription->standing->listener.namespace));

	if (ns->notifications == NOTIFICATIONS_UNBOUND)
		(void) rinq_topology_subscribe(ns, RINQ_NO_SLOT);
}

/* why a session was not made, or NULL */
static const char *
make_session(Subscription *subscription)
{
	RinqStanding *standing = subscription->standing;
	RinqBytes	namespace = rinq_bytes_str(standing->listener.namespace);
	RinqNamespace *ns = rinq_topology_namespace(namespace, rinq_max_namespaces);
	RinqSession *session;
	RinqAttribute *attributes;
	RinqBytes	frozen_key;
	int			count;

	if (ns == NULL)
		return "\"rinq.max_namespaces\" namespaces are known already";
	if (!rinq_attributes_unpack(standing->attributes, &attributes, &count))
		return "its attributes cannot be read";
	session = rinq_own_session_create(standing->listener.role);
	if (session == NULL ||
		(count > 0 && rinq_own_session_update(session->seq, 0, namespace, attributes, count,
											  &frozen_key) != RINQ_OUTCOME_SUCCESS))
	{
		if (session != NULL)
			(void) rinq_own_session_destroy(session->seq, 0);
		return "there is no room for its session within \"rinq.session_memory\"";
	}
	subscription->session = session->seq;
	subscription->serial = session->serial;
	session->standing = true;
	rinq_notifications_subscribe(session, ns, RINQ_RECEIVE_HANDLER,
								 rinq_bytes_str(standing->listener.handler),
								 standing->listener.role, standing->listener.owner);
	(void) rinq_topology_subscribe(ns, RINQ_NO_SLOT);
	return NULL;
}

/*
 * Makes the sessions that are missing.  Returns when to try again, or 0.
 */
int64
rinq_standing_step(void)
{
	MemoryContext context;
	MemoryContext old;
	ListCell   *lc;

	/* without a connection there is nothing to try, however long that lasts */
	if (subscriptions == NIL || !rinq_peer.ready || rinq_peer.stopping)
		return 0;
	if (!look && (retry_at == 0 || rinq_peer.now < retry_at))
		return retry_at;
	retry_at = 0;
	context = AllocSetContextCreate(TopMemoryContext, "rinq subscription", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	foreach(lc, subscriptions)
	{
		Subscription *subscription = lfirst(lc);
		const char *problem;

		if (subscription->standing->listener.problem != NULL)
			continue;
		if (is_served(subscription))
		{
			bind_if_refused(subscription);
			continue;
		}
		problem = make_session(subscription);
		if (problem == NULL)
			continue;
		ereport(LOG,
				(errmsg("rinq peer %s has no session for subscription \"%s\": %s",
						rinq_peer.id_text, subscription->standing->name, problem)));
		retry_at = rinq_peer.now + RETRY_INTERVAL;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	look = false;
	return retry_at;
}

/*
 * Appends those that have a session which notifications come to: the name, with
 * its length, the number of the session, and its role.
 */
void
rinq_standing_list(StringInfo list)
{
	ListCell   *lc;

	foreach(lc, subscriptions)
	{
		Subscription *subscription = lfirst(lc);
		uint32		len = (uint32) strlen(subscription->standing->name);
		RinqNamespace *ns =
			rinq_topology_find(rinq_bytes_str(subscription->standing->listener.namespace));

		if (session_of(subscription) == NULL || ns == NULL ||
			ns->notifications != NOTIFICATIONS_BOUND)
			continue;
		appendBinaryStringInfo(list, (const char *) &len, sizeof(len));
		appendBinaryStringInfo(list, subscription->standing->name, (int) len);
		appendBinaryStringInfo(list, (const char *) &subscription->session, sizeof(uint32));
		appendBinaryStringInfo(list, (const char *) &subscription->standing->listener.role,
							   sizeof(Oid));
	}
}
