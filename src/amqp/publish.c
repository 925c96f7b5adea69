/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  Sending messages and settling deliveries.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "amqp/connection_internal.h"

static RinqMsgStatus
check_channel(const RinqConn *conn, uint16_t channel)
{
	if (conn->state != RINQ_CONN_OPEN)
		return RINQ_MSG_NOT_OPEN;
	if (channel == 0 || channel > conn->channel_max)
		return RINQ_MSG_BAD_CHANNEL;
	return conn->channels[channel].state == RINQ_CHANNEL_OPEN ?
		RINQ_MSG_OK : RINQ_MSG_NOT_OPEN;
}

static inline void
put_u32(char *at, uint32_t value)
{
	at[0] = (char) (value >> 24);
	at[1] = (char) (value >> 16);
	at[2] = (char) (value >> 8);
	at[3] = (char) value;
}

/* Append the content header; its size has been reserved.  False on refusal. */
static bool
put_content_header(RinqConn *conn, uint16_t channel, const RinqMessage *msg,
				   size_t props_size, size_t body_len)
{
	char	   *at = conn->out + conn->out_end;
	char	   *payload = at + RINQ_FRAME_HEAD;

	if (rinq_message_encode(msg, payload + RINQ_CONTENT_HEAD, props_size) != props_size)
		return false;
	put_u32(payload, (uint32_t) AMQP_BASIC_CLASS << 16);	/* and weight 0 */
	put_u32(payload + 4, (uint32_t) ((uint64_t) body_len >> 32));
	put_u32(payload + 8, (uint32_t) body_len);
	rinq_out_frame_head(at, AMQP_FRAME_HEADER, channel, RINQ_CONTENT_HEAD + props_size);
	payload[RINQ_CONTENT_HEAD + props_size] = (char) RINQ_FRAME_END;
	conn->out_end += RINQ_FRAME_OVERHEAD + RINQ_CONTENT_HEAD + props_size;
	return true;
}

/* Append the body in as many frames as it takes; the size is reserved. */
static void
put_body(RinqConn *conn, uint16_t channel, const char *body, size_t len)
{
	size_t		chunk_max = conn->frame_max - RINQ_FRAME_OVERHEAD;

	while (len > 0)
	{
		size_t		chunk = len < chunk_max ? len : chunk_max;
		char	   *at = conn->out + conn->out_end;

		rinq_out_frame_head(at, AMQP_FRAME_BODY, channel, chunk);
		memcpy(at + RINQ_FRAME_HEAD, body, chunk);
		at[RINQ_FRAME_HEAD + chunk] = (char) RINQ_FRAME_END;
		conn->out_end += RINQ_FRAME_OVERHEAD + chunk;
		body += chunk;
		len -= chunk;
	}
}

/*
 * Check everything that can be wrong with a message, before any of it is
 * written.
 */
static RinqMsgStatus
check_message(const RinqConn *conn, uint16_t channel, RinqBytes exchange,
			  RinqBytes routing_key, const RinqMessage *msg, size_t body_len,
			  size_t *props_size)
{
	RinqMsgStatus status = check_channel(conn, channel);

	if (status != RINQ_MSG_OK)
		return status;
	if (exchange.len > RINQ_SHORT_STRING_MAX || routing_key.len > RINQ_SHORT_STRING_MAX)
		return RINQ_MSG_STRING_TOO_LONG;
	if (body_len > conn->max_body)
		return RINQ_MSG_TOO_LARGE;
	status = rinq_message_check(msg, conn->frame_max, props_size);
	if (status != RINQ_MSG_OK)
		return status;
	if (rinq_conn_backlog(conn) >= conn->max_backlog)
		return RINQ_MSG_BACKLOG;
	return RINQ_MSG_OK;
}

RinqMsgStatus
rinq_basic_publish(RinqConn *conn, uint16_t channel, RinqBytes exchange,
				   RinqBytes routing_key, bool mandatory, const RinqMessage *msg,
				   const char *body, size_t body_len)
{
	amqp_basic_publish_t m;
	RinqMsgStatus status;
	size_t		chunk_max = conn->frame_max - RINQ_FRAME_OVERHEAD;
	size_t		frames = body_len / chunk_max + 1;
	size_t		args_max = 2 + 1 + exchange.len + 1 + routing_key.len + 1;
	size_t		props_size = 0;
	size_t		waiting;

	status = check_message(conn, channel, exchange, routing_key, msg, body_len,
						   &props_size);
	if (status != RINQ_MSG_OK)
		return status;

	/*
	 * All the room at once, so that what follows cannot fail half-way.  The
	 * bytes waiting, not the end, mark the place to return to: making room
	 * may move them.
	 */
	if (!rinq_out_reserve(conn, 2 * RINQ_FRAME_OVERHEAD + 4 + args_max +
						  RINQ_CONTENT_HEAD + props_size +
						  body_len + frames * RINQ_FRAME_OVERHEAD))
		return RINQ_MSG_NO_MEMORY;
	waiting = rinq_conn_backlog(conn);

	m.ticket = 0;
	m.exchange = rinq_to_amqp(exchange);
	m.routing_key = rinq_to_amqp(routing_key);
	m.mandatory = mandatory;
	m.immediate = 0;
	if (!rinq_out_method(conn, channel, AMQP_BASIC_PUBLISH_METHOD, &m, args_max) ||
		!put_content_header(conn, channel, msg, props_size, body_len))
	{
		conn->out_end = conn->out_start + waiting;
		return RINQ_MSG_BAD_FIELDS;
	}
	put_body(conn, channel, body, body_len);
	RINQ_ASSERT(conn->out_end <= conn->out_cap);
	conn->last_message = rinq_conn_backlog(conn) - waiting;
	return RINQ_MSG_OK;
}

RinqBytes
rinq_conn_last_message(const RinqConn *conn)
{
	RINQ_ASSERT(conn->last_message <= rinq_conn_backlog(conn));
	return rinq_bytes(conn->out + conn->out_end - conn->last_message, conn->last_message);
}

RinqMsgStatus
rinq_basic_publish_again(RinqConn *conn, uint16_t channel, RinqBytes frames)
{
	RinqMsgStatus status = check_channel(conn, channel);

	if (status != RINQ_MSG_OK)
		return status;
	if (rinq_conn_backlog(conn) >= conn->max_backlog)
		return RINQ_MSG_BACKLOG;
	if (!rinq_out_reserve(conn, frames.len))
		return RINQ_MSG_NO_MEMORY;
	memcpy(conn->out + conn->out_end, frames.data, frames.len);
	conn->out_end += frames.len;
	return RINQ_MSG_OK;
}

RinqMsgStatus
rinq_basic_ack(RinqConn *conn, uint16_t channel, uint64_t delivery_tag, bool multiple)
{
	RinqMsgStatus status = check_channel(conn, channel);
	amqp_basic_ack_t m;

	if (status != RINQ_MSG_OK)
		return status;
	m.delivery_tag = delivery_tag;
	m.multiple = multiple;
	return rinq_out_method(conn, channel, AMQP_BASIC_ACK_METHOD, &m, 9) ?
		RINQ_MSG_OK : RINQ_MSG_NO_MEMORY;
}

RinqMsgStatus
rinq_basic_reject(RinqConn *conn, uint16_t channel, uint64_t delivery_tag, bool requeue)
{
	RinqMsgStatus status = check_channel(conn, channel);
	amqp_basic_reject_t m;

	if (status != RINQ_MSG_OK)
		return status;
	m.delivery_tag = delivery_tag;
	m.requeue = requeue;
	return rinq_out_method(conn, channel, AMQP_BASIC_REJECT_METHOD, &m, 9) ?
		RINQ_MSG_OK : RINQ_MSG_NO_MEMORY;
}

RinqMsgStatus
rinq_basic_nack(RinqConn *conn, uint16_t channel, uint64_t delivery_tag,
				bool multiple, bool requeue)
{
	RinqMsgStatus status = check_channel(conn, channel);
	amqp_basic_nack_t m;

	if (status != RINQ_MSG_OK)
		return status;
	m.delivery_tag = delivery_tag;
	m.multiple = multiple;
	m.requeue = requeue;
	return rinq_out_method(conn, channel, AMQP_BASIC_NACK_METHOD, &m, 9) ?
		RINQ_MSG_OK : RINQ_MSG_NO_MEMORY;
}
