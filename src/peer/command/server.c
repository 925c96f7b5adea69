/*-------------------------------------------------------------------------
 *
 * server.c
 *	  Calls in: checking the requests that arrive; and what else arrives for
 *	  executors, responses that go to a session's handler and notifications.
 *
 * How they wait for executors is dispatch.c's business, and what becomes of the
 * delivery is that of delivery.c.  Requests in the namespace "_sess" are answered here
 * and now (sess_server.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/dispatch.h"
#include "peer/command/respond.h"
#include "peer/command/server.h"
#include "peer/process.h"
#include "peer/session/sess_server.h"
#include "peer/session/sessions.h"
#include "utils/memutils.h"

/* copies bytes to where "p" points, which it advances */
static RinqBytes
copy_request_bytes(char **p, RinqBytes bytes)
{
	RinqBytes	copy = rinq_bytes(*p, bytes.len);

	if (bytes.data == NULL)
		return bytes;
	memcpy(*p, bytes.data, bytes.len);
	*p += bytes.len;
	return copy;
}

/*
 * Return the namespace whose queue, shared by all peers, a request was
 * delivered from; absent when it came through the queue of this peer.  How it
 * got into that queue does not matter: others bind queues, and move messages.
 */
static RinqBytes
queue_namespace(const RinqDelivery *delivery)
{
	RinqBytes	tag = delivery->consumer_tag;

	if (tag.len <= 4 || memcmp(tag.data, "cmd.", 4) != 0)
		return rinq_bytes(NULL, 0);
	return rinq_bytes(tag.data + 4, tag.len - 4);
}

static bool
is_balanced(const RinqDelivery *delivery)
{
	return queue_namespace(delivery).data != NULL;
}

/* Tell whether a request is about sessions of this peer. */
static bool
is_internal(const RinqDelivery *delivery)
{
	return rinq_bytes_are(delivery->message.ns, "_sess") && !is_balanced(delivery);
}

static RinqInbound *
make_request(const RinqDelivery *delivery, const RinqMessageId *id, RinqWork work)
{
	const RinqMessage *msg = &delivery->message;
	RinqBytes	own_id = msg->message_id.len > 0 ? msg->message_id : delivery->routing_key;
	RinqBytes	trace = msg->correlation_id.len > 0 ? msg->correlation_id : own_id;
	char		source[RINQ_REF_SIZE];
	size_t		source_len = rinq_ref_format(&id->ref, source, sizeof(source));
	RinqInbound *request;
	char	   *p;

	request = MemoryContextAllocZero(TopMemoryContext,
									 offsetof(RinqInbound, texts) + own_id.len +
									 msg->target.len + msg->failure_message.len +
									 source_len + trace.len + msg->ns.len +
									 msg->command.len + msg->span_context.len +
									 msg->traceparent.len + msg->tracestate.len);
	p = request->texts;
	request->work = work;
	request->id = copy_request_bytes(&p, own_id);
	request->source = copy_request_bytes(&p, rinq_bytes(source, source_len));
	request->trace = copy_request_bytes(&p, trace);
	request->namespace = copy_request_bytes(&p, msg->ns);
	request->command = copy_request_bytes(&p, msg->command);
	request->span_context = copy_request_bytes(&p, msg->span_context);
	request->traceparent = copy_request_bytes(&p, msg->traceparent);
	request->tracestate = copy_request_bytes(&p, msg->tracestate);
	request->failure_type = copy_request_bytes(&p, msg->target);
	request->message = copy_request_bytes(&p, msg->failure_message);
	request->channel = delivery->channel;
	request->tag = delivery->delivery_tag;
	request->redelivered = delivery->redelivered;
	request->balanced = is_balanced(delivery);
	request->deadline = msg->has_deadline ? rinq_clock_of_wall(Max(msg->deadline, 1)) : 0;
	if (msg->reply_to.len == 1 && msg->reply_to.data[0] == 'u')
		request->reply = RINQ_REPLY_UNCORRELATED;
	else if (msg->reply_to.len > 0)
		request->reply = RINQ_REPLY_CORRELATED;
	rinq_inbound_register(request, delivery->body.len);
	if (delivery->body.len > 0)
	{
		char	   *body = MemoryContextAllocHuge(TopMemoryContext, delivery->body.len);

		memcpy(body, delivery->body.data, delivery->body.len);
		request->body = rinq_bytes(body, delivery->body.len);
	}
	return request;
}

/* Say why a delivery is no request, or return NULL. */
static const char *
request_delivery_problem(const RinqDelivery *delivery, RinqMessageId *id)
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
	if (is_balanced(delivery) && !rinq_bytes_equal(msg->ns, queue_namespace(delivery)))
		return "namespace header differs from the queue's namespace";
	if (delivery->oversize)
		return "payload exceeds \"rinq.max_payload\"";
	if (is_internal(delivery) && rinq_inbound_too_many_unsent())
		return "too many responses wait for the broker to take them";
	if (!is_balanced(delivery) && !is_internal(delivery) && rinq_inbound_too_many(RINQ_WORK_REQUEST))
		return "too many requests wait that were sent to all peers";
	if (rinq_peer_id_equal(&id->ref.session.peer, &rinq_peer.id))
	{
		RinqSession *session = rinq_own_session_find(id->ref.session.seq);

		if (session != NULL && id->ref.revision > session->revision)
			return "source is a revision of this peer's session that does not exist";
	}
	return NULL;
}

/*
 * Answer a request about a session of this peer.
 */
static void
serve_session(RinqInbound * request)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "rinq session request",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData response;
	char		type;

	if (rinq_inbound_expired(request))
	{
		rinq_inbound_settle(request);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
		return;
	}
	initStringInfo(&response);
	MemoryContextSwitchTo(context);
	type = rinq_sess_serve(request->command, request->body, &response);
	rinq_inbound_free_body(request);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	request->type = type;
	request->body = rinq_bytes(response.data, response.len);
	rinq_inbound_respond_soon(request);
}

/* Have a handler run for what no caller waits for. */
static void
add_one_way(RinqInbound * request, const RinqListener *handler)
{
	request->deadline = 0;		/* a response is to a call that is over */
	request->reply = RINQ_REPLY_NONE;
	request->own.handler = MemoryContextStrdup(TopMemoryContext, handler->handler);
	request->own.role = handler->role;
	request->own.owner = handler->owner;
	rinq_dispatch_add(request);
}

/*
 * Have a response handled by the function of the session that it is for.  False
 * when it makes no sense, or too much waits already.
 */
static bool
handle_response(const RinqDelivery *delivery)
{
	const RinqMessage *msg = &delivery->message;
	RinqMessageId id;
	RinqSession *session;
	char		type = msg->type.len == 1 ? msg->type.data[0] : '\0';
	RinqInbound *request;

	if (delivery->oversize || delivery->malformed_headers || rinq_inbound_too_many(RINQ_WORK_RESPONSE) ||
		(type != 's' && type != 'e' && type != 'f') || (type == 'f' && msg->target.len == 0) ||
		!rinq_message_id_parse(delivery->routing_key.data, delivery->routing_key.len, &id) ||
		!rinq_peer_id_equal(&id.ref.session.peer, &rinq_peer.id))
		return false;
	session = rinq_own_session_find(id.ref.session.seq);
	if (session == NULL || session->on_response == NULL)
		return false;
	request = make_request(delivery, &id, RINQ_WORK_RESPONSE);
	request->type = type;
	add_one_way(request, session->on_response);
	return true;
}

/*
 * Take a response to an asynchronous call, which goes to its session's handler.
 */
void
rinq_server_response(const RinqDelivery *delivery)
{
	if (!handle_response(delivery))
	{
		rinq_count(rinq_peer.db, RINQ_RESPONSES_DROPPED);
		(void) rinq_basic_reject(rinq_peer.conn, delivery->channel,
								 delivery->delivery_tag, false);
		return;
	}
	rinq_count(rinq_peer.db, RINQ_RESPONSES_RECEIVED);
	(void) rinq_basic_ack(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
}

/*
 * Take a notification for a session that listens.  False when too much
 * waits already.
 */
bool
rinq_server_notification(const RinqDelivery *delivery, RinqSession * session,
						 const RinqListener *handler, RinqReceiveMode mode)
{
	RinqDelivery copy = *delivery;
	RinqSessionId target;
	RinqMessageId id;
	char		text[RINQ_SESSION_ID_SIZE];
	RinqInbound *request;

	if (rinq_inbound_too_many(RINQ_WORK_NOTIFICATION) ||
		!rinq_message_id_parse(delivery->message.message_id.data,
							   delivery->message.message_id.len, &id))
		return false;
	target.peer = rinq_peer.id;
	target.seq = session->seq;
	copy.message.command = delivery->message.type.data == NULL ? rinq_bytes("", 0) :
		delivery->message.type;
	copy.message.target = rinq_bytes(text, rinq_session_id_format(&target, text, sizeof(text)));
	copy.message.failure_message = delivery->message.constraint;
	request = make_request(&copy, &id, RINQ_WORK_NOTIFICATION);
	request->session = session->seq;
	request->session_serial = session->serial;
	if (mode == RINQ_RECEIVE_CHANNEL)
		request->type = (char) mode;
	add_one_way(request, handler);
	return true;
}

/*
 * Take a request that has arrived.
 */
void
rinq_server_request(const RinqDelivery *delivery)
{
	RinqMessageId id;
	const char *problem = request_delivery_problem(delivery, &id);
	RinqInbound *request;

	rinq_count(rinq_peer.db, RINQ_REQUESTS_RECEIVED);
	if (problem != NULL)
	{
		rinq_count(rinq_peer.db, RINQ_REQUESTS_REJECTED);
		rinq_peer_log_input(problem, delivery);
		(void) rinq_basic_reject(rinq_peer.conn, delivery->channel,
								 delivery->delivery_tag, false);
		return;
	}
	request = make_request(delivery, &id, RINQ_WORK_REQUEST);
	if (is_internal(delivery))
	{
		serve_session(request);
		return;
	}
	rinq_dispatch_add(request);
}
