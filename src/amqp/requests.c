/*-------------------------------------------------------------------------
 *
 * requests.c
 *	  Requests on channels, their replies, and channels closed by the broker.
 *
 * A request is sent without waiting for the reply to the one before; the broker
 * answers in order per channel, so a queue of what was asked is all it takes to
 * tell which request a reply belongs to.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "amqp/connection_internal.h"

#define FIFO_INITIAL	16

/* beside the names: flags, lengths, and both arguments of queue.declare */
#define ARGS_FIXED		64

/* By RinqRequestKind. */
static const struct
{
	amqp_method_number_t request;
	amqp_method_number_t reply;
}			request_methods[] =

{
	[RINQ_REQ_CHANNEL_OPEN] = {AMQP_CHANNEL_OPEN_METHOD, AMQP_CHANNEL_OPEN_OK_METHOD},
	[RINQ_REQ_CHANNEL_CLOSE] = {AMQP_CHANNEL_CLOSE_METHOD, AMQP_CHANNEL_CLOSE_OK_METHOD},
	[RINQ_REQ_EXCHANGE_DECLARE] = {AMQP_EXCHANGE_DECLARE_METHOD, AMQP_EXCHANGE_DECLARE_OK_METHOD},
	[RINQ_REQ_QUEUE_DECLARE] = {AMQP_QUEUE_DECLARE_METHOD, AMQP_QUEUE_DECLARE_OK_METHOD},
	[RINQ_REQ_QUEUE_BIND] = {AMQP_QUEUE_BIND_METHOD, AMQP_QUEUE_BIND_OK_METHOD},
	[RINQ_REQ_QUEUE_UNBIND] = {AMQP_QUEUE_UNBIND_METHOD, AMQP_QUEUE_UNBIND_OK_METHOD},
	[RINQ_REQ_QUEUE_DELETE] = {AMQP_QUEUE_DELETE_METHOD, AMQP_QUEUE_DELETE_OK_METHOD},
	[RINQ_REQ_BASIC_QOS] = {AMQP_BASIC_QOS_METHOD, AMQP_BASIC_QOS_OK_METHOD},
	[RINQ_REQ_BASIC_CONSUME] = {AMQP_BASIC_CONSUME_METHOD, AMQP_BASIC_CONSUME_OK_METHOD},
	[RINQ_REQ_BASIC_CANCEL] = {AMQP_BASIC_CANCEL_METHOD, AMQP_BASIC_CANCEL_OK_METHOD},
	[RINQ_REQ_CONFIRM_SELECT] = {AMQP_CONFIRM_SELECT_METHOD, AMQP_CONFIRM_SELECT_OK_METHOD},
};

/* ---------------- the queue of unanswered requests ---------------- */

static inline RinqPending *
oldest_pending(const RinqAmqpChannel *ch)
{
	return ch->fifo_count > 0 ? &ch->fifo[ch->fifo_head] : NULL;
}

/* Make room for one more. */
static bool
fifo_reserve(RinqAmqpChannel *ch)
{
	size_t		cap;
	RinqPending *grown;

	if (ch->fifo_count < ch->fifo_cap)
		return true;
	cap = ch->fifo_cap > 0 ? ch->fifo_cap * 2 : FIFO_INITIAL;
	grown = malloc(cap * sizeof(*grown));
	if (grown == NULL)
		return false;

	/* it is full: all places move, in order */
	RINQ_ASSERT(ch->fifo_count == ch->fifo_cap);
	for (size_t i = 0; i < ch->fifo_cap; i++)
		grown[i] = ch->fifo[(ch->fifo_head + i) % ch->fifo_cap];
	free(ch->fifo);
	ch->fifo = grown;
	ch->fifo_cap = cap;
	ch->fifo_head = 0;
	return true;
}

static void
fifo_push(RinqAmqpChannel *ch, RinqRequestKind kind, uint64_t cookie)
{
	RinqPending *slot = &ch->fifo[(ch->fifo_head + ch->fifo_count) % ch->fifo_cap];

	RINQ_ASSERT(ch->fifo_count < ch->fifo_cap && ch->fifo_head < ch->fifo_cap);
	slot->kind = kind;
	slot->cookie = cookie;
	ch->fifo_count++;
}

static void
fifo_pop(RinqAmqpChannel *ch)
{
	RINQ_ASSERT(ch->fifo_count > 0);
	ch->fifo_head = (ch->fifo_head + 1) % ch->fifo_cap;
	ch->fifo_count--;
}

static void
fifo_clear(RinqAmqpChannel *ch)
{
	ch->fifo_head = 0;
	ch->fifo_count = 0;
}

void
rinq_amqp_channel_free(RinqAmqpChannel *ch)
{
	free(ch->fifo);
	free(ch->content.props);
	free(ch->content.body);
	memset(ch, 0, sizeof(*ch));
}

/* ---------------- sending ---------------- */

static RinqMsgStatus
check_channel_number(const RinqConn *conn, uint16_t channel)
{
	if (conn->state != RINQ_CONN_OPEN)
		return RINQ_MSG_NOT_OPEN;
	if (channel == 0 || channel > conn->channel_max)
		return RINQ_MSG_BAD_CHANNEL;
	return RINQ_MSG_OK;
}

/* Send a request, whose texts fit into max_args, on an open channel. */
static RinqMsgStatus
send_method_request(RinqConn *conn, uint16_t channel, RinqRequestKind kind, void *method,
					size_t max_args, uint64_t cookie)
{
	RinqMsgStatus status = check_channel_number(conn, channel);
	RinqAmqpChannel *ch;

	if (status != RINQ_MSG_OK)
		return status;
	ch = &conn->channels[channel];
	if (ch->state != RINQ_CHANNEL_OPEN)
		return RINQ_MSG_NOT_OPEN;
	if (!fifo_reserve(ch) ||
		!rinq_out_method(conn, channel, request_methods[kind].request, method, max_args))
		return RINQ_MSG_NO_MEMORY;
	fifo_push(ch, kind, cookie);
	return RINQ_MSG_OK;
}

static inline bool
too_long(RinqBytes name)
{
	return name.len > RINQ_SHORT_STRING_MAX;
}

bool
rinq_amqp_channel_usable(const RinqConn *conn, uint16_t channel)
{
	return check_channel_number(conn, channel) == RINQ_MSG_OK &&
		conn->channels[channel].state == RINQ_CHANNEL_OPEN;
}

size_t
rinq_amqp_channel_requests(const RinqConn *conn, uint16_t channel)
{
	return channel <= RINQ_CONN_MAX_CHANNEL ? conn->channels[channel].fifo_count : 0;
}

RinqMsgStatus
rinq_amqp_channel_open(RinqConn *conn, uint16_t channel, uint64_t cookie)
{
	RinqMsgStatus status = check_channel_number(conn, channel);
	amqp_channel_open_t m = {.out_of_band = RINQ_NO_AMQP_BYTES};
	RinqAmqpChannel *ch;

	if (status != RINQ_MSG_OK)
		return status;
	ch = &conn->channels[channel];
	if (ch->state != RINQ_CHANNEL_CLOSED)
		return RINQ_MSG_NOT_OPEN;	/* not ready to be opened (again) */
	ch->state = RINQ_CHANNEL_OPEN;
	status = send_method_request(conn, channel, RINQ_REQ_CHANNEL_OPEN, &m, 1, cookie);
	if (status != RINQ_MSG_OK)
		ch->state = RINQ_CHANNEL_CLOSED;
	return status;
}

RinqMsgStatus
rinq_amqp_channel_close(RinqConn *conn, uint16_t channel, uint64_t cookie)
{
	amqp_channel_close_t m;
	RinqMsgStatus status;

	m.reply_code = 200;
	m.reply_text = rinq_to_amqp(rinq_bytes_str("goodbye"));
	m.class_id = 0;
	m.method_id = 0;
	status = send_method_request(conn, channel, RINQ_REQ_CHANNEL_CLOSE, &m, 32, cookie);
	if (status == RINQ_MSG_OK)
	{
		conn->channels[channel].state = RINQ_CHANNEL_CLOSING;

		/* only the phase: a callback may still be using the body */
		conn->channels[channel].content.phase = RINQ_CONTENT_NONE;
	}
	return status;
}

RinqMsgStatus
rinq_exchange_declare(RinqConn *conn, uint16_t channel, RinqBytes name,
					  RinqBytes kind, bool passive, uint64_t cookie)
{
	amqp_exchange_declare_t m = {0};

	if (too_long(name) || too_long(kind))
		return RINQ_MSG_STRING_TOO_LONG;
	m.exchange = rinq_to_amqp(name);
	m.type = rinq_to_amqp(kind);
	m.passive = passive;
	m.arguments = RINQ_NO_AMQP_TABLE;
	return send_method_request(conn, channel, RINQ_REQ_EXCHANGE_DECLARE, &m,
							   ARGS_FIXED + name.len + kind.len, cookie);
}

RinqMsgStatus
rinq_queue_declare(RinqConn *conn, uint16_t channel, RinqBytes name, bool durable,
				   bool exclusive, int max_priority, const char *type,
				   uint64_t cookie)
{
	amqp_queue_declare_t m = {0};
	amqp_table_entry_t entries[2];

	if (too_long(name))
		return RINQ_MSG_STRING_TOO_LONG;
	m.queue = rinq_to_amqp(name);
	m.durable = durable;
	m.exclusive = exclusive;
	m.arguments.num_entries = 0;
	m.arguments.entries = entries;
	if (max_priority > 0)
	{
		amqp_table_entry_t *entry = &entries[m.arguments.num_entries++];

		entry->key = rinq_to_amqp(rinq_bytes_str("x-max-priority"));
		entry->value.kind = AMQP_FIELD_KIND_I32;
		entry->value.value.i32 = max_priority;
	}
	if (type != NULL)
	{
		amqp_table_entry_t *entry = &entries[m.arguments.num_entries++];

		entry->key = rinq_to_amqp(rinq_bytes_str("x-queue-type"));
		entry->value.kind = AMQP_FIELD_KIND_UTF8;
		entry->value.value.bytes = rinq_to_amqp(rinq_bytes_str(type));
	}
	return send_method_request(conn, channel, RINQ_REQ_QUEUE_DECLARE, &m,
							   ARGS_FIXED + name.len, cookie);
}

RinqMsgStatus
rinq_queue_bind(RinqConn *conn, uint16_t channel, RinqBytes queue,
				RinqBytes exchange, RinqBytes routing_key, uint64_t cookie)
{
	amqp_queue_bind_t m = {0};

	if (too_long(queue) || too_long(exchange) || too_long(routing_key))
		return RINQ_MSG_STRING_TOO_LONG;
	m.queue = rinq_to_amqp(queue);
	m.exchange = rinq_to_amqp(exchange);
	m.routing_key = rinq_to_amqp(routing_key);
	m.arguments = RINQ_NO_AMQP_TABLE;
	return send_method_request(conn, channel, RINQ_REQ_QUEUE_BIND, &m,
							   ARGS_FIXED + queue.len + exchange.len + routing_key.len,
							   cookie);
}

RinqMsgStatus
rinq_queue_unbind(RinqConn *conn, uint16_t channel, RinqBytes queue,
				  RinqBytes exchange, RinqBytes routing_key, uint64_t cookie)
{
	amqp_queue_unbind_t m = {0};

	if (too_long(queue) || too_long(exchange) || too_long(routing_key))
		return RINQ_MSG_STRING_TOO_LONG;
	m.queue = rinq_to_amqp(queue);
	m.exchange = rinq_to_amqp(exchange);
	m.routing_key = rinq_to_amqp(routing_key);
	m.arguments = RINQ_NO_AMQP_TABLE;
	return send_method_request(conn, channel, RINQ_REQ_QUEUE_UNBIND, &m,
							   ARGS_FIXED + queue.len + exchange.len + routing_key.len,
							   cookie);
}

RinqMsgStatus
rinq_queue_delete(RinqConn *conn, uint16_t channel, RinqBytes queue, uint64_t cookie)
{
	amqp_queue_delete_t m = {0};

	if (too_long(queue))
		return RINQ_MSG_STRING_TOO_LONG;
	m.queue = rinq_to_amqp(queue);
	return send_method_request(conn, channel, RINQ_REQ_QUEUE_DELETE, &m,
							   ARGS_FIXED + queue.len, cookie);
}

RinqMsgStatus
rinq_basic_qos(RinqConn *conn, uint16_t channel, uint16_t count, bool global,
			   uint64_t cookie)
{
	amqp_basic_qos_t m = {0};

	m.prefetch_count = count;
	m.global = global;

	return send_method_request(conn, channel, RINQ_REQ_BASIC_QOS, &m, ARGS_FIXED, cookie);
}

RinqMsgStatus
rinq_basic_consume(RinqConn *conn, uint16_t channel, RinqBytes queue,
				   RinqBytes consumer_tag, bool exclusive, uint64_t cookie)
{
	amqp_basic_consume_t m = {0};

	if (too_long(queue) || too_long(consumer_tag))
		return RINQ_MSG_STRING_TOO_LONG;
	m.queue = rinq_to_amqp(queue);
	m.consumer_tag = rinq_to_amqp(consumer_tag);
	m.exclusive = exclusive;
	m.arguments = RINQ_NO_AMQP_TABLE;
	return send_method_request(conn, channel, RINQ_REQ_BASIC_CONSUME, &m,
							   ARGS_FIXED + queue.len + consumer_tag.len, cookie);
}

RinqMsgStatus
rinq_basic_cancel(RinqConn *conn, uint16_t channel, RinqBytes consumer_tag,
				  uint64_t cookie)
{
	amqp_basic_cancel_t m = {0};

	if (too_long(consumer_tag))
		return RINQ_MSG_STRING_TOO_LONG;
	m.consumer_tag = rinq_to_amqp(consumer_tag);
	return send_method_request(conn, channel, RINQ_REQ_BASIC_CANCEL, &m,
							   ARGS_FIXED + consumer_tag.len, cookie);
}

RinqMsgStatus
rinq_confirm_select(RinqConn *conn, uint16_t channel, uint64_t cookie)
{
	amqp_confirm_select_t m = {0};

	return send_method_request(conn, channel, RINQ_REQ_CONFIRM_SELECT, &m, ARGS_FIXED, cookie);
}

/* ---------------- receiving ---------------- */

/* Read what a reply tells besides "done".  False if it is malformed. */
static bool
read_reply(RinqConn *conn, amqp_method_number_t id, RinqBytes args, RinqReply *reply)
{
	void	   *m;

	if (id != AMQP_QUEUE_DECLARE_OK_METHOD && id != AMQP_QUEUE_DELETE_OK_METHOD)
		return true;
	m = rinq_decode_method(conn, id, args);
	if (m == NULL)
		return false;
	if (id == AMQP_QUEUE_DECLARE_OK_METHOD)
	{
		reply->message_count = ((amqp_queue_declare_ok_t *) m)->message_count;
		reply->consumer_count = ((amqp_queue_declare_ok_t *) m)->consumer_count;
	}
	else
		reply->message_count = ((amqp_queue_delete_ok_t *) m)->message_count;
	return true;
}

/*
 * Take a method that answers the oldest request of the channel.  False if it
 * does not; then it is no reply, or not one that was due.
 */
bool
rinq_amqp_channel_reply(RinqConn *conn, uint16_t channel, amqp_method_number_t id,
						RinqBytes args)
{
	RinqAmqpChannel *ch = &conn->channels[channel];
	RinqPending *pending = oldest_pending(ch);
	RinqReply	reply = {0};

	if (id == AMQP_CHANNEL_CLOSE_OK_METHOD && ch->stray_close_ok)
	{
		ch->stray_close_ok = false;
		return true;
	}
	if (pending == NULL || request_methods[pending->kind].reply != id ||
		ch->content.phase != RINQ_CONTENT_NONE)
		return false;

	reply.channel = channel;
	reply.kind = pending->kind;
	reply.cookie = pending->cookie;
	fifo_pop(ch);
	if (!read_reply(conn, id, args, &reply))
		return true;
	if (reply.kind == RINQ_REQ_CHANNEL_CLOSE)
		ch->state = RINQ_CHANNEL_CLOSED;
	else if (reply.kind == RINQ_REQ_CHANNEL_OPEN)
		ch->stray_close_ok = false; /* it would have come before */
	if (conn->cb.on_reply != NULL)
		conn->cb.on_reply(conn->cb_arg, &reply);
	return true;
}

/*
 * Handle the broker's closing of a channel.  It handles requests in order, so
 * if the method it blames is that of the oldest unanswered request, that
 * request it is; otherwise it was something that has no reply, like a publish.
 */
void
rinq_amqp_channel_closed_by_broker(RinqConn *conn, uint16_t channel, RinqBytes args)
{
	RinqAmqpChannel *ch = &conn->channels[channel];
	RinqPending *pending = oldest_pending(ch);
	amqp_channel_close_t *m = rinq_decode_method(conn, AMQP_CHANNEL_CLOSE_METHOD, args);
	amqp_channel_close_ok_t ok = {.dummy = 0};
	RinqAmqpChannelClosed info = {0};
	char		text[RINQ_TEXT_SIZE];
	amqp_method_number_t culprit;

	if (m == NULL)
		return;
	culprit = (amqp_method_number_t) m->class_id << 16 | m->method_id;
	rinq_conn_clean_text(conn, rinq_from_amqp(m->reply_text), text, sizeof(text));
	info.channel = channel;
	info.code = m->reply_code;
	info.text = text;
	info.method = rinq_method_name(culprit);
	if (pending != NULL && request_methods[pending->kind].request == culprit)
	{
		info.request_failed = true;
		info.kind = pending->kind;
		info.cookie = pending->cookie;
	}

	ch->stray_close_ok = ch->state == RINQ_CHANNEL_CLOSING;
	ch->state = RINQ_CHANNEL_CLOSED;
	fifo_clear(ch);
	rinq_content_reset(&ch->content);
	if (!rinq_out_method(conn, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok, 1))
	{
		rinq_conn_no_memory(conn);
		return;
	}
	if (conn->cb.on_channel_closed != NULL)
		conn->cb.on_channel_closed(conn->cb_arg, &info);
}
