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
#include "protocol/response.h"
#include "utils/memutils.h"

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

/*
 * Fill in the fields that all kinds of work have, but for handler and payload;
 * "source" is room for one of them.
 */
static void
put_common_fields(RinqFields *fields, const RinqDelivery *delivery, const RinqMessageId *id,
				  char source[RINQ_REF_SIZE])
{
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	const RinqMessage *msg = &delivery->message;
	RinqBytes	own_id = msg->message_id.len > 0 ? msg->message_id : delivery->routing_key;

	rinq_put_bytes(fields, common->id, own_id);
	rinq_put_bytes(fields, common->source,
				   rinq_bytes(source, rinq_ref_format(&id->ref, source, RINQ_REF_SIZE)));
	rinq_put_bytes(fields, common->namespace, msg->ns);
	rinq_put_bytes(fields, common->trace,
				   msg->correlation_id.len > 0 ? msg->correlation_id : own_id);
	rinq_put_bytes(fields, common->span, msg->span_context);
	rinq_put_bytes(fields, common->traceparent, msg->traceparent);
	rinq_put_bytes(fields, common->tracestate, msg->tracestate);
}

/*
 * Take note of a delivery, whose body will be one of the fields.
 */
static RinqInbound *
make_inbound(const RinqDelivery *delivery, RinqWork work, const RinqFields *fields,
			 int body_field)
{
	const RinqMessage *msg = &delivery->message;
	RinqInbound *request;

	Assert(fields->kind == rinq_work_kind(work));
	request = MemoryContextAllocZero(TopMemoryContext,
									 offsetof(RinqInbound, texts) + rinq_fields_bytes(fields));
	request->work = work;
	request->fields = *fields;
	(void) rinq_fields_move(&request->fields, request->texts);
	request->body_field = body_field;
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

static RinqInbound *
make_request(const RinqDelivery *delivery, const RinqMessageId *id)
{
	RinqFields	fields;
	char		source[RINQ_REF_SIZE];

	rinq_fields_init(&fields, RINQ_KIND_REQUEST);
	put_common_fields(&fields, delivery, id, source);
	rinq_put_bytes(&fields, RINQ_REQUEST_COMMAND, delivery->message.command);
	rinq_put_uint32(&fields, RINQ_REQUEST_ATTEMPT, 1);
	rinq_put_int64(&fields, RINQ_REQUEST_FIRST_RECEIVED, rinq_timestamp_of_ms(rinq_wall_ms()));
	return make_inbound(delivery, RINQ_WORK_REQUEST, &fields, RINQ_REQUEST_PAYLOAD);
}

static RinqInbound *
make_response(const RinqDelivery *delivery, const RinqMessageId *id, const char *outcome)
{
	const RinqMessage *msg = &delivery->message;
	RinqFields	fields;
	char		source[RINQ_REF_SIZE];

	rinq_fields_init(&fields, RINQ_KIND_RESPONSE);
	put_common_fields(&fields, delivery, id, source);
	rinq_put_bytes(&fields, RINQ_RESPONSE_COMMAND, msg->command);
	rinq_put_bytes(&fields, RINQ_RESPONSE_OUTCOME, rinq_bytes_str(outcome));
	rinq_put_bytes(&fields, RINQ_RESPONSE_FAILURE_TYPE, msg->target);
	if (strcmp(outcome, RINQ_RESPONSE_IS_ERROR) == 0)
		return make_inbound(delivery, RINQ_WORK_RESPONSE, &fields, RINQ_RESPONSE_MESSAGE);
	rinq_put_bytes(&fields, RINQ_RESPONSE_MESSAGE, msg->failure_message);
	return make_inbound(delivery, RINQ_WORK_RESPONSE, &fields, RINQ_RESPONSE_PAYLOAD);
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
	type = rinq_sess_serve(rinq_get_bytes(&request->fields, RINQ_REQUEST_COMMAND), request->body,
						   &response);
	rinq_inbound_free_body(request);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	request->response_type = type;
	request->body = rinq_bytes(response.data, response.len);
	rinq_inbound_respond_soon(request);
}

/*
 * Tell what a response says; NULL when that makes no sense.
 */
const char *
rinq_server_outcome(const RinqMessage *msg)
{
	if (msg->type.len != 1)
		return NULL;
	switch (msg->type.data[0])
	{
		case 's':
			return RINQ_RESPONSE_IS_SUCCESS;
		case 'f':
			return msg->target.len > 0 ? RINQ_RESPONSE_IS_FAILURE : NULL;
		case 'e':
			return RINQ_RESPONSE_IS_ERROR;
		default:
			return NULL;
	}
}

/*
 * Take a question about a session of the mailbox, NULL when it makes no sense,
 * and was rejected.
 */
RinqInbound *
rinq_server_mailbox_request(const RinqDelivery *delivery)
{
	RinqMessageId id;

	rinq_count(rinq_peer.db, RINQ_REQUESTS_RECEIVED);
	if (request_delivery_problem(delivery, &id) == NULL && rinq_bytes_are(delivery->message.ns, "_sess"))
		return make_request(delivery, &id);
	rinq_count(rinq_peer.db, RINQ_REQUESTS_REJECTED);
	(void) rinq_basic_reject(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
	return NULL;
}

/*
 * Respond to a question about a session of the mailbox, in this type and with
 * these bytes.
 */
void
rinq_server_mailbox_respond(RinqInbound * request, char type, RinqBytes response)
{
	char	   *body = MemoryContextAllocHuge(TopMemoryContext, response.len + 1);

	if (response.len > 0)
		memcpy(body, response.data, response.len);
	rinq_inbound_free_body(request);
	request->response_type = type;
	request->body = rinq_bytes(body, response.len);
	rinq_inbound_respond_soon(request);
}

/* Have a handler run for what no caller waits for. */
static void
add_one_way(RinqInbound * request, const RinqListener *handler)
{
	request->deadline = 0;		/* a response is to a call that is over */
	request->reply = RINQ_REPLY_NONE;
	if (handler->handler != NULL && request->subscriber == NULL)
		request->own.handler = MemoryContextStrdup(TopMemoryContext, handler->handler);
	if (handler->channel != NULL)
		request->own.channel = MemoryContextStrdup(TopMemoryContext, handler->channel);
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
	const char *outcome = rinq_server_outcome(&delivery->message);
	RinqMessageId id;
	RinqSession *session;

	if (delivery->oversize || delivery->malformed_headers ||
		rinq_inbound_too_many(RINQ_WORK_RESPONSE) || outcome == NULL ||
		!rinq_message_id_parse(delivery->routing_key.data, delivery->routing_key.len, &id) ||
		!rinq_peer_id_equal(&id.ref.session.peer, &rinq_peer.id))
		return false;
	session = rinq_own_session_find(id.ref.session.seq);
	if (session == NULL || session->on_response == NULL)
		return false;
	add_one_way(make_response(delivery, &id, outcome), session->on_response);
	return true;
}

/*
 * Have the handler of a durable call run, as a role, whose outcome is in its
 * row.  "ended" is told when that is over, whatever has become of it.
 */
void
rinq_server_stored_outcome(const RinqMessageId *id, Oid role, bool redelivered,
						   void (*ended) (RinqInbound * request))
{
	RinqFields	fields;
	RinqInbound *request;
	char		text[RINQ_MESSAGE_ID_SIZE];

	rinq_fields_init(&fields, RINQ_KIND_RESPONSE);
	rinq_put_bytes(&fields, RINQ_RESPONSE_ID,
				   rinq_bytes(text, rinq_message_id_format(id, text, sizeof(text))));
	rinq_put_flag(&fields, RINQ_RESPONSE_STORED, true);
	request = MemoryContextAllocZero(TopMemoryContext,
									 offsetof(RinqInbound, texts) + rinq_fields_bytes(&fields));
	request->work = RINQ_WORK_RESPONSE;
	request->fields = fields;
	(void) rinq_fields_move(&request->fields, request->texts);
	request->body_field = RINQ_RESPONSE_PAYLOAD;
	request->channel = CHANNEL_MAILBOX;
	request->redelivered = redelivered;
	request->id = *id;
	request->ended = ended;
	request->own.role = role;
	rinq_inbound_register(request, 0);
	rinq_dispatch_add(request);
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
 * Fill in the fields of a notification that has arrived for a session; those that
 * are not in the delivery point into "texts".  False when it has no valid id.
 */
bool
rinq_server_notification_fields(RinqFields *fields, const RinqDelivery *delivery,
								const RinqSession * session, RinqNotificationTexts *texts)
{
	const RinqMessage *msg = &delivery->message;
	RinqSessionId target;
	RinqMessageId id;

	if (!rinq_message_id_parse(msg->message_id.data, msg->message_id.len, &id))
		return false;
	target.peer = rinq_peer.id;
	target.seq = session->seq;
	rinq_fields_init(fields, RINQ_KIND_NOTIFICATION);
	put_common_fields(fields, delivery, &id, texts->source);
	rinq_put_bytes(fields, RINQ_NOTIFICATION_TYPE,
				   msg->type.data == NULL ? rinq_bytes("", 0) : msg->type);
	rinq_put_bytes(fields, RINQ_NOTIFICATION_TARGET,
				   rinq_bytes(texts->target, rinq_session_id_format(&target, texts->target,
																	sizeof(texts->target))));
	rinq_put_bytes(fields, RINQ_NOTIFICATION_CONSTRAINT, msg->constraint);
	rinq_put_uint32(fields, RINQ_NOTIFICATION_ATTEMPT, 1);
	rinq_put_int64(fields, RINQ_NOTIFICATION_FIRST_RECEIVED, rinq_timestamp_of_ms(rinq_wall_ms()));
	return true;
}

/*
 * Take a notification for a session that listens, with a handler or a channel, or
 * for a durable subscription, if that is what it listens for.  False when too much
 * waits already.
 */
bool
rinq_server_notification(const RinqDelivery *delivery, const RinqSession * session,
						 const RinqListener *handler, RinqSubscriber * subscriber)
{
	RinqNotificationTexts texts;
	RinqFields	fields;
	RinqInbound *request;

	if (rinq_inbound_too_many(RINQ_WORK_NOTIFICATION) ||
		!rinq_server_notification_fields(&fields, delivery, session, &texts))
		return false;
	if (subscriber != NULL)
	{
		rinq_put_bytes(&fields, RINQ_NOTIFICATION_SUBSCRIPTION, rinq_bytes_str(subscriber->name));
		rinq_subscriber_use(subscriber);
	}
	request = make_inbound(delivery, RINQ_WORK_NOTIFICATION, &fields,
						   RINQ_NOTIFICATION_PAYLOAD);
	request->subscriber = subscriber;
	request->session = session->seq;
	request->session_serial = session->serial;
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
	request = make_request(delivery, &id);
	if (is_internal(delivery))
	{
		serve_session(request);
		return;
	}
	rinq_dispatch_add(request);
}
