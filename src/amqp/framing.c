/*-------------------------------------------------------------------------
 *
 * framing.c
 *	  Cutting the input into frames and sending them to where they belong.
 *
 * The frame envelope is checked here, before any decoder sees the content, so
 * that the limits hold whatever version of librabbitmq is installed.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "amqp/connection_internal.h"

/* ---------------- methods of a channel ---------------- */

static void
handle_confirm(RinqConn *conn, uint16_t channel, amqp_method_number_t id, RinqBytes args)
{
	uint64_t	tag;
	bool		multiple;
	void	   *decoded = rinq_decode_method(conn, id, args);

	if (decoded == NULL)
		return;
	if (id == AMQP_BASIC_ACK_METHOD)
	{
		tag = ((amqp_basic_ack_t *) decoded)->delivery_tag;
		multiple = ((amqp_basic_ack_t *) decoded)->multiple != 0;
	}
	else
	{
		tag = ((amqp_basic_nack_t *) decoded)->delivery_tag;
		multiple = ((amqp_basic_nack_t *) decoded)->multiple != 0;
	}
	if (conn->cb.on_confirm != NULL)
		conn->cb.on_confirm(conn->cb_arg, channel, tag, multiple,
							id == AMQP_BASIC_NACK_METHOD);
}

/* Handle the broker's cancelling of a consumer. */
static void
handle_cancel(RinqConn *conn, uint16_t channel, RinqBytes args)
{
	amqp_basic_cancel_t *m = rinq_decode_method(conn, AMQP_BASIC_CANCEL_METHOD, args);
	RinqBytes	tag;

	if (m == NULL)
		return;
	tag = rinq_from_amqp(m->consumer_tag);
	if (!m->nowait)
	{
		amqp_basic_cancel_ok_t ok = {.consumer_tag = m->consumer_tag};

		if (!rinq_out_method(conn, channel, AMQP_BASIC_CANCEL_OK_METHOD, &ok,
							 1 + tag.len))
		{
			rinq_conn_no_memory(conn);
			return;
		}
	}
	if (conn->cb.on_cancel != NULL)
		conn->cb.on_cancel(conn->cb_arg, channel, tag);
}

/*
 * Reply to channel.flow, which RabbitMQ does not use.  Pausing is not worth a
 * state of its own: a broker in need blocks the connection.
 */
static void
reply_to_flow(RinqConn *conn, uint16_t channel, RinqBytes args)
{
	amqp_channel_flow_t *m = rinq_decode_method(conn, AMQP_CHANNEL_FLOW_METHOD, args);
	amqp_channel_flow_ok_t ok;

	if (m == NULL)
		return;
	ok.active = m->active;
	if (!rinq_out_method(conn, channel, AMQP_CHANNEL_FLOW_OK_METHOD, &ok, 1))
		rinq_conn_no_memory(conn);
}

static void
channel_method(RinqConn *conn, uint16_t channel, amqp_method_number_t id,
			   RinqBytes args)
{
	RinqAmqpChannel *ch = &conn->channels[channel];

	RINQ_ASSERT(channel > 0 && channel <= RINQ_CONN_MAX_CHANNEL);
	if (id == AMQP_CHANNEL_CLOSE_METHOD)
	{
		if (ch->state == RINQ_CHANNEL_CLOSED)
			rinq_conn_protocol_error(conn, "channel.close on channel %u, which is not open", channel);
		else
			rinq_amqp_channel_closed_by_broker(conn, channel, args);
		return;
	}
	if (rinq_amqp_channel_reply(conn, channel, id, args))
		return;

	/* whatever else crosses our channel.close is to be ignored */
	if (ch->state == RINQ_CHANNEL_CLOSING)
		return;
	if (ch->state == RINQ_CHANNEL_CLOSED || ch->content.phase != RINQ_CONTENT_NONE)
	{
		rinq_conn_protocol_error(conn, "unexpected method %u.%u on channel %u",
								 (unsigned) (id >> 16), (unsigned) (id & 0xffff),
								 channel);
		return;
	}

	switch (id)
	{
		case AMQP_BASIC_DELIVER_METHOD:
			rinq_content_deliver(conn, channel, args);
			break;
		case AMQP_BASIC_RETURN_METHOD:
			rinq_content_return(conn, channel, args);
			break;
		case AMQP_BASIC_ACK_METHOD:
		case AMQP_BASIC_NACK_METHOD:
			handle_confirm(conn, channel, id, args);
			break;
		case AMQP_BASIC_CANCEL_METHOD:
			handle_cancel(conn, channel, args);
			break;
		case AMQP_CHANNEL_FLOW_METHOD:
			reply_to_flow(conn, channel, args);
			break;
		default:
			rinq_conn_protocol_error(conn, "unexpected method %u.%u on channel %u",
									 (unsigned) (id >> 16),
									 (unsigned) (id & 0xffff), channel);
			break;
	}
}

/* ---------------- frames ---------------- */

static void
method_frame(RinqConn *conn, uint16_t channel, RinqBytes payload)
{
	RinqReader	r = rinq_reader(payload.data, payload.len);
	uint32_t	id;
	RinqBytes	args;

	if (!rinq_read_u32(&r, &id))
	{
		rinq_conn_protocol_error(conn, "a method frame of %zu bytes", payload.len);
		return;
	}
	args = rinq_bytes(payload.data + 4, payload.len - 4);
	if (channel == 0)
		rinq_connection_method(conn, id, args);
	else if (conn->state == RINQ_CONN_OPEN)
		channel_method(conn, channel, id, args);
}

static void
dispatch_frame(RinqConn *conn, uint8_t type, uint16_t channel, RinqBytes payload)
{
	if (type == AMQP_FRAME_HEARTBEAT)
	{
		if (channel != 0)
			rinq_conn_protocol_error(conn, "a heartbeat on channel %u", channel);
		return;
	}
	if (channel != 0)
	{
		if (conn->state == RINQ_CONN_HANDSHAKE)
		{
			rinq_conn_protocol_error(conn, "a frame on channel %u during login", channel);
			return;
		}
		if (channel > RINQ_CONN_MAX_CHANNEL)
		{
			rinq_conn_protocol_error(conn, "a frame on channel %u, which is not open", channel);
			return;
		}
	}
	if (type == AMQP_FRAME_METHOD)
		method_frame(conn, channel, payload);
	else if (channel == 0)
		rinq_conn_protocol_error(conn, "message content on channel 0");
	else if (conn->state == RINQ_CONN_OPEN)
	{
		if (type == AMQP_FRAME_HEADER)
			rinq_content_header(conn, channel, payload);
		else
			rinq_content_body(conn, channel, payload);
	}
}

static inline size_t
input_size(const RinqConn *conn)
{
	RINQ_ASSERT(conn->in_start <= conn->in_end);
	return conn->in_end - conn->in_start;
}

/* Return the size of the payload that a frame head announces. */
static inline uint32_t
announced_size(const uint8_t *head)
{
	return (uint32_t) head[3] << 24 | (uint32_t) head[4] << 16 |
		(uint32_t) head[5] << 8 | (uint32_t) head[6];
}

/* Tell whether input begins like TLS: an alert or a handshake, of any version. */
static bool
is_tls_record(const uint8_t *head, size_t len)
{
	return (head[0] == 0x15 || head[0] == 0x16) && (len < 2 || head[1] == 0x03);
}

/*
 * Explain input that is no frame: a server that does not like our version
 * answers with "AMQP" and its own version, and then hangs up.
 */
static RinqFrameResult
not_a_frame(RinqConn *conn)
{
	const uint8_t *head = conn->in + conn->in_start;
	size_t		len = input_size(conn);

	if (conn->state == RINQ_CONN_HANDSHAKE && !conn->start_seen &&
		memcmp(head, "AMQP", len < 4 ? len : 4) == 0)
	{
		if (len < 8)
			return RINQ_FRAME_INCOMPLETE;
		rinq_conn_protocol_error(conn, "the server wants AMQP version %u.%u.%u instead of 0.9.1",
								 head[5], head[6], head[7]);
	}
	else if (conn->state == RINQ_CONN_HANDSHAKE && !conn->start_seen && conn->tls == NULL && is_tls_record(head, len))
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS,
					   "%s speaks TLS on this port, and not AMQP in plain text: use amqps:// or an sslmode",
					   conn->peer);
	else if (conn->state == RINQ_CONN_HANDSHAKE && !conn->start_seen)
		rinq_conn_protocol_error(conn, "the server does not speak AMQP");
	else
		rinq_conn_protocol_error(conn, "a frame of unknown type %u", head[0]);
	return RINQ_FRAME_FAILED;
}

static inline bool
known_type(uint8_t type)
{
	return type == AMQP_FRAME_METHOD || type == AMQP_FRAME_HEADER ||
		type == AMQP_FRAME_BODY || type == AMQP_FRAME_HEARTBEAT;
}

/* Handle one frame of the input, if there is a whole one. */
RinqFrameResult
rinq_frame_next(RinqConn *conn)
{
	const uint8_t *head = conn->in + conn->in_start;
	size_t		len = input_size(conn);
	uint32_t	size;

	if (conn->state == RINQ_CONN_CLOSED)
		return RINQ_FRAME_FAILED;
	if (len == 0)
		return RINQ_FRAME_INCOMPLETE;
	if (!known_type(head[0]))
		return not_a_frame(conn);
	if (len < RINQ_FRAME_HEAD)
		return RINQ_FRAME_INCOMPLETE;

	size = announced_size(head);
	if (size > conn->frame_max - RINQ_FRAME_OVERHEAD)
	{
		rinq_conn_protocol_error(conn, "a frame of %u bytes, with %u agreed upon",
								 size, conn->frame_max);
		return RINQ_FRAME_FAILED;
	}
	if (len < (size_t) size + RINQ_FRAME_OVERHEAD)
		return RINQ_FRAME_INCOMPLETE;
	if (head[RINQ_FRAME_HEAD + size] != RINQ_FRAME_END)
	{
		rinq_conn_protocol_error(conn, "a frame without its end byte");
		return RINQ_FRAME_FAILED;
	}

	/*
	 * Step over the frame first: a callback may not return.  Nothing moves or
	 * overwrites the input before the next receive.
	 */
	conn->in_start += (size_t) size + RINQ_FRAME_OVERHEAD;
	RINQ_ASSERT(conn->in_start <= conn->in_end);
	dispatch_frame(conn, head[0], (uint16_t) (head[1] << 8 | head[2]),
				   rinq_bytes((const char *) head + RINQ_FRAME_HEAD, size));
	return conn->state == RINQ_CONN_CLOSED ? RINQ_FRAME_FAILED : RINQ_FRAME_HANDLED;
}

/* Tell whether rinq_frame_next() would get on without more input. */
bool
rinq_frame_ready(const RinqConn *conn)
{
	const uint8_t *head = conn->in + conn->in_start;
	size_t		len = input_size(conn);

	if (len == 0)
		return false;
	if (!known_type(head[0]))
		return conn->state != RINQ_CONN_HANDSHAKE || head[0] != 'A' || len >= 8;
	return len >= RINQ_FRAME_HEAD &&
		(announced_size(head) > conn->frame_max - RINQ_FRAME_OVERHEAD ||
		 len >= (size_t) announced_size(head) + RINQ_FRAME_OVERHEAD);
}
