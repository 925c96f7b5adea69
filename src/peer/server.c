/*-------------------------------------------------------------------------
 *
 * server.c
 *	  Calls in: checking the requests that arrive, handing them to executors,
 *	  and sending the responses; and handing executors the responses that go to
 *	  a session's handler.
 *
 * Requests in the namespace "_sess" are answered here and now (sess_server.c).
 * Each delivery is settled exactly once: acknowledged after its response was
 * published, given back to the broker, or rejected.  The rules which of these
 * are section 4 of the protocol.  A delivery whose channel was closed in the
 * meantime is the broker's again, and is not settled at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "payload.h"
#include "peer/peer.h"
#include "request.h"
#include "utils/memutils.h"

#define RETRY_INTERVAL 10		/* ms between looks for room */
#define REDELIVERY_DELAY 1000	/* ms before a request goes back a second time */
#define MAX_UNBALANCED 10000	/* requests that wait, and cannot wait at the broker */
#define PROBLEM_INTERVAL 5000	/* ms between looks at a listener with a problem */

typedef enum ReplyMode
{
	REPLY_NONE,
	REPLY_CORRELATED,
	REPLY_UNCORRELATED
} ReplyMode;

/* what is remembered of a request until it is settled */
typedef struct Request
{
	dlist_node	node;			/* in "backlog", "held" or "answered", while it waits */
	RinqWork	work;
	uint32		session;		/* that a notification is for */
	RinqListener own;			/* of a response: whom it goes to */
	char		type;			/* of a response; or of the answer, when "answered" */
	RinqNamespace *ns;			/* while it is in a slot or "held" */
	uint16		channel;		/* it came through */
	uint32		epoch;			/* of that channel */
	uint64		tag;
	bool		balanced;
	bool		redelivered;
	bool		waits;			/* it was not started yet */
	int64		settle_at;		/* when it goes back, while it is "delayed" */
	ReplyMode	reply;
	int64		deadline;		/* 0 is none */
	RinqBytes	id;
	RinqBytes	source;
	RinqBytes	trace;
	RinqBytes	namespace;
	RinqBytes	command;
	RinqBytes	span_context;
	RinqBytes	traceparent;
	RinqBytes	tracestate;
	RinqBytes	failure_type;	/* these two of a response */
	RinqBytes	message;
	RinqBytes	body;			/* freed once it is in a slot */
	char		texts[FLEXIBLE_ARRAY_MEMBER];
} Request;

/* the request in each slot of the channel, NULL for none */
static Request **in_slot;
static int	num_in_slots;

/* requests that no slot, or no payload memory, was free for; oldest first */
static dlist_head backlog = DLIST_STATIC_INIT(backlog);

/* requests to namespaces that may not have another one started now; oldest first */
static dlist_head held = DLIST_STATIC_INIT(held);

/* of the requests that wait, those that the broker keeps no count of */
static int	unbalanced_waiting = 0;
static Size unbalanced_bytes = 0;

/* requests on their way back to the broker, after a little while */
static dlist_head delayed = DLIST_STATIC_INIT(delayed);

/* slots whose response the connection has no room for yet, oldest first */
static List *unsent = NIL;

/* answers that the connection has no room for yet, in "body", oldest first */
static dlist_head answered = DLIST_STATIC_INIT(answered);

/* for each channel, counts how often it was lost */
static uint32 epochs[RINQ_CONN_MAX_CHANNEL + 1];

/* no request that was not started expires before; 0 when there is none */
static int64 next_expiry = 0;

static uint32
first_slot(void)
{
	return rinq_peer.channel->num_calls;
}

void
rinq_server_init(void)
{
	in_slot = MemoryContextAllocZero(TopMemoryContext,
									 rinq_peer.channel->num_slots * sizeof(Request *));
}

static bool
expired(const Request *request)
{
	return request->deadline != 0 && rinq_now_ms() >= request->deadline;
}

static void
note_expiry(const Request *request)
{
	if (request->deadline != 0 && (next_expiry == 0 || request->deadline < next_expiry))
		next_expiry = request->deadline;
}

/* the body is copied into a slot, or of no use any more */
static void
free_body(Request *request)
{
	if (!request->balanced && request->waits)
	{
		unbalanced_waiting--;
		unbalanced_bytes -= request->body.len;
	}
	request->waits = false;
	if (request->body.data != NULL)
		pfree((char *) request->body.data);
	request->body = rinq_bytes(NULL, 0);
}

static void
free_request(Request *request)
{
	free_body(request);
	if (request->own.handler != NULL)
		pfree(request->own.handler);
	pfree(request);
}

/* of a response, there is nothing to settle any more */
static bool
can_settle(const Request *request)
{
	if (request->work != RINQ_WORK_REQUEST)
		return true;
	return rinq_peer.conn != NULL && request->epoch == epochs[request->channel];
}

/*
 * Ends a request without an answer: the broker may give a balanced one to
 * another peer, as long as its deadline allows.
 */
static void
settle_without_answer(Request *request)
{
	bool		late = expired(request);
	bool		requeue = request->balanced && !late;

	if (request->work != RINQ_WORK_REQUEST)
	{
		rinq_count(rinq_peer.db, request->work == RINQ_WORK_RESPONSE ?
				   RINQ_RESPONSES_DROPPED : RINQ_NOTIFICATIONS_DROPPED);
		free_request(request);
		return;
	}
	rinq_count(rinq_peer.db, requeue ? RINQ_REQUESTS_REQUEUED :
			   late ? RINQ_REQUESTS_EXPIRED : RINQ_REQUESTS_REJECTED);
	if (can_settle(request))
		(void) rinq_basic_reject(rinq_peer.conn, request->channel, request->tag, requeue);
	free_request(request);
}

/*
 * The same for one whose executor has ended.  If it was delivered before, that
 * may have happened before, and then its return must not be a busy loop.
 */
static void
give_back(Request *request)
{
	if (!request->redelivered || !request->balanced || rinq_peer.stopping)
	{
		settle_without_answer(request);
		return;
	}
	request->settle_at = rinq_peer.now + REDELIVERY_DELAY;
	dlist_push_tail(&delayed, &request->node);
}

static void
settle_delayed(bool all)
{
	while (!dlist_is_empty(&delayed))
	{
		Request    *request = dlist_container(Request, node, dlist_head_node(&delayed));

		if (!all && request->settle_at > rinq_peer.now)
			break;
		dlist_delete(&request->node);
		settle_without_answer(request);
	}
}

/*
 * Publishes the response to a request, unless none is wanted or it comes too
 * late, and acknowledges the request; false, with nothing done, when the
 * connection has no room for it now.
 */
static bool
respond(Request *request, char type, RinqBytes failure_type, RinqBytes text,
		RinqBytes payload)
{
	RinqMessage msg;
	RinqMsgStatus status;
	char		expiration[24];
	char		id[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];
	bool		late = expired(request);

	if (!can_settle(request))
	{
		free_request(request);
		return true;
	}
	if (request->reply == REPLY_NONE || late)
	{
		if (late)
			rinq_count(rinq_peer.db, RINQ_REQUESTS_EXPIRED);
		(void) rinq_basic_ack(rinq_peer.conn, request->channel, request->tag, false);
		free_request(request);
		return true;
	}

	memset(&msg, 0, sizeof(msg));
	msg.type = rinq_bytes(&type, 1);
	msg.correlation_id = request->trace;
	if (request->deadline != 0)
	{
		msg.has_deadline = true;
		msg.deadline = request->deadline;
		snprintf(expiration, sizeof(expiration), INT64_FORMAT,
				 Min(MAX_EXPIRATION, Max(0, request->deadline - rinq_now_ms())));
		msg.expiration = rinq_bytes_str(expiration);
	}
	if (request->reply == REPLY_UNCORRELATED)
	{
		msg.reply_to = rinq_bytes_str("u");
		msg.ns = request->namespace;
		msg.command = request->command;
		msg.span_context = request->span_context;
		msg.traceparent = request->traceparent;
		msg.tracestate = request->tracestate;
	}
	if (type == 'f')
	{
		msg.target = failure_type;
		if (text.len > 0)
			msg.failure_message = text;
	}
	else if (type == 'e')
		payload = text;

	status = rinq_basic_publish(rinq_peer.conn, CHANNEL_PUBLISH, rinq_bytes_str("cmd.rsp"),
								request->id, false, &msg,
								payload.len > 0 ? payload.data : "", payload.len);
	if (status == RINQ_MSG_BACKLOG)
		return false;
	if (status != RINQ_MSG_OK && type != 'e')
	{
		/* a failure that does not fit into the headers; this surely does */
		return respond(request, 'e', failure_type,
					   rinq_bytes_str(rinq_msg_status_text(status)), payload);
	}
	if (status == RINQ_MSG_OK)
		rinq_count(rinq_peer.db, RINQ_RESPONSES_SENT);
	else
		ereport(LOG,
				(errmsg("rinq peer %s could not send a response: %s",
						rinq_peer.id_text, rinq_msg_status_text(status)),
				 errdetail_internal("Request %s, trace id %s.",
									rinq_text_for_display(request->id, id),
									rinq_text_for_display(request->trace, trace))));
	(void) rinq_basic_ack(rinq_peer.conn, request->channel, request->tag, false);
	free_request(request);
	return true;
}

/* false when the connection has no room for it */
static bool
respond_error(Request *request, const char *text)
{
	return respond(request, 'e', rinq_bytes(NULL, 0), rinq_bytes_str(text),
				   rinq_bytes(NULL, 0));
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
			pg_atomic_read_u32(&slot->state) == RINQ_SLOT_FREE)
		{
			hint = index - first_slot() + 1;
			return index;
		}
	}
	return RINQ_NO_SLOT;
}

/* takes the request out of its slot; the caller has to end it */
static Request *
leave_slot(uint32 index)
{
	Request    *request = in_slot[index];

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
enqueue(Request *request, RinqNamespace *ns, const RinqListener *listener)
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

	free_body(request);
	request->ns = ns;
	if (ns != NULL)
		ns->started++;
	slot->serial++;
	slot->work = request->work;
	slot->handler_owner = listener->owner;
	slot->owner = RINQ_NO_PROC;
	slot->role = listener->role;
	slot->wants_response = request->reply != REPLY_NONE;
	slot->redelivered = request->redelivered;
	slot->deduplicate = listener->deduplicate;
	if (request->work != RINQ_WORK_REQUEST)
		slot->redelivered = false;
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

/*
 * The same for a notification: those for one session are handled one after
 * another.
 */
static bool
dispatch_notification(Request *request)
{
	RinqSession *session = rinq_own_session_find(request->session);

	if (session == NULL)
	{
		settle_without_answer(request);
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

/* a notification was handled: the next one for its session may be */
static void
notification_ended(uint32 seq)
{
	RinqSession *session = rinq_own_session_find(seq);
	Request    *next;

	if (session == NULL)
		return;
	session->handling = false;
	if (dlist_is_empty(&session->notifications))
		return;
	next = dlist_container(Request, node, dlist_head_node(&session->notifications));
	dlist_delete(&next->node);
	if (!dispatch_notification(next))
		dlist_push_head(&backlog, &next->node);
}

/*
 * A session ends, and with it the notifications that wait for it.
 */
void
rinq_server_session_ends(RinqSession *session)
{
	while (!dlist_is_empty(&session->notifications))
	{
		Request    *request = dlist_container(Request, node,
											  dlist_head_node(&session->notifications));

		dlist_delete(&request->node);
		settle_without_answer(request);
	}
}

/*
 * Does with a request what can be done now; false when it has to wait.
 */
static bool
dispatch(Request *request)
{
	RinqNamespace *ns;

	if (!can_settle(request))
	{
		free_request(request);
		return true;
	}
	if (request->work == RINQ_WORK_RESPONSE)
		return enqueue(request, NULL, &request->own);
	if (request->work == RINQ_WORK_NOTIFICATION)
		return dispatch_notification(request);
	ns = rinq_topology_find(request->namespace);
	if (ns == NULL || ns->listener == NULL || expired(request))
	{
		settle_without_answer(request);
		return true;
	}
	if (ns->listener->problem != NULL)
	{
		note_problem(ns);
		return respond_error(request, "the handler cannot be run");
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
unhold(Request *request)
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
		Request    *request = dlist_container(Request, node, iter.cur);

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
		Request    *request = dlist_container(Request, node, dlist_tail_node(&held));

		unhold(request);
		dlist_push_head(&backlog, &request->node);
	}
}

static void
dispatch_backlog(void)
{
	while (!dlist_is_empty(&backlog))
	{
		Request    *request = dlist_container(Request, node, dlist_head_node(&backlog));

		dlist_delete(&request->node);
		if (!dispatch(request))
		{
			dlist_push_head(&backlog, &request->node);
			break;
		}
	}
}

/* copies bytes to where "p" points, which it advances */
static RinqBytes
keep(char **p, RinqBytes bytes)
{
	RinqBytes	copy = rinq_bytes(*p, bytes.len);

	if (bytes.data == NULL)
		return bytes;
	memcpy(*p, bytes.data, bytes.len);
	*p += bytes.len;
	return copy;
}

static bool
is_balanced(const RinqDelivery *delivery)
{
	return delivery->exchange.len == 7 &&
		memcmp(delivery->exchange.data, "cmd.bal", 7) == 0;
}

/* about sessions of this peer */
static bool
is_internal(const RinqDelivery *delivery)
{
	return delivery->message.ns.len == 5 && memcmp(delivery->message.ns.data, "_sess", 5) == 0 &&
		!is_balanced(delivery);
}

static Request *
make_request(const RinqDelivery *delivery, const RinqMessageId *id)
{
	const RinqMessage *msg = &delivery->message;
	RinqBytes	own_id = msg->message_id.len > 0 ? msg->message_id : delivery->routing_key;
	RinqBytes	trace = msg->correlation_id.len > 0 ? msg->correlation_id : own_id;
	char		source[RINQ_REF_SIZE];
	size_t		source_len = rinq_ref_format(&id->ref, source, sizeof(source));
	Request    *request;
	char	   *p;

	request = MemoryContextAllocZero(TopMemoryContext,
									 offsetof(Request, texts) + own_id.len +
									 msg->target.len + msg->failure_message.len +
									 source_len + trace.len + msg->ns.len +
									 msg->command.len + msg->span_context.len +
									 msg->traceparent.len + msg->tracestate.len);
	p = request->texts;
	request->id = keep(&p, own_id);
	request->source = keep(&p, rinq_bytes(source, source_len));
	request->trace = keep(&p, trace);
	request->namespace = keep(&p, msg->ns);
	request->command = keep(&p, msg->command);
	request->span_context = keep(&p, msg->span_context);
	request->traceparent = keep(&p, msg->traceparent);
	request->tracestate = keep(&p, msg->tracestate);
	request->failure_type = keep(&p, msg->target);
	request->message = keep(&p, msg->failure_message);
	request->channel = delivery->channel;
	request->epoch = epochs[delivery->channel];
	request->tag = delivery->delivery_tag;
	request->redelivered = delivery->redelivered;
	request->balanced = is_balanced(delivery);
	request->deadline = msg->has_deadline ? Max(msg->deadline, 1) : 0;
	if (msg->reply_to.len == 1 && msg->reply_to.data[0] == 'u')
		request->reply = REPLY_UNCORRELATED;
	else if (msg->reply_to.len > 0)
		request->reply = REPLY_CORRELATED;
	request->waits = true;
	if (!request->balanced)
	{
		unbalanced_waiting++;
		unbalanced_bytes += delivery->body.len;
	}
	if (delivery->body.len > 0)
	{
		char	   *body = MemoryContextAllocHuge(TopMemoryContext, delivery->body.len);

		memcpy(body, delivery->body.data, delivery->body.len);
		request->body = rinq_bytes(body, delivery->body.len);
	}
	return request;
}

static bool
too_many_wait(void)
{
	return unbalanced_waiting >= MAX_UNBALANCED ||
		unbalanced_bytes > (Size) rinq_payload_memory * 1024 * 1024;
}

/* why a delivery is no request, or NULL */
static const char *
request_problem(const RinqDelivery *delivery, RinqMessageId *id)
{
	const RinqMessage *msg = &delivery->message;

	if (delivery->malformed_headers)
		return "unreadable headers";
	if (!rinq_message_id_parse(msg->message_id.data, msg->message_id.len, id))
		return "missing or invalid message id";
	if (msg->ns.data == NULL)
		return "missing or invalid namespace header";
	if (msg->command.data == NULL)
		return "missing or invalid command header";
	if (msg->bad_span_context)
		return "invalid span context header";

	/* given back, it would come again at once, and for ever */
	if (is_balanced(delivery) &&
		(msg->ns.len != delivery->routing_key.len ||
		 memcmp(msg->ns.data, delivery->routing_key.data, msg->ns.len) != 0))
		return "namespace header differs from the routing key";
	if (delivery->oversize)
		return "payload exceeds \"rinq.max_payload\"";
	if (!is_balanced(delivery) && !is_internal(delivery) && too_many_wait())
		return "too many requests wait that were sent to all peers";
	if (rinq_peer_id_equal(&id->ref.session.peer, &rinq_peer.id))
	{
		RinqSession *session = rinq_own_session_find(id->ref.session.seq);

		if (session != NULL && id->ref.revision > session->revision)
			return "source is a revision of this peer's session that does not exist";
	}
	return NULL;
}

/* sends an answer that was made before; false when there is no room for it now */
static bool
respond_answered(Request *request)
{
	RinqBytes	none = rinq_bytes(NULL, 0);
	RinqBytes	answer = request->body;

	return respond(request, request->type, request->type == 'f' ? answer : none,
				   request->type == 'e' ? answer : none, request->type == 's' ? answer : none);
}

/*
 * Answers a request about a session of this peer.
 */
static void
serve_session(Request *request)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "rinq session request",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData answer;
	char		type;

	if (expired(request))
	{
		settle_without_answer(request);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
		return;
	}
	initStringInfo(&answer);
	MemoryContextSwitchTo(context);
	type = rinq_sess_serve(request->command, request->body, &answer);
	free_body(request);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	request->type = type;
	request->body = rinq_bytes(answer.data, answer.len);
	if (!respond_answered(request))
		dlist_push_tail(&answered, &request->node);
}

static void
send_answered(void)
{
	while (!dlist_is_empty(&answered))
	{
		Request    *request = dlist_container(Request, node, dlist_head_node(&answered));

		dlist_delete(&request->node);
		if (!respond_answered(request))
		{
			dlist_push_head(&answered, &request->node);
			break;
		}
	}
}

/*
 * A response to an asynchronous call has arrived, which goes to its session's
 * handler.  False when it makes no sense, or too much waits already.
 */
bool
rinq_server_response(const RinqDelivery *delivery, const RinqListener *handler)
{
	const RinqMessage *msg = &delivery->message;
	RinqMessageId id;
	char		type = msg->type.len == 1 ? msg->type.data[0] : '\0';
	Request    *request;

	if (delivery->oversize || delivery->malformed_headers || too_many_wait() ||
		(type != 's' && type != 'e' && type != 'f') || (type == 'f' && msg->target.len == 0) ||
		!rinq_message_id_parse(delivery->routing_key.data, delivery->routing_key.len, &id))
		return false;
	request = make_request(delivery, &id);
	request->work = RINQ_WORK_RESPONSE;
	request->deadline = 0;		/* the call is over */
	request->type = type;
	request->reply = REPLY_NONE;
	request->own.handler = MemoryContextStrdup(TopMemoryContext, handler->handler);
	request->own.role = handler->role;
	request->own.owner = handler->owner;
	if (!dlist_is_empty(&backlog) || !dispatch(request))
		dlist_push_tail(&backlog, &request->node);
	return true;
}

/*
 * A notification has arrived for a session that listens.  False when too much
 * waits already.
 */
bool
rinq_server_notification(const RinqDelivery *delivery, RinqSession *session,
						 const RinqListener *handler)
{
	RinqDelivery copy = *delivery;
	RinqSessionId target;
	RinqMessageId id;
	char		text[RINQ_SESSION_ID_SIZE];
	Request    *request;

	if (too_many_wait() ||
		!rinq_message_id_parse(delivery->message.message_id.data,
							   delivery->message.message_id.len, &id))
		return false;
	target.peer = rinq_peer.id;
	target.seq = session->seq;
	copy.message.command = delivery->message.type.data == NULL ? rinq_bytes("", 0) :
		delivery->message.type;
	copy.message.target = rinq_bytes(text, rinq_session_id_format(&target, text, sizeof(text)));
	copy.message.failure_message = delivery->message.constraint;
	request = make_request(&copy, &id);
	request->work = RINQ_WORK_NOTIFICATION;
	request->session = session->seq;
	request->deadline = 0;
	request->reply = REPLY_NONE;
	request->own.handler = MemoryContextStrdup(TopMemoryContext, handler->handler);
	request->own.role = handler->role;
	request->own.owner = handler->owner;
	if (!dlist_is_empty(&backlog) || !dispatch(request))
		dlist_push_tail(&backlog, &request->node);
	return true;
}

/*
 * A request has arrived.
 */
void
rinq_server_request(const RinqDelivery *delivery)
{
	RinqMessageId id;
	const char *problem = request_problem(delivery, &id);
	Request    *request;

	rinq_count(rinq_peer.db, RINQ_REQUESTS_RECEIVED);
	if (problem != NULL)
	{
		rinq_count(rinq_peer.db, RINQ_REQUESTS_REJECTED);
		rinq_peer_log_input(problem, delivery);
		(void) rinq_basic_reject(rinq_peer.conn, delivery->channel,
								 delivery->delivery_tag, false);
		return;
	}
	request = make_request(delivery, &id);
	if (is_internal(delivery))
	{
		serve_session(request);
		return;
	}
	note_expiry(request);
	if (!dlist_is_empty(&backlog) || !dispatch(request))
		dlist_push_tail(&backlog, &request->node);
}

/* answers the request in a slot; false when the connection has no room for it */
static bool
answer_from_slot(RinqSlot *slot, Request *request)
{
	RinqBytes	fields[RINQ_ANSWER_FIELDS];
	RinqBytes	type;
	RinqBytes	text;

	rinq_slot_read(slot, fields, RINQ_ANSWER_FIELDS);
	type = fields[RINQ_ANSWER_TYPE];
	text = fields[RINQ_ANSWER_TEXT];
	switch (slot->outcome)
	{
		case RINQ_OUTCOME_SUCCESS:
			return respond(request, 's', type, text, fields[RINQ_ANSWER_PAYLOAD]);
		case RINQ_OUTCOME_FAILURE:
			return respond(request, 'f', type, text, fields[RINQ_ANSWER_PAYLOAD]);
		case RINQ_OUTCOME_ERROR:
			return respond(request, 'e', type, text, fields[RINQ_ANSWER_PAYLOAD]);
		case RINQ_OUTCOME_EXPIRED:
			settle_without_answer(request);
			return true;
		default:
			give_back(request);
			return true;
	}
}

static bool
finish_slot(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.channel->slots[index];
	Request    *request = in_slot[index];
	RinqNamespace *ns;
	RinqWork	work;

	ns = request->ns;
	work = request->work;
	if (work == RINQ_WORK_REQUEST && !answer_from_slot(slot, request))
		return false;
	in_slot[index] = NULL;
	num_in_slots--;
	rinq_slot_free(rinq_peer.channel, index);
	if (work == RINQ_WORK_NOTIFICATION)
		notification_ended(request->session);
	if (work != RINQ_WORK_REQUEST)
		free_request(request);
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
rinq_server_answer(uint32 index, uint32 serial)
{
	RinqSlot   *slot;

	if (index < first_slot() || index >= rinq_peer.channel->num_slots)
		return;
	slot = &rinq_peer.channel->slots[index];
	if (in_slot[index] == NULL || slot->serial != serial ||
		pg_atomic_read_u32(&slot->state) != RINQ_SLOT_DONE)
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
rinq_server_configured(void)
{
	uint32		i;

	/* take back what waits for an executor that cannot be had */
	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		RinqNamespace *ns;
		Request    *request = in_slot[i];

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
			!respond_error(request, "the handler cannot be run"))
			settle_without_answer(request);
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
rinq_server_role_failed(Oid role)
{
	int			dropped = 0;
	uint32		i;

	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		Request    *request = in_slot[i];
		RinqSession *session;

		if (request == NULL || request->work == RINQ_WORK_REQUEST ||
			rinq_peer.channel->slots[i].role != role || !rinq_request_remove(rinq_peer.db, i))
			continue;
		(void) leave_slot(i);
		session = request->work == RINQ_WORK_NOTIFICATION ?
			rinq_own_session_find(request->session) : NULL;
		if (session != NULL)
		{
			rinq_server_session_ends(session);
			session->handling = false;
		}
		settle_without_answer(request);
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
		Request    *request = dlist_container(Request, node, iter.cur);

		if (!only_expired || expired(request) || !can_settle(request))
		{
			dlist_delete(&request->node);
			settle_without_answer(request);
		}
		else
			note_expiry(request);
	}
	dlist_foreach_modify(iter, &held)
	{
		Request    *request = dlist_container(Request, node, iter.cur);

		if (!only_expired || expired(request) || !can_settle(request))
		{
			unhold(request);
			settle_without_answer(request);
		}
		else
			note_expiry(request);
	}
	for (i = first_slot(); i < rinq_peer.channel->num_slots; i++)
	{
		Request    *request = in_slot[i];

		if (request == NULL)
			continue;
		if (only_expired && !expired(request) && can_settle(request))
		{
			note_expiry(request);
			continue;
		}
		if (!rinq_request_remove(rinq_peer.db, i))
			continue;
		settle_without_answer(leave_slot(i));
	}
	release_held();
}

/*
 * What has to be done in its time: requests whose deadline passed before an
 * executor took them, and what waits for room.  Returns when to look again,
 * in ms since the Unix epoch, or 0.
 */
int64
rinq_server_expire(void)
{
	int64		next;

	if (next_expiry != 0 && rinq_peer.now >= next_expiry)
		drop_queued(true);
	settle_delayed(false);
	if (unsent != NIL)
		send_unsent();
	send_answered();
	if (!dlist_is_empty(&backlog))
		dispatch_backlog();

	next = next_expiry;
	if (!dlist_is_empty(&backlog) || !dlist_is_empty(&delayed) ||
		!dlist_is_empty(&answered) || unsent != NIL)
		next = next == 0 ? rinq_peer.now + RETRY_INTERVAL :
			Min(next, rinq_peer.now + RETRY_INTERVAL);
	return next;
}

/*
 * Gives back everything that was not started, for an orderly stop.
 */
void
rinq_server_give_back_queued(void)
{
	settle_delayed(true);
	drop_queued(false);
}

/*
 * Are there requests in the line, or running?
 */
bool
rinq_server_busy(void)
{
	return num_in_slots > 0;
}

/*
 * A channel that requests come through was closed: the broker has taken back
 * all that was not acknowledged.  What runs goes on, for its effects; what
 * does not run yet is left to whoever gets it next.
 */
void
rinq_server_channel_lost(uint16 channel)
{
	epochs[channel]++;
	drop_queued(true);
}

/*
 * The same for all channels.
 */
void
rinq_server_connection_lost(void)
{
	int			i;

	for (i = 0; i <= RINQ_CONN_MAX_CHANNEL; i++)
		epochs[i]++;
	settle_delayed(true);
	drop_queued(true);
}
