/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  What has arrived and waits for executors: requests, responses and
 *	  notifications on their way there, and the results on their way back.
 *
 * What waits is in a lane (lanes.c) until its turn comes, and then in a slot,
 * in the dispatch queue that executors take their work from.  Notifications to
 * a session wait for one another (order.c); one of them is in a lane or a slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/dispatch.h"
#include "peer/command/due.h"
#include "peer/command/lanes.h"
#include "peer/command/order.h"
#include "peer/command/refuse.h"
#include "peer/command/repeat.h"
#include "peer/command/request_slots.h"
#include "peer/command/respond.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 10		/* ms between looks for room */

/* more than the largest prefetch, and all that may wait beside */
#define MAX_IN_LANE 20000

/* there was no slot, or no payload memory, for the one whose turn it was */
static bool no_room = false;

/* slots whose response the connection has no room for yet, oldest first */
static List *unsent = NIL;

/* no request that was not started expires before; 0 when there is none */
static int64 next_expiry = 0;

static void
note_expiry(const RinqInbound * request)
{
	next_expiry = rinq_clock_earlier(next_expiry, request->deadline);
}

/*
 * Put a request into a slot and into the dispatch queue; false when
 * there is no room now.
 */
static bool
enqueue_inbound(RinqInbound * request, const RinqListener *listener)
{
	uint32		index = rinq_find_free_slot();
	RinqSlot   *slot;
	RinqFields	fields;

	if (index == RINQ_NO_SLOT)
		return false;
	slot = &rinq_peer.slots->slot[index];
	Assert(rinq_in_slot[index] == NULL && slot->length == 0 && !DsaPointerIsValid(slot->large));
	fields = request->fields;
	if (listener->handler != NULL)
		rinq_put_bytes(&fields, rinq_common_fields_of(&fields)->handler,
					   rinq_bytes_str(listener->handler));
	if (listener->channel != NULL)
		rinq_put_bytes(&fields, RINQ_NOTIFICATION_CHANNEL, rinq_bytes_str(listener->channel));
	if (request->work == RINQ_WORK_REQUEST && listener->order_by.len > 0)
		rinq_put_bytes(&fields, RINQ_REQUEST_ORDER_BY, listener->order_by);
	if (listener->problem != NULL)
		rinq_put_bytes(&fields, rinq_common_fields_of(&fields)->refusal, rinq_bytes_str(listener->problem));
	rinq_put_bytes(&fields, request->body_field, request->body);
	if (!rinq_slot_write(slot, &fields))
		return false;

	rinq_inbound_started(request, (request->work != RINQ_WORK_REQUEST && request->ended == NULL) || request->from_inbox ||
						 (listener->retry.calls && request->reply != RINQ_REPLY_NONE));
	slot->serial++;
	slot->work = request->work;
	slot->handler_owner = listener->owner;
	slot->owner = RINQ_NO_PROC;
	slot->role = rinq_refuse_role(listener);
	slot->from_inbox = request->from_inbox;
	slot->give_up = request->give_up;
	slot->retry = listener->retry;
	slot->due = 0;
	slot->wants_response = request->reply != RINQ_REPLY_NONE;
	slot->redelivered = request->work == RINQ_WORK_NOTIFICATION ? request->deaths > 0 && rinq_inbound_is_kept(request) :
		request->redelivered && (request->work == RINQ_WORK_REQUEST || request->ended != NULL);
	slot->deduplicate = listener->deduplicate;
	slot->timeout = listener->timeout;
	pg_atomic_write_u64(&slot->limit, 0);
	slot->deadline = request->deadline;
	slot->queued_at = rinq_peer.now;
	slot->outcome = RINQ_OUTCOME_NONE;
	rinq_use_slot(index, request);
	rinq_peer_wake_later(rinq_request_put(rinq_peer.db, index));
	return true;
}

/* Find the session that a notification is for; NULL when that has ended. */
static RinqSession *
inbound_session(const RinqInbound * request)
{
	RinqSession *session = rinq_own_session_find(request->session);

	/* after a reconnect, another one may have its number */
	return session != NULL && session->serial == request->session_serial ? session : NULL;
}

/*
 * Find the namespace of a request; NULL when it is not listened to any more.
 */
static RinqNamespace *
served_namespace(const RinqInbound * request)
{
	RinqNamespace *ns = rinq_topology_find(rinq_get_bytes(&request->fields, RINQ_REQUEST_NAMESPACE));

	return ns != NULL && ns->listener != NULL ? ns : NULL;
}

/*
 * Tell whether there is nothing left to handle a notification for.  The session
 * that it came for does not matter when its subscription keeps it.
 */
static bool
is_notification_over(const RinqInbound * request)
{
	if (request->subscriber != NULL && request->subscriber->listener == NULL)
		return true;
	return !rinq_inbound_is_kept(request) && inbound_session(request) == NULL;
}

/*
 * Tell whether there is nothing left to run something for: its handler or
 * session is gone, or its time is over.
 */
static bool
is_over(const RinqInbound * request)
{
	const		RinqNamespace *ns;

	if (request->work == RINQ_WORK_NOTIFICATION)
		return is_notification_over(request);
	if (request->work == RINQ_WORK_RESPONSE)
		return false;
	ns = served_namespace(request);
	return ns == NULL || rinq_inbound_expired(request) || !rinq_inbound_can_settle(request) ||
		(ns->listener->problem != NULL && request->reply != RINQ_REPLY_NONE);
}

/* end what is over, in the way that its sender can make the most of */
static void
end_over(RinqInbound * request)
{
	RinqNamespace *ns = request->work == RINQ_WORK_REQUEST ? served_namespace(request) : NULL;

	if (!rinq_inbound_can_settle(request))
		rinq_inbound_free(request);
	else if (ns == NULL || ns->listener->problem == NULL || rinq_inbound_expired(request))
		rinq_inbound_settle(request);
	else
	{
		rinq_refuse_note(ns);
		rinq_refuse_request(request);
	}
}

/* Return what says how a request, response or notification is handled. */
static const RinqListener *
listener_of(const RinqInbound * request)
{
	if (request->work == RINQ_WORK_REQUEST)
		return served_namespace(request)->listener;
	return request->subscriber != NULL ? request->subscriber->listener : &request->own;
}

/*
 * Have it wait for its turn, or for others that are handled before it.
 */
static void
defer_inbound(RinqInbound * request)
{
	RinqNamespace *ns = request->work == RINQ_WORK_REQUEST ? served_namespace(request) : NULL;

	Assert(ns != NULL || request->work != RINQ_WORK_REQUEST);
	if (rinq_order_waits(request, ns))
		return;
	if (rinq_lanes_add(request, rinq_refuse_role(listener_of(request)), ns) > MAX_IN_LANE)
		rinq_peer_fail("the broker sends more requests than it was asked to");
}

/* Log that a request or notification is refused by its executor, if it is. */
static void
note_problem(const RinqInbound * request)
{
	if (listener_of(request)->problem == NULL)
		return;
	if (request->work == RINQ_WORK_REQUEST)
		rinq_refuse_note(served_namespace(request));
	else
		rinq_refuse_note_subscriber(request->subscriber);
}

/* Have those wait in lanes that others before them were handled for. */
static void
defer_next_ones(void)
{
	RinqInbound *request;

	while ((request = rinq_order_next()) != NULL)
	{
		if (is_over(request))
			end_over(request);
		else
			defer_inbound(request);
	}
}

/*
 * Fill slots with those whose turn it is.
 */
static void
fill_slots(void)
{
	RinqInbound *request;

	no_room = false;
	defer_next_ones();
	while ((request = rinq_lanes_take()) != NULL)
	{
		if (is_over(request))
		{
			rinq_lanes_dropped(request->lane);
			request->lane = NULL;
			end_over(request);
			defer_next_ones();
		}
		else if (enqueue_inbound(request, listener_of(request)))
		{
			rinq_lanes_started(request);
			note_problem(request);
		}
		else
		{
			rinq_lanes_put_back(request);
			no_room = true;
			return;
		}
	}
}

/*
 * Take a session's notifications out of the dispatch queue that are over, and
 * that no executor has: one of its own, and one of its subscription.
 */
static void
leave_dispatch_queue(const RinqSession * session)
{
	uint32		i;

	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		const		RinqInbound *request = rinq_in_slot[i];

		if (request == NULL || request->work != RINQ_WORK_NOTIFICATION ||
			request->session_serial != session->serial || rinq_inbound_is_kept(request))
			continue;
		if (rinq_request_remove(rinq_peer.db, i))
			rinq_inbound_settle(rinq_leave_slot(i));
	}
}

/* Settle all that is in a list. */
static void
settle_all(dlist_head *list)
{
	while (!dlist_is_empty(list))
		rinq_inbound_settle(dlist_container(RinqInbound, node, dlist_pop_head_node(list)));
}

/* Tell whether a notification is lost with the session that it came for. */
static bool
ends_with_session(const RinqInbound * request, void *arg)
{
	const		RinqSession *session = arg;

	return request->session_serial == session->serial && !rinq_inbound_is_kept(request);
}

/*
 * Drop the notifications that wait for a session that ends, unless its
 * subscription keeps them.
 */
void
rinq_dispatch_session_ends(RinqSession * session)
{
	dlist_head	dropped = DLIST_STATIC_INIT(dropped);

	if (!rinq_order_extract_session(session, ends_with_session, session, &dropped))
		return;
	leave_dispatch_queue(session);
	settle_all(&dropped);
}

/*
 * Have another one handled that is due in the inbox, for the namespace or
 * subscription of one that an executor has just taken there.
 */
void
rinq_dispatch_more_due(uint32 index, uint32 serial)
{
	if (index < rinq_first_request_slot() || index >= rinq_peer.slots->num_slots || rinq_in_slot[index] == NULL ||
		rinq_peer.slots->slot[index].serial != serial)
		return;
	Assert(rinq_in_slot[index]->from_inbox);
	rinq_inbound_due_at(rinq_in_slot[index], rinq_peer.now);
}

/*
 * Have something run again, if its executor has ended in the middle, or says so;
 * false when it is over, or its owner sees to that.
 */
static bool
run_again(const RinqSlot *slot, RinqInbound * request)
{
	if (rinq_peer.stopping || request->ended != NULL || request->from_inbox)
		return false;
	if (request->work != RINQ_WORK_REQUEST)
		return slot->outcome == RINQ_OUTCOME_GIVEN_BACK && rinq_repeat_unfinished(request);
	if (slot->outcome != RINQ_OUTCOME_AGAIN)
		return false;
	rinq_repeat_call(request, slot->due);
	return true;
}

/* Have wait for their turn again what is to be run again now; return when the next one is. */
static int64
start_repeated(void)
{
	RinqInbound *request;
	int64		next;

	while ((request = rinq_repeat_take(&next)) != NULL)
	{
		if (is_over(request))
			end_over(request);
		else
			defer_inbound(request);
	}
	return next;
}

/* End a response or notification that an executor has finished with. */
static void
end_one_way(const RinqSlot *slot, RinqInbound * request)
{
	if (request->from_inbox && slot->outcome == RINQ_OUTCOME_GIVEN_BACK)
	{
		rinq_inbound_give_back(request);
		return;
	}
	if (request->work == RINQ_WORK_NOTIFICATION && slot->outcome != RINQ_OUTCOME_SUCCESS)
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_FAILED);
	if (request->ended != NULL)
		request->settle_at = slot->due;
	rinq_inbound_free(request);
}

/* Have done with what an executor has finished; false when its response waits for room. */
static bool
finish_slot(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqInbound *request = rinq_in_slot[index];
	RinqLane   *lane = request->lane;

	if (run_again(slot, request))
		request->lane = NULL;
	else
	{
		rinq_order_leave(request);
		rinq_inbound_due_at(request, slot->due);
		if (request->work != RINQ_WORK_REQUEST)
			end_one_way(slot, request);
		else if (!rinq_inbound_result(slot, request))
			return false;
	}
	rinq_empty_slot(index, lane);
	return true;
}

/*
 * Take the result of a request that an executor has finished with.  That may be
 * told again, when the inbox had no room for all: one whose response waits for
 * room in the connection is in the list already.
 */
void
rinq_dispatch_result(uint32 index, uint32 serial)
{
	RinqSlot   *slot;

	if (index < rinq_first_request_slot() || index >= rinq_peer.slots->num_slots)
		return;
	slot = &rinq_peer.slots->slot[index];
	if (rinq_in_slot[index] == NULL || slot->serial != serial ||
		rinq_slot_state(slot) != RINQ_SLOT_DONE || list_member_int(unsent, (int) index))
		return;
	if (finish_slot(index))
		fill_slots();
	else
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		unsent = lappend_int(unsent, (int) index);
		MemoryContextSwitchTo(old);
	}
}

static void
send_unsent(void)
{
	while (unsent != NIL && finish_slot((uint32) linitial_int(unsent)))
		unsent = list_delete_first(unsent);
}

/* Tell whether it is handled as the listeners and subscriptions say when its turn comes. */
static bool
follows_listeners(const RinqInbound * request, void *arg)
{
	return request->work == RINQ_WORK_REQUEST || rinq_inbound_is_kept(request);
}

/*
 * End what was taken back from a slot, or have it wait again: a request may be
 * for another peer now.
 */
static void
leave_unstarted(RinqInbound * request, dlist_head *again)
{
	if (is_over(request))
		end_over(request);
	else if (request->work == RINQ_WORK_REQUEST)
		rinq_inbound_settle(request);
	else
	{
		rinq_inbound_waits(request, request->body.len);
		dlist_push_tail(again, &request->node);
	}
}

/*
 * Look at all that waits after the listeners have changed: it may be possible
 * now, or impossible, or for another role.
 */
void
rinq_dispatch_configured(void)
{
	dlist_head	requests = DLIST_STATIC_INIT(requests);
	uint32		i;

	/* take back what waits for an executor that cannot be had */
	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqInbound *request = rinq_in_slot[i];

		if (request == NULL || !follows_listeners(request, NULL))
			continue;
		if (!is_over(request) && rinq_refuse_role(listener_of(request)) == rinq_peer.slots->slot[i].role)
			continue;
		if (rinq_request_remove(rinq_peer.db, i))
			leave_unstarted(rinq_leave_slot(i), &requests);
	}
	rinq_lanes_extract(follows_listeners, NULL, &requests);
	while (!dlist_is_empty(&requests))
	{
		RinqInbound *request = dlist_container(RinqInbound, node,
											   dlist_pop_head_node(&requests));

		if (is_over(request))
			end_over(request);
		else
			defer_inbound(request);
	}
	fill_slots();
}

/* Tell whether it is work for a role that no caller waits for, and that is not kept. */
static bool
is_unattended(const RinqInbound * request, void *arg)
{
	return request->work != RINQ_WORK_REQUEST && request->own.role == *(Oid *) arg &&
		!rinq_inbound_is_kept(request);
}

/*
 * Drop the responses and notifications for a role as which nothing can be run,
 * for whatever reason.  Requests wait until their deadlines, or until the
 * reader has found out, as do notifications that are kept; but other responses and
 * notifications would wait for ever, and keep their slots from others.
 */
void
rinq_dispatch_role_failed(Oid role)
{
	dlist_head	failed = DLIST_STATIC_INIT(failed);
	dlist_iter	iter;
	int			dropped = 0;
	uint32		i;

	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqInbound *request = rinq_in_slot[i];

		if (request == NULL || !is_unattended(request, &role) ||
			!rinq_request_remove(rinq_peer.db, i))
			continue;
		request = rinq_leave_slot(i);
		dlist_push_tail(&failed, &request->node);
	}
	rinq_lanes_extract(is_unattended, &role, &failed);
	rinq_order_extract(is_unattended, &role, &failed);
	dlist_foreach(iter, &failed)
	{
		/* the outcome of a durable call stays in its row */
		dropped += dlist_container(RinqInbound, node, iter.cur)->ended == NULL;
	}
	settle_all(&failed);
	if (dropped > 0)
		ereport(LOG,
				(errmsg("rinq peer %s dropped responses or notifications whose handlers cannot be run",
						rinq_peer.id_text),
				 errdetail_internal("No executor can be started for the role with OID %u.", role)));
	fill_slots();
}

/*
 * Tell whether a request is to be dropped.  Of those that are not, the first
 * expiry is noted.
 */
static bool
is_to_drop(const RinqInbound * request, void *arg)
{
	bool		only_expired = *(bool *) arg;

	if (!only_expired || rinq_inbound_expired(request) || !rinq_inbound_can_settle(request))
		return true;
	note_expiry(request);
	return false;
}

/*
 * Take requests that were not started out of the dispatch queue and the lanes:
 * all, or those that are too late or not ours any more.
 */
static void
drop_queued(bool only_expired)
{
	dlist_head	dropped = DLIST_STATIC_INIT(dropped);
	uint32		i;

	next_expiry = 0;
	rinq_lanes_extract(is_to_drop, &only_expired, &dropped);
	rinq_repeat_extract(is_to_drop, &only_expired, &dropped);
	rinq_order_extract(is_to_drop, &only_expired, &dropped);
	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqInbound *request = rinq_in_slot[i];

		if (request == NULL || !is_to_drop(request, &only_expired) ||
			!rinq_request_remove(rinq_peer.db, i))
			continue;
		request = rinq_leave_slot(i);
		dlist_push_tail(&dropped, &request->node);
	}
	settle_all(&dropped);
}

/*
 * Do what has its time: end requests whose deadline passed before an executor
 * took them, and serve what waits for room.  Returns when to look again, or 0.
 */
int64
rinq_dispatch_expire(void)
{
	int64		next;
	int64		next_return;
	bool		waits;

	if (next_expiry != 0 && rinq_peer.now >= next_expiry)
		drop_queued(true);
	next_return = rinq_inbound_settle_delayed(false);
	if (unsent != NIL)
		send_unsent();
	waits = rinq_refuse_step() | rinq_inbound_send_responses();
	next = rinq_clock_earlier(next_expiry, rinq_clock_earlier(next_return, start_repeated()));
	fill_slots();
	if (waits || no_room || unsent != NIL)
		next = rinq_clock_earlier(next, rinq_peer.now + RETRY_INTERVAL);
	return next;
}

/*
 * Give back everything that was not started, for an orderly stop.
 */
void
rinq_dispatch_give_back_queued(void)
{
	(void) rinq_inbound_settle_delayed(true);
	drop_queued(false);
}

/*
 * Drop what does not run yet and came through a channel that was closed: the
 * broker has taken back all that was not acknowledged, and gives it to another
 * peer, or again.  What runs goes on, for its effects.
 */
void
rinq_dispatch_channel_lost(uint16 channel)
{
	rinq_inbound_channel_lost(channel);
	drop_queued(true);
}

/*
 * Do the same as rinq_dispatch_channel_lost for all channels.
 */
void
rinq_dispatch_connection_lost(void)
{
	int			i;

	for (i = 0; i <= RINQ_CONN_MAX_CHANNEL; i++)
		rinq_inbound_channel_lost((uint16) i);
	(void) rinq_inbound_settle_delayed(true);
	drop_queued(true);
}

/*
 * Have something that has arrived handled, in its turn.
 */
void
rinq_dispatch_add(RinqInbound * request)
{
	if (is_over(request))
	{
		end_over(request);
		return;
	}
	note_expiry(request);
	defer_inbound(request);
	fill_slots();
}
