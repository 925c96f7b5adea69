/*-------------------------------------------------------------------------
 *
 * content.c
 *	  Putting received messages together: method, header, body frames.
 *
 * Nothing is allocated because of a size that the other side merely declares:
 * the body buffer grows with what has arrived, and a body over the limit is
 * counted but not kept.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "amqp/connection_internal.h"

#define BODY_INITIAL	(256 * 1024)

/* Larger buffers are given back after the message. */
#define BODY_KEEP		(1024 * 1024)

#define PROPS_INITIAL	1024

static void
copy_name(char *to, uint8_t *tolen, amqp_bytes_t name)
{
	/* decoded from short strings, hence at most 255 bytes */
	RINQ_ASSERT(name.len <= RINQ_SHORT_STRING_MAX);
	*tolen = (uint8_t) name.len;
	if (name.len > 0)
		memcpy(to, name.bytes, *tolen);
}

/* Forget a message that is only partly there. */
void
rinq_content_reset(RinqContent *content)
{
	content->phase = RINQ_CONTENT_NONE;
	content->body_len = 0;
	if (content->body_cap > BODY_KEEP)
	{
		free(content->body);
		content->body = NULL;
		content->body_cap = 0;
	}
}

void
rinq_content_deliver(RinqConn *conn, uint16_t channel, RinqBytes args)
{
	amqp_basic_deliver_t *m = rinq_decode_method(conn, AMQP_BASIC_DELIVER_METHOD, args);
	RinqContent *content = &conn->channels[channel].content;

	if (m == NULL)
		return;
	content->phase = RINQ_CONTENT_HEADER;
	content->is_return = false;
	content->delivery_tag = m->delivery_tag;
	content->redelivered = m->redelivered != 0;
	copy_name(content->tag, &content->tag_len, m->consumer_tag);
	copy_name(content->exchange, &content->exchange_len, m->exchange);
	copy_name(content->routing_key, &content->routing_key_len, m->routing_key);
}

void
rinq_content_return(RinqConn *conn, uint16_t channel, RinqBytes args)
{
	amqp_basic_return_t *m = rinq_decode_method(conn, AMQP_BASIC_RETURN_METHOD, args);
	RinqContent *content = &conn->channels[channel].content;

	if (m == NULL)
		return;
	content->phase = RINQ_CONTENT_HEADER;
	content->is_return = true;
	content->code = m->reply_code;
	copy_name(content->tag, &content->tag_len, m->reply_text);
	copy_name(content->exchange, &content->exchange_len, m->exchange);
	copy_name(content->routing_key, &content->routing_key_len, m->routing_key);
}

/* ---------------- a complete message ---------------- */

static void
call_on_delivery(RinqConn *conn, uint16_t channel, const RinqContent *content,
				 RinqBytes body)
{
	RinqDelivery d;

	if (conn->cb.on_delivery == NULL)
		return;
	d.channel = channel;
	d.delivery_tag = content->delivery_tag;
	d.redelivered = content->redelivered;
	d.consumer_tag = rinq_bytes(content->tag, content->tag_len);
	d.exchange = rinq_bytes(content->exchange, content->exchange_len);
	d.routing_key = rinq_bytes(content->routing_key, content->routing_key_len);
	d.malformed_headers = !rinq_message_decode(content->props, content->props_len,
											   &d.message);
	d.body = body;
	d.body_size = content->body_size;
	d.oversize = content->oversize;
	conn->cb.on_delivery(conn->cb_arg, &d);
}

static void
call_on_return(RinqConn *conn, uint16_t channel, const RinqContent *content,
			   RinqBytes body)
{
	RinqReturn	r;
	char		text[RINQ_TEXT_SIZE];

	if (conn->cb.on_return == NULL)
		return;
	rinq_conn_clean_text(conn, rinq_bytes(content->tag, content->tag_len),
						 text, sizeof(text));
	r.channel = channel;
	r.code = content->code;
	r.text = text;
	r.exchange = rinq_bytes(content->exchange, content->exchange_len);
	r.routing_key = rinq_bytes(content->routing_key, content->routing_key_len);
	r.malformed_headers = !rinq_message_decode(content->props, content->props_len,
											   &r.message);
	r.body = body;
	r.oversize = content->oversize;
	conn->cb.on_return(conn->cb_arg, &r);
}

/*
 * Hand a message over.  The channel is ready for the next one before that, as
 * the callback may close it, or not return at all.
 */
static void
deliver_content(RinqConn *conn, uint16_t channel, RinqBytes body)
{
	RinqContent *content = &conn->channels[channel].content;

	RINQ_ASSERT(content->phase != RINQ_CONTENT_NONE && content->body_seen == content->body_size);
	content->phase = RINQ_CONTENT_NONE;
	if (content->oversize)
		body = rinq_bytes(NULL, 0);
	if (content->is_return)
		call_on_return(conn, channel, content, body);
	else
		call_on_delivery(conn, channel, content, body);

	/* nothing has been received in the meantime: still the same message */
	rinq_content_reset(content);
}

/* ---------------- header and body frames ---------------- */

/* Keep the property list until the body is there. */
static bool
keep_props(RinqConn *conn, RinqContent *content, const char *data, size_t len)
{
	if (len > content->props_cap)
	{
		size_t		cap = len > PROPS_INITIAL ? len : PROPS_INITIAL;
		char	   *grown = malloc(cap);

		if (grown == NULL)
		{
			rinq_conn_no_memory(conn);
			return false;
		}
		free(content->props);
		content->props = grown;
		content->props_cap = cap;
	}
	memcpy(content->props, data, len);
	content->props_len = len;
	RINQ_ASSERT(content->props_len <= content->props_cap);
	return true;
}

/*
 * Find the message that content on this channel belongs to.  NULL if the
 * content is to be ignored, or was not expected, which ends the connection.
 */
static RinqContent *
expected_content(RinqConn *conn, uint16_t channel, RinqContentPhase phase,
				 const char *what)
{
	RinqAmqpChannel *ch = &conn->channels[channel];

	if (ch->state == RINQ_CHANNEL_CLOSING)
		return NULL;
	if (ch->state == RINQ_CHANNEL_OPEN && ch->content.phase == phase)
		return &ch->content;
	rinq_conn_protocol_error(conn, "an unexpected %s frame on channel %u", what, channel);
	return NULL;
}

void
rinq_content_header(RinqConn *conn, uint16_t channel, RinqBytes payload)
{
	RinqContent *content = expected_content(conn, channel, RINQ_CONTENT_HEADER, "header");
	RinqReader	r = rinq_reader(payload.data, payload.len);
	uint16_t	class_id;
	uint16_t	weight;
	uint64_t	body_size;

	if (content == NULL)
		return;
	if (!rinq_read_u16(&r, &class_id) || !rinq_read_u16(&r, &weight) ||
		!rinq_read_u64(&r, &body_size))
	{
		rinq_conn_protocol_error(conn, "a content header of %zu bytes", payload.len);
		return;
	}
	if (class_id != AMQP_BASIC_CLASS)
	{
		rinq_conn_protocol_error(conn, "a content header of class %u", class_id);
		return;
	}
	if (!keep_props(conn, content, (const char *) r.pos, (size_t) (r.end - r.pos)))
		return;
	content->body_size = body_size;
	content->body_seen = 0;
	content->body_len = 0;
	content->oversize = body_size > conn->max_body;
	content->phase = RINQ_CONTENT_BODY;
	if (body_size == 0)
		deliver_content(conn, channel, rinq_bytes("", 0));
}

/* Append to a body that takes several frames. */
static bool
keep_body(RinqConn *conn, RinqContent *content, RinqBytes chunk)
{
	size_t		need = content->body_len + chunk.len;

	if (need > content->body_cap)
	{
		size_t		cap = content->body_cap > 0 ? content->body_cap * 2 : BODY_INITIAL;
		char	   *grown;

		/* what is still to come is a better guess, once it is credible */
		if (cap > content->body_size)
			cap = (size_t) content->body_size;
		if (cap < need)
			cap = need;
		grown = realloc(content->body, cap);
		if (grown == NULL)
		{
			rinq_conn_no_memory(conn);
			return false;
		}
		content->body = grown;
		content->body_cap = cap;
	}
	memcpy(content->body + content->body_len, chunk.data, chunk.len);
	content->body_len = need;
	return true;
}

void
rinq_content_body(RinqConn *conn, uint16_t channel, RinqBytes payload)
{
	RinqContent *content = expected_content(conn, channel, RINQ_CONTENT_BODY, "body");

	if (content == NULL)
		return;
	if (payload.len > content->body_size - content->body_seen)
	{
		rinq_conn_protocol_error(conn, "a message body longer than announced");
		return;
	}
	if (payload.len == 0)
		return;
	content->body_seen += payload.len;

	/* the usual case: all in one frame, handed over where it is */
	if (payload.len == content->body_size)
	{
		deliver_content(conn, channel, payload);
		return;
	}
	if (!content->oversize && !keep_body(conn, content, payload))
		return;
	if (content->body_seen == content->body_size)
		deliver_content(conn, channel, rinq_bytes(content->body, content->body_len));
}
