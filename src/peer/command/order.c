/*-------------------------------------------------------------------------
 *
 * order.c
 *	  Requests that are handled one at a time for each value of their payload, and
 *	  notifications, which are for each session or durable subscription.
 *
 * Of all requests of a namespace with the same value, one is on its way through
 * lanes and slots, and the others wait here, in the order in which they came.  A
 * request has its turn until its handler has ended, or it is dropped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "peer/command/order.h"
#include "protocol/order_key.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

typedef struct OrderKey
{
	uint64		value;
	uint64		namespace;		/* its index, or one of these */
} OrderKey;

#define OF_SESSIONS PG_UINT64_MAX	/* the value is a session's serial */
#define OF_SUBSCRIBERS (PG_UINT64_MAX - 1)	/* the value is a subscriber's
											 * number */

struct RinqTurn
{
	OrderKey	key;			/* hash key */
	dlist_head	waiting;		/* oldest first; one more has the turn */
};

static HTAB *turns = NULL;

/* requests whose turn has come */
static dlist_head next_ones = DLIST_STATIC_INIT(next_ones);

/* Return the key of notifications to a session, or for a subscription. */
static OrderKey
notification_key(uint64 session_serial, const RinqSubscriber * subscriber)
{
	OrderKey	key;

	key.value = subscriber != NULL ? subscriber->number : session_serial;
	key.namespace = subscriber != NULL ? OF_SUBSCRIBERS : OF_SESSIONS;
	return key;
}

/* Find the key of what is handled in order; false when it has none. */
static bool
find_order_key(const RinqInbound * request, const RinqNamespace * ns, OrderKey *key)
{
	if (request->work == RINQ_WORK_NOTIFICATION)
	{
		*key = notification_key(request->session_serial, request->subscriber);
		return true;
	}
	if (ns == NULL || request->from_inbox || ns->listener->order_by.len == 0)
		return false;
	key->value = rinq_order_key(request->body, ns->listener->order_by);
	key->namespace = ns->index;
	return key->value != 0;
}

/*
 * Give a request its turn, or have it wait for it; false when it need not wait.
 * That holds for those that have no value, too.  "ns" is the namespace of a
 * request, NULL for other work.
 */
bool
rinq_order_waits(RinqInbound * request, const RinqNamespace * ns)
{
	OrderKey	key;
	RinqTurn   *turn;
	bool		found;

	if (request->turn != NULL || !find_order_key(request, ns, &key))
		return false;
	rinq_inbound_leaves = rinq_order_leave;
	if (turns == NULL)
		turns = rinq_make_hash_table("rinq values in order", 64, sizeof(OrderKey), sizeof(RinqTurn), TopMemoryContext);
	turn = hash_search(turns, &key, HASH_ENTER, &found);
	request->turn = turn;
	if (!found)
	{
		dlist_init(&turn->waiting);
		return false;
	}
	dlist_push_tail(&turn->waiting, &request->node);
	request->waits_for_turn = true;
	return true;
}

/*
 * End the turn of a request that has one; the next one has it from now on.
 */
void
rinq_order_leave(RinqInbound * request)
{
	RinqTurn   *turn = request->turn;
	RinqInbound *next;

	request->turn = NULL;
	if (turn == NULL || request->waits_for_turn)
		return;
	if (dlist_is_empty(&turn->waiting))
	{
		hash_search(turns, &turn->key, HASH_REMOVE, NULL);
		return;
	}
	next = dlist_container(RinqInbound, node, dlist_pop_head_node(&turn->waiting));
	next->waits_for_turn = false;
	dlist_push_tail(&next_ones, &next->node);
}

/*
 * Return a request whose turn has come; NULL when there is none.
 */
RinqInbound *
rinq_order_next(void)
{
	if (dlist_is_empty(&next_ones))
		return NULL;
	return dlist_container(RinqInbound, node, dlist_pop_head_node(&next_ones));
}

static void
extract_wanted(dlist_head *list, bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
			   dlist_head *into)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (!wanted(request, arg))
			continue;
		dlist_delete(&request->node);
		if (request->waits_for_turn)
			request->turn = NULL;
		request->waits_for_turn = false;
		dlist_push_tail(into, &request->node);
	}
}

/*
 * Take all that a filter wants of those that wait for the turn of a session's
 * notifications, some of which may be for the subscription that it was made for;
 * false when none has a turn.
 */
bool
rinq_order_extract_session(const RinqSession * session, bool (*wanted) (const RinqInbound * request, void *arg),
						   void *arg, dlist_head *into)
{
	const		RinqSubscriber *const owners[] = {NULL, session->subscriber};
	bool		found = false;
	int			i;

	for (i = 0; turns != NULL && i < (int) lengthof(owners); i++)
	{
		OrderKey	key = notification_key(session->serial, owners[i]);
		RinqTurn   *turn = hash_search(turns, &key, HASH_FIND, NULL);

		if (turn == NULL)
			continue;
		extract_wanted(&turn->waiting, wanted, arg, into);
		found = true;
	}
	return found;
}

/*
 * Take all that a filter wants of those that wait.
 */
void
rinq_order_extract(bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
				   dlist_head *into)
{
	HASH_SEQ_STATUS seq;
	RinqTurn   *turn;

	extract_wanted(&next_ones, wanted, arg, into);
	if (turns == NULL)
		return;
	hash_seq_init(&seq, turns);
	while ((turn = hash_seq_search(&seq)) != NULL)
		extract_wanted(&turn->waiting, wanted, arg, into);
}
