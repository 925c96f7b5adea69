/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  What has arrived and waits for executors: requests, responses and
 *	  notifications on their way there, and the results on their way back.
 *
 * What waits is in a lane (lanes.c) until its turn comes, and then in a slot,
 * in the dispatch queue that executors take their work from.  Notifications to
 * a session wait for one another in a list of the session; one of them is in a
 * lane or a slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/dispatch.h"
#include "peer/command/lanes.h"
#include "peer/command/respond.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 10		/* ms between looks for room */
#define PROBLEM_INTERVAL 5000	/* ms between looks at a listener with a
								 * problem */

/* more than the largest prefetch, and all that may wait beside */
#define MAX_IN_LANE 20000

/* what is in each slot of the channel, NULL for nothing */
static RinqInbound * *in_slot;
static int	num_in_slots;

/* there was no slot, or no payload memory, for the one whose turn it was */
static bool no_room = false;

/* requests to handlers that cannot be run, which the connection had no room to say */
static dlist_head refused = DLIST_STATIC_INIT(refused);

/* slots whose response the connection has no room for yet, oldest first */
static List *unsent = NIL;

/* no request that was not started expires before; 0 when there is none */
static int64 next_expiry = 0;

static uint32
first_slot(void)
{
	return rinq_peer.slots->num_calls;
}

void
rinq_dispatch_init(void)
{
	Assert(RINQ_IN_PEER() && in_slot == NULL);
	in_slot = MemoryContextAllocZero(TopMemoryContext,
									 rinq_peer.slots->num_slots * sizeof(RinqInbound *));
	rinq_lanes_init(rinq_peer.slots->num_slots - first_slot());
}

static void
note_expiry(const RinqInbound * request)
{
	next_expiry = rinq_clock_earlier(next_expiry, request->deadline);
}

static uint32
find_free_slot(void)
{
	static uint32 hint = 0;
	uint32		count = rinq_peer.slots->num_slots - first_slot();
	uint32		i;

	for (i = 0; i < count; i++)
	{
		uint32		index = first_slot() + (hint + i) % count;
		RinqSlot   *slot = &rinq_peer.slots->slot[index];

		if (in_slot[index] == NULL &&
			rinq_slot_state(slot) == RINQ_SLOT_FREE)
		{
			hint = index - first_slot() + 1;
			return index;
		}
	}
	return RINQ_NO_SLOT;
}

/* take the request out of its slot; the caller has to end it */
static RinqInbound *
leave_slot(uint32 index)
{
	RinqInbound *request = in_slot[index];

	Assert(request != NULL && num_in_slots > 0);
	in_slot[index] = NULL;
	num_in_slots--;
	rinq_lanes_ended(request->lane);
	request->lane = NULL;
	rinq_slot_free(rinq_peer.slots, index);
	return request;
}

/*
 * Put a request into a slot and into the dispatch queue; false when
 * there is no room now.
 */
static bool
enqueue_inbound(RinqInbound * request, const RinqListener *listener)
{
	uint32		index = find_free_slot();
	RinqSlot   *slot;
	RinqFields	fields;

	if (index == RINQ_NO_SLOT)
		return false;
	slot = &rinq_peer.slots->slot[index];
	Assert(in_slot[index] == NULL && slot->length == 0 && !DsaPointerIsValid(slot->large));
	fields = request->fields;
	if (listener->handler != NULL)
		rinq_put_bytes(&fields, rinq_common_fields_of(&fields)->handler,
					   rinq_bytes_str(listener->handler));
	if (listener->channel != NULL)
		rinq_put_bytes(&fields, RINQ_NOTIFICATION_CHANNEL, rinq_bytes_str(listener->channel));
	rinq_put_bytes(&fields, request->body_field, request->body);
	if (!rinq_slot_write(slot, &fields))
		return false;

	rinq_inbound_free_body(request);
	slot->serial++;
	slot->work = request->work;
	slot->handler_owner = listener->owner;
	slot->owner = RINQ_NO_PROC;
	slot->role = listener->role;
	slot->wants_response = request->reply != RINQ_REPLY_NONE;
	slot->redelivered = request->redelivered &&
		(request->work == RINQ_WORK_REQUEST || request->ended != NULL);
	slot->deduplicate = listener->deduplicate;
	slot->timeout = listener->timeout;
	pg_atomic_write_u64(&slot->limit, 0);
	slot->deadline = request->deadline;
	slot->queued_at = rinq_peer.now;
	slot->outcome = RINQ_OUTCOME_NONE;
	in_slot[index] = request;
	num_in_slots++;
	Assert(num_in_slots <= (int) (rinq_peer.slots->num_slots - first_slot()));
	rinq_peer_wake_later(rinq_request_put(rinq_peer.db, index));
	return true;
}

/*
 * Log that a listener cannot be served, and look into it again now and then:
 * of the end of the reason, this process is not told.
 */
static void
note_problem(RinqNamespace * ns)
{
	if (ns->problem_noted != 0 && rinq_peer.now - ns->problem_noted < PROBLEM_INTERVAL)
		return;
	ns->problem_noted = rinq_peer.now;
	ereport(LOG,
			(errmsg("rinq cannot run the handler of namespace \"%s\": %s",
					ns->name, ns->listener->problem)));
	rinq_peer_ask_for_reading();
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
 * Tell whether there is nothing left to run something for: its handler or
 * session is gone, or its time is over.
 */
static bool
is_over(const RinqInbound * request)
{
	const		RinqNamespace *ns;

	if (request->work == RINQ_WORK_NOTIFICATION)
		return inbound_session(request) == NULL;
	if (request->work == RINQ_WORK_RESPONSE)
		return false;
	ns = served_namespace(request);
	return ns == NULL || ns->listener->problem != NULL || rinq_inbound_expired(request) ||
		!rinq_inbound_can_settle(request);
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
		note_problem(ns);
		if (rinq_inbound_respond_error(request, "the handler cannot be run"))
			rinq_count(rinq_peer.db, RINQ_REQUESTS_UNHANDLED);
		else
			dlist_push_tail(&refused, &request->node);
	}
}

/*
 * Have it wait for its turn, or for the notifications of its session before it.
 */
static void
defer_inbound(RinqInbound * request)
{
	RinqNamespace *ns = NULL;
	Oid			role = request->own.role;
	RinqSession *session;

	if (request->work == RINQ_WORK_NOTIFICATION)
	{
		session = inbound_session(request);
		Assert(session != NULL);
		if (session->handling)
		{
			dlist_push_tail(&session->notifications, &request->node);
			return;
		}
		session->handling = true;
	}
	else if (request->work == RINQ_WORK_REQUEST)
	{
		ns = served_namespace(request);
		Assert(ns != NULL);
		role = ns->listener->role;
	}
	if (rinq_lanes_add(request, role, ns) > MAX_IN_LANE)
		rinq_peer_fail("the broker sends more requests than it was asked to");
}

/*
 * Fill slots with those whose turn it is.
 */
static void
fill_slots(void)
{
	RinqInbound *request;

	no_room = false;
	while ((request = rinq_lanes_take()) != NULL)
	{
		if (is_over(request))
		{
			rinq_lanes_dropped(request->lane);
			request->lane = NULL;
			end_over(request);
		}
		else if (enqueue_inbound(request, request->work == RINQ_WORK_REQUEST ?
								 served_namespace(request)->listener : &request->own))
			rinq_lanes_started(request);
		else
		{
			rinq_lanes_put_back(request);
			no_room = true;
			return;
		}
	}
}

/*
 * End the turn of a session's notification, which was handled: the next one
 * may be.
 */
static void
notification_ended(RinqSession * session)
{
	RinqInbound *next;

	Assert(session->handling);
	session->handling = false;
	if (dlist_is_empty(&session->notifications))
		return;
	next = dlist_container(RinqInbound, node, dlist_pop_head_node(&session->notifications));
	defer_inbound(next);
}

/* take a session's notification out of the dispatch queue, if no executor has it */
static void
leave_dispatch_queue(RinqSession * session)
{
	uint32		i;

	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		const		RinqInbound *request = in_slot[i];

		if (request == NULL || request->work != RINQ_WORK_NOTIFICATION ||
			request->session_serial != session->serial)
			continue;
		if (rinq_request_remove(rinq_peer.db, i))
			rinq_inbound_settle(leave_slot(i));
		return;
	}
}

/*
 * Drop the notifications that wait for a session that ends.
 */
void
rinq_dispatch_session_ends(RinqSession * session)
{
	if (session->handling)
		leave_dispatch_queue(session);
	while (!dlist_is_empty(&session->notifications))
		rinq_inbound_settle(dlist_container(RinqInbound, node,
											dlist_pop_head_node(&session->notifications)));
}

static bool
finish_slot(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqInbound *request = in_slot[index];
	RinqLane   *lane = request->lane;
	RinqWork	work = request->work;
	RinqSession *session = work == RINQ_WORK_NOTIFICATION ? inbound_session(request) : NULL;

	if (work == RINQ_WORK_REQUEST && !rinq_inbound_result(slot, request))
		return false;
	if (work == RINQ_WORK_NOTIFICATION && slot->outcome != RINQ_OUTCOME_SUCCESS)
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_FAILED);
	Assert(num_in_slots > 0 && lane != NULL);
	in_slot[index] = NULL;
	num_in_slots--;
	rinq_slot_free(rinq_peer.slots, index);
	rinq_lanes_ended(lane);
	if (session != NULL)
		notification_ended(session);
	if (work != RINQ_WORK_REQUEST)
		rinq_inbound_free(request);
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

	if (index < first_slot() || index >= rinq_peer.slots->num_slots)
		return;
	slot = &rinq_peer.slots->slot[index];
	if (in_slot[index] == NULL || slot->serial != serial ||
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

static bool
is_request(const RinqInbound * request, void *arg)
{
	return request->work == RINQ_WORK_REQUEST;
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
	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqNamespace *ns;
		RinqInbound *request = in_slot[i];

		if (request == NULL || request->work != RINQ_WORK_REQUEST)
			continue;
		ns = served_namespace(request);
		if (ns != NULL && ns->listener->problem == NULL &&
			ns->listener->role == rinq_peer.slots->slot[i].role)
			continue;
		if (!rinq_request_remove(rinq_peer.db, i))
			continue;
		request = leave_slot(i);
		if (is_over(request))
			end_over(request);
		else
			rinq_inbound_settle(request);
	}
	rinq_lanes_extract(is_request, NULL, &requests);
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

/* Tell whether it is work for a role that no caller waits for. */
static bool
is_unattended(const RinqInbound * request, void *arg)
{
	return request->work != RINQ_WORK_REQUEST && request->own.role == *(Oid *) arg;
}

/*
 * Drop the responses and notifications for a role as which nothing can be run,
 * for whatever reason.  Requests wait until their deadlines, or until the
 * reader has found out; but responses and notifications would wait for ever,
 * and keep their slots from others.
 */
void
rinq_dispatch_role_failed(Oid role)
{
	dlist_head	failed = DLIST_STATIC_INIT(failed);
	int			dropped = 0;
	uint32		i;

	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqInbound *request = in_slot[i];

		if (request == NULL || !is_unattended(request, &role) ||
			!rinq_request_remove(rinq_peer.db, i))
			continue;
		request = leave_slot(i);
		dlist_push_tail(&failed, &request->node);
	}
	rinq_lanes_extract(is_unattended, &role, &failed);
	for (; !dlist_is_empty(&failed); dropped++)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, dlist_pop_head_node(&failed));
		RinqSession *session = request->work == RINQ_WORK_NOTIFICATION ? inbound_session(request) : NULL;

		if (session != NULL)
		{
			rinq_dispatch_session_ends(session);
			session->handling = false;
		}
		rinq_inbound_settle(request);
	}
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
	dlist_mutable_iter iter;
	uint32		i;

	next_expiry = 0;
	dlist_foreach_modify(iter, &refused)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (!is_to_drop(request, &only_expired))
			continue;
		dlist_delete(&request->node);
		dlist_push_tail(&dropped, &request->node);
	}
	rinq_lanes_extract(is_to_drop, &only_expired, &dropped);
	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqInbound *request = in_slot[i];

		if (request == NULL || !is_to_drop(request, &only_expired) ||
			!rinq_request_remove(rinq_peer.db, i))
			continue;
		request = leave_slot(i);
		dlist_push_tail(&dropped, &request->node);
	}
	while (!dlist_is_empty(&dropped))
		rinq_inbound_settle(dlist_container(RinqInbound, node, dlist_pop_head_node(&dropped)));
}

/* say that handlers cannot be run, as far as the connection has room */
static void
respond_refused(void)
{
	while (!dlist_is_empty(&refused))
	{
		RinqInbound *request = dlist_container(RinqInbound, node, dlist_pop_head_node(&refused));

		if (!rinq_inbound_respond_error(request, "the handler cannot be run"))
		{
			dlist_push_head(&refused, &request->node);
			break;
		}
		rinq_count(rinq_peer.db, RINQ_REQUESTS_UNHANDLED);
	}
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
	respond_refused();
	waits = rinq_inbound_send_responses();
	if (!rinq_lanes_empty())
		fill_slots();

	next = rinq_clock_earlier(next_expiry, next_return);
	if (waits || no_room || !dlist_is_empty(&refused) || unsent != NIL)
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
 * Tell whether requests are in the dispatch queue, or running.
 */
bool
rinq_dispatch_busy(void)
{
	return num_in_slots > 0;
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

/*
 * Find the roles for which something is in the dispatch queue that an executor
 * could take now.  Returns their number, at most "max".
 */
int
rinq_dispatch_demand(RinqDemand * demand, int max)
{
	int			unattended = 0;
	int			count = 0;
	uint32		i;

	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		if (in_slot[i] != NULL && in_slot[i]->work != RINQ_WORK_REQUEST &&
			rinq_slot_state(&rinq_peer.slots->slot[i]) == RINQ_SLOT_RUNNING)
			unattended++;
	}
	for (i = first_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqSlot   *slot = &rinq_peer.slots->slot[i];
		int			j;

		if (in_slot[i] == NULL || rinq_slot_state(slot) != RINQ_SLOT_QUEUED ||
			(in_slot[i]->work != RINQ_WORK_REQUEST && unattended >= rinq_unattended_limit()))
			continue;
		for (j = 0; j < count && demand[j].role != slot->role; j++)
			;
		if (j == max)
			continue;
		if (j == count)
		{
			demand[count].role = slot->role;
			demand[count++].oldest = slot->queued_at;
		}
		else
			demand[j].oldest = Min(demand[j].oldest, slot->queued_at);
	}
	return count;
}
