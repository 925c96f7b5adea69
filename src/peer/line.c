/*-------------------------------------------------------------------------
 *
 * line.c
 *	  What has arrived and waits for executors: requests, responses and
 *	  notifications on their way there, and the results on their way back.
 *
 * A request is in one of three places: in "backlog" while there is no slot for
 * it, "held" while its namespace may not have another one started, or in a slot,
 * in the line that executors take their work from.  Notifications to a session
 * wait for one another in a list of the session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "peer/incoming.h"
#include "request.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 10		/* ms between looks for room */
#define PROBLEM_INTERVAL 5000	/* ms between looks at a listener with a problem */

/* what is in each slot of the channel, NULL for nothing */
static RinqIncoming **in_slot;
static int	num_in_slots;

/* what no slot, or no payload memory, was free for; oldest first */
static dlist_head backlog = DLIST_STATIC_INIT(backlog);

/* requests to namespaces that may not have another one started now; oldest first */
static dlist_head held = DLIST_STATIC_INIT(held);

/* slots whose response the connection has no room for yet, oldest first */
static List *unsent = NIL;

/* no request that was not started expires before; 0 when there is none */
static int64 next_expiry = 0;

static uint32
first_slot(void)
{
	return rinq_peer.channel->num_calls;
}

void
rinq_line_init(void)
{
	in_slot = MemoryContextAllocZero(TopMemoryContext,
									 rinq_peer.channel->num_slots * sizeof(RinqIncoming *));
}

static void
note_expiry(const RinqIncoming *request)
{
	if (request->deadline != 0 && (next_expiry == 0 || request->deadline < next_expiry))
		next_expiry = request->deadline;
}

static uint32
find_free_slot(void)
{
	static uint32 hint = 0;
	uint32		count = rinq_peer.channel->num_slots - first_slot();
	uint32		i;

	for (i = 0; i < count; i++)
	{
		uint32		index = first_slot() + (hint + i) % count;
		RinqSlot   *slot = &rinq_peer.channel->slots[index];

		if (in_slot[index] == NULL &&
			rinq_slot_state(slot) == RINQ_SLOT_FREE)
		{
			hint = index - first_slot() + 1;
			return index;
		}
	}
	return RINQ_NO_SLOT;
}

/* takes the request out of its slot; the caller has to end it */
static RinqIncoming *
leave_slot(uint32 index)
{
	RinqIncoming *request = in_slot[index];

	in_slot[index] = NULL;
	num_in_slots--;
	if (request->ns != NULL)
		request->ns->started--;
	rinq_slot_free(rinq_peer.channel, index);
	return request;
}

/*
 * Puts a request into a slot and into the line for executors; false when
 * there is no room now.
 */
static bool
enqueue(RinqIncoming *request, RinqNamespace *ns, const RinqListener *listener)
{
	uint32		index = find_free_slot();
	RinqSlot   *slot;
	RinqBytes	fields[RINQ_REQUEST_FIELDS];

	if (index == RINQ_NO_SLOT)
		return false;
	slot = &rinq_peer.channel->slots[index];
	fields[RINQ_REQUEST_HANDLER] = rinq_bytes_str(listener->handler);
	fields[RINQ_REQUEST_NAMESPACE] = request->namespace;
	fields[RINQ_REQUEST_COMMAND] = request->command;
	fields[RINQ_REQUEST_ID] = request->id;
	fields[RINQ_REQUEST_SOURCE] = request->source;
	fields[RINQ_REQUEST_TRACE] = request->trace;
	fields[RINQ_REQUEST_PAYLOAD] = request->body;
	fields[RINQ_REQUEST_SPAN] = request->span_context;
	fields[RINQ_REQUEST_TRACEPARENT] = request->traceparent;
	fields[RINQ_REQUEST_TRACESTATE] = request->tracestate;
	fields[RINQ_REQUEST_TYPE] = rinq_bytes(&request->type, request->type == '\0' ? 0 : 1);
	fields[RINQ_REQUEST_FAILURE_TYPE] = request->failure_type;
	fields[RINQ_REQUEST_MESSAGE] = request->message;
	if (!rinq_slot_write(slot, fields, RINQ_REQUEST_FIELDS))
		return false;

	rinq_incoming_free_body(request);
	request->ns = ns;
	if (ns != NULL)
		ns->started++;
	slot->serial++;
	slot->work = request->work;
	slot->handler_owner = listener->owner;
	slot->owner = RINQ_NO_PROC;
	slot->role = listener->role;
	slot->wants_response = request->reply != RINQ_REPLY_NONE;
	slot->redelivered = request->redelivered && request->work == RINQ_WORK_REQUEST;
	slot->deduplicate = listener->deduplicate;
	slot->deadline = request->deadline;
	slot->queued_at = rinq_peer.now;
	slot->outcome = RINQ_OUTCOME_NONE;
	in_slot[index] = request;
	num_in_slots++;
	rinq_pool_wake(rinq_request_put(rinq_peer.db, index));
	return true;
}

/*
 * A listener cannot be served, for a reason that nobody would tell this
 * process the end of: it is logged and looked into again, now and then.
 */
static void
note_problem(RinqNamespace *ns)
{
	if (ns->problem_noted != 0 && rinq_peer.now - ns->problem_noted < PROBLEM_INTERVAL)
		return;
	ns->problem_noted = rinq_peer.now;
	ereport(LOG,
			(errmsg("rinq cannot run the handler of namespace \"%s\": %s",
					ns->name, ns->listener->problem)));
	rinq_peer_ask_for_reading();
}

/* the session that a notification is for; NULL when that has ended */
static RinqSession *
session_of(const RinqIncoming *request)
{
	RinqSession *session = rinq_own_session_find(request->session);

	/* after a reconnect, another one may have its number */
	return session != NULL && session->serial == request->session_serial ? session : NULL;
}

/*
 * Notifications for one session are handled one after another.  False when
 * there is no room.
 */
static bool
dispatch_notification(RinqIncoming *request)
{
	RinqSession *session = session_of(request);

	if (session == NULL)
	{
		rinq_incoming_settle(request);
		return true;
	}
	if (session->handling)
	{
		dlist_push_tail(&session->notifications, &request->node);
		return true;
	}
	if (!enqueue(request, NULL, &request->own))
		return false;
	session->handling = true;
	return true;
}

/* a session's notification was handled: the next one may be */
static void
notification_ended(RinqSession *session)
{
	RinqIncoming *next;

	session->handling = false;
	if (dlist_is_empty(&session->notifications))
		return;
	next = dlist_container(RinqIncoming, node, dlist_head_node(&session->notifications));
	dlist_delete(&next->node);
	if (!dispatch_notification(next))
		dlist_push_head(&backlog, &next->node);
}

/*
 * A session ends, and with it the notifications that wait for it.
 */
void
rinq_line_session_ends(RinqSession *session)
{
	while (!dlist_is_empty(&session->notifications))
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node,
												dlist_head_node(&session->notifications));

		dlist_delete(&request->node);
		rinq_incoming_settle(request);
	}
}

/*
 * Does with a request what can be done now; false when it has to wait.
 */
static bool
dispatch(RinqIncoming *request)
{
	RinqNamespace *ns;

	if (!rinq_incoming_can_settle(request))
	{
		rinq_incoming_free(request);
		return true;
	}
	if (request->work == RINQ_WORK_RESPONSE)
		return enqueue(request, NULL, &request->own);
	if (request->work == RINQ_WORK_NOTIFICATION)
		return dispatch_notification(request);
	ns = rinq_topology_find(request->namespace);
	if (ns == NULL || ns->listener == NULL || rinq_incoming_expired(request))
	{
		rinq_incoming_settle(request);
		return true;
	}
	if (ns->listener->problem != NULL)
	{
		note_problem(ns);
		if (!rinq_incoming_respond_error(request, "the handler cannot be run"))
			return false;
		rinq_count(rinq_peer.db, RINQ_REQUESTS_UNHANDLED);
		return true;
	}
	if (ns->listener->max_concurrent > 0 && ns->started >= ns->listener->max_concurrent)
	{
		request->ns = ns;
		ns->held++;
		dlist_push_tail(&held, &request->node);
		return true;
	}
	return enqueue(request, ns, ns->listener);
}

/* takes a request off the list of those held */
static void
unhold(RinqIncoming *request)
{
	dlist_delete(&request->node);
	request->ns->held--;
}

/*
 * A request to this namespace has ended: another one may start.
 */
static void
dispatch_held(RinqNamespace *ns)
{
	dlist_mutable_iter iter;

	if (ns->held == 0)
		return;
	dlist_foreach_modify(iter, &held)
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node, iter.cur);

		if (request->ns != ns)
			continue;
		unhold(request);
		if (!dispatch(request))
			dlist_push_head(&backlog, &request->node);
		return;
	}
}

/*
 * Has all requests that are held looked at again; they came before those that
 * are in the backlog.
 */
static void
release_held(void)
{
	while (!dlist_is_empty(&held))
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node, dlist_tail_node(&held));

		unhold(request);
		dlist_push_head(&backlog, &request->node);
	}
}

static void
dispatch_backlog(void)
{
	while (!dlist_is_empty(&backlog))
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node, dlist_head_node(&backlog));

		dlist_delete(&request->node);
		if (!dispatch(request))
		{
			dlist_push_head(&backlog, &request->node);
			break;
		}
	}
}

static bool
finish_slot(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.channel->slots[index];
	RinqIncoming *request = in_slot[index];
	RinqNamespace *ns = request->ns;
	RinqWork	work = request->work;
	RinqSession *session = work == RINQ_WORK_NOTIFICATION ? session_of(request) : NULL;

	if (work == RINQ_WORK_REQUEST && !rinq_incoming_answer(slot, request))
		return false;
	if (work == RINQ_WORK_NOTIFICATION && slot->outcome != RINQ_OUTCOME_SUCCESS)
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_FAILED);
	in_slot[index] = NULL;
	num_in_slots--;
	rinq_slot_free(rinq_peer.channel, index);
	if (session != NULL)
		notification_ended(session);
	if (work != RINQ_WORK_REQUEST)
		rinq_incoming_free(request);
	if (ns != NULL)
	{
		ns->started--;
		dispatch_held(ns);
	}
	return true;
}

/*
 * An executor has finished with a request.
 */
void
rinq_line_answer(uint32 index, uint32 serial)
{
	RinqSlot   *slot;

	if (index < first_slot() || index >= rinq_peer.channel->num_slots)
		return;
	slot = &rinq_peer.channel->slots[index];
	if (in_slot[index] == NULL || slot->serial != serial ||
		rinq_slot_state(slot) != RINQ_SLOT_DONE)
		return;
	if (finish_slot(index))
		dispatch_backlog();
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

/*
 * The listeners have changed: what waits may be possible now, or impossible.
 */
void
rinq_line_configured(void)
{
	uint32		i;

	/* take back what waits for an executor that cannot be had */
	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		RinqNamespace *ns;
		RinqIncoming *request = in_slot[i];

		if (request == NULL || request->work != RINQ_WORK_REQUEST)
			continue;
		ns = rinq_topology_find(request->namespace);
		if (ns != NULL && ns->listener != NULL && ns->listener->problem == NULL &&
			ns->listener->role == rinq_peer.channel->slots[i].role)
			continue;
		if (!rinq_request_remove(rinq_peer.db, i))
			continue;
		(void) leave_slot(i);
		if (ns == NULL || ns->listener == NULL || ns->listener->problem == NULL ||
			!rinq_incoming_respond_error(request, "the handler cannot be run"))
			rinq_incoming_settle(request);
		else
			rinq_count(rinq_peer.db, RINQ_REQUESTS_UNHANDLED);
	}

	release_held();				/* the limits may be others now */
	dispatch_backlog();
}

/*
 * Nothing can be run as a role, for whatever reason.  Requests wait until their
 * deadlines, or until the reader has found out; but responses and notifications
 * would wait for ever, and keep their slots from others.
 */
void
rinq_line_role_failed(Oid role)
{
	int			dropped = 0;
	uint32		i;

	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		RinqIncoming *request = in_slot[i];
		RinqSession *session;

		if (request == NULL || request->work == RINQ_WORK_REQUEST ||
			rinq_peer.channel->slots[i].role != role || !rinq_request_remove(rinq_peer.db, i))
			continue;
		(void) leave_slot(i);
		session = request->work == RINQ_WORK_NOTIFICATION ? session_of(request) : NULL;
		if (session != NULL)
		{
			rinq_line_session_ends(session);
			session->handling = false;
		}
		rinq_incoming_settle(request);
		dropped++;
	}
	if (dropped > 0)
		ereport(LOG,
				(errmsg("rinq peer %s dropped responses or notifications whose handlers cannot be run",
						rinq_peer.id_text),
				 errdetail_internal("No executor can be started for the role with OID %u.", role)));
}

/*
 * Takes requests that were not started out of the line and the backlog: all,
 * or those that are too late or not ours any more.
 */
static void
drop_queued(bool only_expired)
{
	dlist_mutable_iter iter;
	uint32		i;

	next_expiry = 0;
	dlist_foreach_modify(iter, &backlog)
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node, iter.cur);

		if (!only_expired || rinq_incoming_expired(request) || !rinq_incoming_can_settle(request))
		{
			dlist_delete(&request->node);
			rinq_incoming_settle(request);
		}
		else
			note_expiry(request);
	}
	dlist_foreach_modify(iter, &held)
	{
		RinqIncoming *request = dlist_container(RinqIncoming, node, iter.cur);

		if (!only_expired || rinq_incoming_expired(request) || !rinq_incoming_can_settle(request))
		{
			unhold(request);
			rinq_incoming_settle(request);
		}
		else
			note_expiry(request);
	}
	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		RinqIncoming *request = in_slot[i];

		if (request == NULL)
			continue;
		if (only_expired && !rinq_incoming_expired(request) && rinq_incoming_can_settle(request))
		{
			note_expiry(request);
			continue;
		}
		if (!rinq_request_remove(rinq_peer.db, i))
			continue;
		rinq_incoming_settle(leave_slot(i));
	}
	release_held();
}

/*
 * What has to be done in its time: requests whose deadline passed before an
 * executor took them, and what waits for room.  Returns when to look again,
 * or 0.
 */
int64
rinq_line_expire(void)
{
	int64		next;
	int64		next_return;
	bool		waits;

	if (next_expiry != 0 && rinq_peer.now >= next_expiry)
		drop_queued(true);
	next_return = rinq_incoming_settle_delayed(false);
	if (unsent != NIL)
		send_unsent();
	waits = rinq_server_send_answered();
	if (!dlist_is_empty(&backlog))
		dispatch_backlog();

	next = next_expiry;
	if (next_return != 0)
		next = next == 0 ? next_return : Min(next, next_return);
	if (waits || !dlist_is_empty(&backlog) || unsent != NIL)
		next = next == 0 ? rinq_peer.now + RETRY_INTERVAL :
			Min(next, rinq_peer.now + RETRY_INTERVAL);
	return next;
}

/*
 * Gives back everything that was not started, for an orderly stop.
 */
void
rinq_line_give_back_queued(void)
{
	(void) rinq_incoming_settle_delayed(true);
	drop_queued(false);
}

/*
 * Are there requests in the line, or running?
 */
bool
rinq_line_busy(void)
{
	return num_in_slots > 0;
}

/*
 * A channel that requests come through was closed: the broker has taken back
 * all that was not acknowledged.  What runs goes on, for its effects; what
 * does not run yet is left to whoever gets it next.
 */
void
rinq_line_channel_lost(uint16 channel)
{
	rinq_incoming_channel_lost(channel);
	drop_queued(true);
}

/*
 * The same for all channels.
 */
void
rinq_line_connection_lost(void)
{
	int			i;

	for (i = 0; i <= RINQ_CONN_MAX_CHANNEL; i++)
		rinq_incoming_channel_lost((uint16) i);
	(void) rinq_incoming_settle_delayed(true);
	drop_queued(true);
}

/*
 * Has something that has arrived handled, in its turn.
 */
void
rinq_line_add(RinqIncoming *request)
{
	note_expiry(request);
	if (!dlist_is_empty(&backlog) || !dispatch(request))
		dlist_push_tail(&backlog, &request->node);
}
