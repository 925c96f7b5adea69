/*-------------------------------------------------------------------------
 *
 * invoker.c
 *	  Calls out: sending the requests that backends hand over.
 *
 * What waits for a response, and which one it gets, is pending_calls.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hash_table.h"
#include "guc.h"
#include "peer/command/invoker.h"
#include "peer/command/pending_calls.h"
#include "peer/headers.h"
#include "peer/process.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sent.h"
#include "peer/session/sessions.h"
#include "peer/topology/declare.h"
#include "peer/topology/mending.h"
#include "peer/topology/namespaces.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 10		/* ms between looks for room in the connection */
#define ASYNC_INTERVAL 10		/* ms, at least, between looks at asynchronous
								 * calls */

/* a call that waits for its namespace's queue */
typedef struct Waiting
{
	RinqWaiter	call;
	RinqReturnedCall *returned; /* one that the broker had no queue for, or
								 * NULL */
	bool		uncorrelated;	/* such a one, whose response goes to a
								 * handler */
} Waiting;

/* when asynchronous calls are looked at next, whose deadlines no backend watches */
static int64 next_async_look;

/* calls that the connection has no room for, oldest first */
static List *unsent = NIL;

/* ---------------- what the publisher tells ---------------- */

/* Tell whether the slot of a published request still waits for what becomes of it. */
static bool
waits_for(const RinqPublication * what)
{
	RinqWaiter	call = {what->index, what->serial};

	return rinq_waits(&call);
}

/*
 * Tell whether a request that has to be sent again is still of use.  One whose response goes
 * to a handler is, though its slot may be free by now.
 */
static bool
is_call_wanted(const RinqPublication * what)
{
	return what->uncorrelated || waits_for(what);
}

/*
 * Note that the broker has taken a request: a backend that waits for no response
 * waits for this, if the broker might have refused it.
 */
static void
call_taken(const RinqPublication * what)
{
	if (what->kind == RINQ_PUBLISH_CALL && what->uncorrelated && waits_for(what))
		rinq_pending_finish_text(what->index, RINQ_OUTCOME_SUCCESS, "");
}

/*
 * End a request that the broker has refused.
 */
static void
call_refused(const RinqPublication * what, const char *text, bool for_good)
{
	if (waits_for(what))
		rinq_pending_finish_text(what->index, RINQ_OUTCOME_NOT_TAKEN, text);
	else if (what->uncorrelated)
		rinq_sent_dropped(text);
}

/*
 * End a request that the broker has no queue for: the peer of an operation is gone, with
 * its sessions; a call was sent again in vain.
 */
static void
call_unroutable(const RinqPublication * what, const char *text)
{
	if (!waits_for(what))
	{
		if (what->uncorrelated)
			rinq_sent_dropped(text);
	}
	else if (what->kind == RINQ_PUBLISH_OPERATION)
		rinq_pending_finish_text(what->index, RINQ_OUTCOME_NOT_FOUND, "");
	else
		rinq_pending_finish_text(what->index, RINQ_OUTCOME_NO_QUEUE, text);
}

/*
 * Have a call sent again that the broker had no queue for, since the queue or its
 * binding was deleted, once that is mended.
 */
static void
call_returned(const RinqPublication * what, RinqReturnedCall * call)
{
	RinqNamespace *ns = what->ns;
	Waiting    *waiting = rinq_wait_in(&ns->waiting, what->index, what->serial, sizeof(Waiting));

	waiting->returned = call;
	waiting->uncorrelated = what->uncorrelated;
	rinq_mend_namespace(ns);
}

static const RinqPublishOwner call_owner = {
	.taken = call_taken,
	.refused = call_refused,
	.wanted = is_call_wanted,
	.unroutable = call_unroutable,
	.returned = call_returned
};

static void
make_publication(RinqPublication * what, RinqPublishKind kind, uint32 index,
				 const RinqMessageId *id)
{
	memset(what, 0, sizeof(*what));
	what->kind = kind;
	what->owner = &call_owner;
	what->index = index;
	what->serial = rinq_peer.slots->slot[index].serial;
	what->id = *id;
}

/* Have a request that was not published wait for room, or fail. */
static void
not_published(uint32 index, RinqMsgStatus status)
{
	if (status == RINQ_MSG_BACKLOG)
		rinq_wait_in(&unsent, index, rinq_peer.slots->slot[index].serial, sizeof(Waiting));
	else
		rinq_pending_finish_text(index, status == RINQ_MSG_OVER_BROKER_LIMIT ?
								 RINQ_OUTCOME_NOT_TAKEN : RINQ_OUTCOME_REFUSED,
								 rinq_publish_problem(status));
}

static void
publish_call(uint32 index, RinqNamespace * ns)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqFields	fields;
	RinqMessage msg;
	RinqMsgStatus status;
	RinqPublication what;
	char		id_text[RINQ_MESSAGE_ID_SIZE];
	char		expiration[RINQ_EXPIRATION_SIZE];
	bool		in_doubt;

	rinq_slot_read(slot, RINQ_KIND_CALL, &fields);
	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id_text,
								rinq_message_id_format(&slot->id, id_text, sizeof(id_text)));
	rinq_message_set_trace(&msg, rinq_get_bytes(&fields, RINQ_CALL_TRACE));
	msg.span_context = rinq_get_bytes(&fields, RINQ_CALL_SPAN);
	msg.traceparent = rinq_get_bytes(&fields, RINQ_CALL_TRACEPARENT);
	msg.tracestate = rinq_get_bytes(&fields, RINQ_CALL_TRACESTATE);
	msg.reply_to = rinq_bytes_str(slot->uncorrelated ? "u" : "c");
	msg.has_priority = true;
	msg.priority = 1;
	rinq_message_set_deadline(&msg, slot->deadline, expiration);
	msg.ns = rinq_get_bytes(&fields, RINQ_CALL_NAMESPACE);
	msg.command = rinq_get_bytes(&fields, RINQ_CALL_COMMAND);

	make_publication(&what, RINQ_PUBLISH_CALL, index, &slot->id);
	what.ns = ns;
	what.uncorrelated = slot->uncorrelated;
	in_doubt = rinq_publish_waits_for_confirm(rinq_get_bytes(&fields, RINQ_CALL_PAYLOAD).len);
	status = rinq_publish(&what, "cmd.bal", rinq_bytes_str(ns->name), true, &msg,
						  rinq_get_bytes(&fields, RINQ_CALL_PAYLOAD));
	if (status != RINQ_MSG_OK)
	{
		not_published(index, status);
		return;
	}
	rinq_count(rinq_peer.db, RINQ_CALLS_SENT);
	if (slot->uncorrelated)
	{
		if (!in_doubt)
			rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, "");
		return;
	}
	rinq_slot_clear(slot);
	rinq_own_session_pending(slot->id.ref.session.seq, 1);
	rinq_pending_expect(index, &slot->id, NULL);
}

/*
 * Send an operation on a session to the peer that owns it; "handler" gets the
 * response.  One whose owner is gone is returned by the broker.
 */
void
rinq_invoker_ask(uint32 index, const RinqPeerId *peer, const char *command, RinqBytes body,
				 RinqResponseHandler handler)
{
	static uint32 counter = 0;
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqFields	fields;
	RinqMessage msg;
	RinqMsgStatus status;
	RinqPublication what;
	RinqMessageId id;
	char		id_text[RINQ_MESSAGE_ID_SIZE];
	char		peer_text[RINQ_PEER_ID_SIZE];
	char		expiration[RINQ_EXPIRATION_SIZE];

	memset(&id, 0, sizeof(id));
	id.ref.session.peer = rinq_peer.id;
	if (++counter == 0)
		counter = 1;
	id.seq = counter;
	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id_text, rinq_message_id_format(&id, id_text, sizeof(id_text)));
	if (rinq_get_bytes(&fields, RINQ_OP_TRACE).len > 0)
		msg.correlation_id = rinq_get_bytes(&fields, RINQ_OP_TRACE);
	msg.span_context = rinq_get_bytes(&fields, RINQ_OP_SPAN);
	msg.traceparent = rinq_get_bytes(&fields, RINQ_OP_TRACEPARENT);
	msg.tracestate = rinq_get_bytes(&fields, RINQ_OP_TRACESTATE);
	msg.reply_to = rinq_bytes_str("c");
	msg.has_priority = true;
	msg.priority = 2;
	rinq_message_set_deadline(&msg, slot->deadline, expiration);
	msg.ns = rinq_bytes_str("_sess");
	msg.command = rinq_bytes_str(command);
	rinq_peer_id_format(peer, peer_text, sizeof(peer_text));
	make_publication(&what, RINQ_PUBLISH_OPERATION, index, &id);
	status = rinq_publish(&what, "cmd.uc", rinq_bytes_str(peer_text), true, &msg, body);
	if (status == RINQ_MSG_OK)
		rinq_pending_expect(index, &id, handler);
	else
		not_published(index, status);
}

/*
 * Accept a call, or an operation on a session, from a backend.  False when it
 * is over already, or ends here, since the connection it was meant for is not
 * there.
 */
bool
rinq_invoker_accept(uint32 index, uint32 serial)
{
	RinqSlot   *slot;
	RinqWaiter	call = {index, serial};

	if (!rinq_waits(&call))
		return false;
	slot = &rinq_peer.slots->slot[index];
	if (slot->async)
		next_async_look = rinq_clock_earlier(next_async_look, slot->deadline);
	if (!rinq_peer.ready || (rinq_peer.stopping && !slot->in_handler))
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_NOT_CONNECTED,
								 rinq_peer.ready ? "the peer is being stopped" :
								 "the peer has no connection to the broker");
		return false;
	}
	if (slot->incarnation != rinq_peer.args.incarnation)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_CONNECTION_LOST,
								 "the connection to the broker was lost before the request was sent");
		return false;
	}
	return true;
}

/*
 * Send the call in a slot, or have it wait until the queue of its namespace is
 * there.
 */
void
rinq_invoker_call(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqFields	fields;
	RinqNamespace *ns;
	const char *problem;

	Assert(slot->op == RINQ_OP_CALL);
	if (!rinq_peer_id_equal(&slot->id.ref.session.peer, &rinq_peer.id))
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_CONNECTION_LOST,
								 "the connection to the broker was lost before the request was sent");
		return;
	}

	rinq_slot_read(slot, RINQ_KIND_CALL, &fields);
	ns = rinq_topology_namespace(rinq_get_bytes(&fields, RINQ_CALL_NAMESPACE), rinq_max_namespaces);
	if (ns == NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED,
								 "\"rinq.max_namespaces\" namespaces were called already");
		return;
	}
	if (ns->state == NAMESPACE_DECLARED)
	{
		publish_call(index, ns);
		return;
	}
	if ((problem = rinq_declare_problem(ns, RINQ_DECLARE_PATIENCE)) != NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_NO_QUEUE, problem);
		return;
	}

	/* until its queue exists, a request would be dropped */
	rinq_wait_in(&ns->waiting, index, slot->serial, sizeof(Waiting));
	rinq_declare_namespace(ns);
}

/*
 * Forget the returned message of a call, which is not sent again.  A call
 * whose response goes to a handler is counted as dropped when it is not waited
 * for any more.
 */
static void
give_up_returned(Waiting * w, const char *text)
{
	rinq_publish_forget(w->returned);
	if (w->uncorrelated && !rinq_waits(&w->call))
		rinq_sent_dropped(text);
}

/*
 * Go on with the calls to a namespace whose queue is there, or cannot be had:
 * then "outcome" and "error" say why.
 */
void
rinq_invoker_declared(RinqNamespace * ns, RinqOutcome outcome, const char *error)
{
	List	   *waiting = ns->waiting;
	ListCell   *lc;

	ns->waiting = NIL;
	foreach(lc, waiting)
	{
		Waiting    *w = lfirst(lc);

		if (w->returned != NULL && error == NULL)
			rinq_publish_again(w->returned);
		else if (w->returned != NULL)
			give_up_returned(w, error);
		if (!rinq_waits(&w->call))
			continue;
		if (error != NULL)
			rinq_pending_finish_text(w->call.index, outcome, error);
		else if (w->returned == NULL)
			publish_call(w->call.index, ns);
	}
	list_free_deep(waiting);
}

/*
 * End the calls that wait in vain for the queue of a namespace, and whose
 * deadline is not after "deadline", with the reason, while there is time to
 * tell it.
 */
void
rinq_invoker_declaring(RinqNamespace * ns, int64 deadline, const char *problem)
{
	ListCell   *lc;

	foreach(lc, ns->waiting)
	{
		Waiting    *w = lfirst(lc);
		bool		wanted = rinq_waits(&w->call);

		if (wanted && rinq_peer.slots->slot[w->call.index].deadline > deadline)
			continue;
		if (w->returned != NULL)
			give_up_returned(w, problem);
		if (wanted)
			rinq_pending_finish_text(w->call.index, RINQ_OUTCOME_NO_QUEUE, problem);
		ns->waiting = foreach_delete_current(ns->waiting, lc);
		pfree(w);
	}
}

/*
 * End asynchronous calls whose deadline has passed, and take results back that
 * were not asked for for a while after it.
 */
static void
look_at_async(void)
{
	uint32		i;

	if (next_async_look == 0 || rinq_peer.now < next_async_look)
		return;
	next_async_look = 0;
	for (i = 0; i < rinq_peer.slots->num_calls; i++)
	{
		RinqSlot   *slot = &rinq_peer.slots->slot[i];
		uint32		serial = slot->serial;
		RinqSlotState state = rinq_slot_state(slot);
		int64		due = slot->deadline;

		if (!slot->async || (state != RINQ_SLOT_QUEUED && state != RINQ_SLOT_DONE))
			continue;
		if (state == RINQ_SLOT_QUEUED && due <= rinq_peer.now)
			rinq_pending_finish_text(i, RINQ_OUTCOME_EXPIRED, "");
		if (state == RINQ_SLOT_DONE || due <= rinq_peer.now)
			due += RINQ_ASYNC_GRACE;
		if (due <= rinq_peer.now &&
			pg_atomic_compare_exchange_u32(&slot->claim, &serial, RINQ_CLAIMED_BY_PEER))
		{
			rinq_count(rinq_peer.db, RINQ_RESPONSES_DROPPED);
			rinq_slot_free(rinq_peer.slots, i);
			continue;
		}
		next_async_look = rinq_clock_earlier(next_async_look, Max(due, rinq_peer.now + ASYNC_INTERVAL));
	}
}

/*
 * Have sent what the connection had no room for, by "send", and end what no
 * backend waits for.  Returns when to look again, or 0.
 */
int64
rinq_invoker_retry(RinqCallHandler send)
{
	List	   *waiting = unsent;
	ListCell   *lc;

	look_at_async();
	if (waiting == NIL)
		return next_async_look;
	unsent = NIL;
	foreach(lc, waiting)
	{
		Waiting    *w = lfirst(lc);

		send(w->call.index, w->call.serial);
	}
	list_free_deep(waiting);
	return unsent == NIL ? next_async_look : rinq_peer.now + RETRY_INTERVAL;
}

/*
 * Give up a call that its backend has stopped waiting for.
 */
void
rinq_invoker_abandoned(uint32 index, uint32 serial)
{
	RinqSlot   *slot;

	if (index >= rinq_peer.slots->num_calls)
		return;
	slot = &rinq_peer.slots->slot[index];
	if (slot->serial != serial ||
		rinq_slot_state(slot) != RINQ_SLOT_ABANDONED)
		return;
	rinq_pending_forget(index);
	rinq_slot_free(rinq_peer.slots, index);
}

/*
 * End all calls that wait for a response, or those only that handlers did not
 * make: the connection is lost, or the peer is to end.
 */
void
rinq_invoker_fail_all(const char *reason, bool also_of_handlers)
{
	uint32		i;

	for (i = 0; i < rinq_peer.slots->num_calls; i++)
	{
		RinqSlot   *slot = &rinq_peer.slots->slot[i];

		if (rinq_slot_state(slot) != RINQ_SLOT_QUEUED)
			rinq_pending_forget(i);
		else if (also_of_handlers || !slot->in_handler)
			rinq_pending_finish_text(i, RINQ_OUTCOME_CONNECTION_LOST, reason);
	}
}
