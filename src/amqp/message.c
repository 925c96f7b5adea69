/*-------------------------------------------------------------------------
 *
 * message.c
 *	  Rinq messages to and from AMQP property lists.
 *
 * Encoding goes through librabbitmq.  Decoding does not: the library recurses
 * into nested header tables without a limit, allocates for every table, and
 * knows failure only as failure of the whole connection, whereas one message
 * with strange headers must cost no more than that message.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "amqp/codec.h"
#include "amqp/message.h"
#include "amqp/table.h"

#define SHORT_STRING_MAX	255

/* Frame overhead of a content header and a margin, as the protocol asks. */
#define HEADER_FRAME_MARGIN	20

/* n, c, t, m, sc, dl, traceparent, tracestate */
#define MAX_HEADERS			8

/* Property flags that stand for neither a known nor a reserved property. */
#define FLAG_CONTINUATION	0x0001
#define FLAG_UNKNOWN		0x0002

/* ---------------- decoding ---------------- */

static inline bool
key_is(const RinqTableEntry *entry, const char *name, size_t len)
{
	return entry->key.len == len && memcmp(entry->key.data, name, len) == 0;
}

/*
 * Take the value of a header that may have one type only, or note that it is
 * bad.
 */
static void
take_header(const RinqTableEntry *entry, char kind, RinqBytes *field, bool *bad)
{
	*bad = entry->kind != kind;
	*field = *bad ? rinq_bytes(NULL, 0) : entry->value;
}

/*
 * Take header "c", which is a command when it is text, and a constraint when
 * it is bytes.
 */
static void
take_c_header(const RinqTableEntry *entry, RinqMessage *out)
{
	out->command = rinq_bytes(NULL, 0);
	out->constraint = rinq_bytes(NULL, 0);
	out->bad_command = false;
	if (entry->kind == 'S')
		out->command = entry->value;
	else if (entry->kind == 'x')
		out->constraint = entry->value;
	else
		out->bad_command = true;
}

static void
take_deadline(const RinqTableEntry *entry, RinqMessage *out)
{
	uint64_t	bits = 0;

	out->bad_deadline = entry->kind != 'l';
	out->has_deadline = !out->bad_deadline;
	if (out->has_deadline)
	{
		RinqReader	r = rinq_reader(entry->value.data, entry->value.len);

		(void) rinq_read_u64(&r, &bits);
	}
	memcpy(&out->deadline, &bits, sizeof(bits));
}

static bool
decode_headers(RinqBytes table, RinqMessage *out)
{
	RinqReader	r = rinq_reader(table.data, table.len);
	RinqTableEntry entry;
	bool		ignored;		/* of another type, these are as good as
								 * missing */

	for (;;)
	{
		switch (rinq_table_next(&r, &entry))
		{
			case RINQ_TABLE_END:
				return true;
			case RINQ_TABLE_MALFORMED:
				return false;
			case RINQ_TABLE_ENTRY:
				break;
		}
		if (key_is(&entry, "n", 1))
			take_header(&entry, 'S', &out->ns, &out->bad_ns);
		else if (key_is(&entry, "c", 1))
			take_c_header(&entry, out);
		else if (key_is(&entry, "dl", 2))
			take_deadline(&entry, out);
		else if (key_is(&entry, "t", 1))
			take_header(&entry, 'S', &out->target, &out->bad_target);
		else if (key_is(&entry, "m", 1))
			take_header(&entry, 'S', &out->failure_message,
						&out->bad_failure_message);
		else if (key_is(&entry, "sc", 2))
			take_header(&entry, 'x', &out->span_context,
						&out->bad_span_context);
		else if (key_is(&entry, "traceparent", 11))
			take_header(&entry, 'S', &out->traceparent, &ignored);
		else if (key_is(&entry, "tracestate", 10))
			take_header(&entry, 'S', &out->tracestate, &ignored);
	}
}

/* Read a short string if its flag is set, into *field unless that is NULL. */
static bool
take_shortstr(RinqReader *r, uint16_t flags, uint16_t flag, RinqBytes *field)
{
	RinqBytes	ignored;

	if (!(flags & flag))
		return true;
	return rinq_read_shortstr(r, field != NULL ? field : &ignored);
}

/*
 * Decode the properties, which come in the order of their flags, the highest
 * bit first.
 */
static bool
decode_properties(RinqReader *r, RinqMessage *out)
{
	uint16_t	flags;
	uint8_t		delivery_mode;
	uint64_t	timestamp;
	RinqBytes	table;

	if (!rinq_read_u16(r, &flags))
		return false;
	if (flags & (FLAG_CONTINUATION | FLAG_UNKNOWN))
		return false;

	if (!take_shortstr(r, flags, AMQP_BASIC_CONTENT_TYPE_FLAG, NULL) ||
		!take_shortstr(r, flags, AMQP_BASIC_CONTENT_ENCODING_FLAG, NULL))
		return false;
	if (flags & AMQP_BASIC_HEADERS_FLAG)
	{
		if (!rinq_read_longstr(r, &table) || !decode_headers(table, out))
			return false;
	}
	if (flags & AMQP_BASIC_DELIVERY_MODE_FLAG)
	{
		if (!rinq_read_u8(r, &delivery_mode))
			return false;
		out->persistent = delivery_mode == 2;
	}
	if (flags & AMQP_BASIC_PRIORITY_FLAG)
	{
		if (!rinq_read_u8(r, &out->priority))
			return false;
		out->has_priority = true;
	}
	if (!take_shortstr(r, flags, AMQP_BASIC_CORRELATION_ID_FLAG, &out->correlation_id) ||
		!take_shortstr(r, flags, AMQP_BASIC_REPLY_TO_FLAG, &out->reply_to) ||
		!take_shortstr(r, flags, AMQP_BASIC_EXPIRATION_FLAG, &out->expiration) ||
		!take_shortstr(r, flags, AMQP_BASIC_MESSAGE_ID_FLAG, &out->message_id))
		return false;
	if ((flags & AMQP_BASIC_TIMESTAMP_FLAG) && !rinq_read_u64(r, &timestamp))
		return false;
	return take_shortstr(r, flags, AMQP_BASIC_TYPE_FLAG, &out->type) &&
		take_shortstr(r, flags, AMQP_BASIC_USER_ID_FLAG, NULL) &&
		take_shortstr(r, flags, AMQP_BASIC_APP_ID_FLAG, NULL) &&
		take_shortstr(r, flags, AMQP_BASIC_CLUSTER_ID_FLAG, NULL) &&
		r->pos == r->end;
}

bool
rinq_message_decode(const char *data, size_t len, RinqMessage *out)
{
	RinqReader	r = rinq_reader(data, len);

	memset(out, 0, sizeof(*out));
	if (decode_properties(&r, out))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

/* ---------------- encoding ---------------- */

/* Add the size of a short string property. */
static bool
add_shortstr(RinqBytes b, size_t *size)
{
	if (b.data == NULL)
		return true;
	if (b.len > SHORT_STRING_MAX)
		return false;
	*size += 1 + b.len;
	return true;
}

/* Add the size of a header: key, type, length, content. */
static bool
add_header(RinqBytes b, size_t keylen, size_t limit, size_t *size)
{
	if (b.data == NULL)
		return true;
	/* compared before adding, so that no sum can wrap around */
	if (b.len > limit)
		return false;
	*size += 1 + keylen + 1 + 4 + b.len;
	return true;
}

static bool
has_headers(const RinqMessage *msg)
{
	return msg->ns.data != NULL || msg->command.data != NULL ||
		msg->constraint.data != NULL || msg->target.data != NULL ||
		msg->failure_message.data != NULL || msg->span_context.data != NULL ||
		msg->traceparent.data != NULL || msg->tracestate.data != NULL ||
		msg->has_deadline;
}

RinqMsgStatus
rinq_message_check(const RinqMessage *msg, size_t frame_max, size_t *size)
{
	size_t		total = 2;		/* property flags */

	if (msg->command.data != NULL && msg->constraint.data != NULL)
		return RINQ_MSG_BAD_FIELDS;

	if (!add_shortstr(msg->message_id, &total) ||
		!add_shortstr(msg->correlation_id, &total) ||
		!add_shortstr(msg->reply_to, &total) ||
		!add_shortstr(msg->expiration, &total) ||
		!add_shortstr(msg->type, &total))
		return RINQ_MSG_STRING_TOO_LONG;
	if (msg->has_priority)
		total += 1;
	if (msg->persistent)
		total += 1;

	if (has_headers(msg))
	{
		total += 4;
		if (!add_header(msg->ns, 1, frame_max, &total) ||
			!add_header(msg->command, 1, frame_max, &total) ||
			!add_header(msg->constraint, 1, frame_max, &total) ||
			!add_header(msg->target, 1, frame_max, &total) ||
			!add_header(msg->failure_message, 1, frame_max, &total) ||
			!add_header(msg->span_context, 2, frame_max, &total) ||
			!add_header(msg->traceparent, 11, frame_max, &total) ||
			!add_header(msg->tracestate, 10, frame_max, &total))
			return RINQ_MSG_TOO_LARGE;
		if (msg->has_deadline)
			total += 1 + 2 + 1 + 8;
	}
	if (total + HEADER_FRAME_MARGIN > frame_max)
		return RINQ_MSG_TOO_LARGE;
	*size = total;
	return RINQ_MSG_OK;
}

/* Add an entry for a header that is there. */
static void
put_header_entry(amqp_table_entry_t *entries, int *n, const char *key, uint8_t kind,
				 RinqBytes value)
{
	amqp_table_entry_t *entry;

	if (value.data == NULL)
		return;
	entry = &entries[(*n)++];
	entry->key = rinq_to_amqp(rinq_bytes_str(key));
	entry->value.kind = kind;
	entry->value.value.bytes = rinq_to_amqp(value);
}

static int
fill_headers(const RinqMessage *msg, amqp_table_entry_t *entries)
{
	int			n = 0;

	put_header_entry(entries, &n, "n", AMQP_FIELD_KIND_UTF8, msg->ns);
	put_header_entry(entries, &n, "c", AMQP_FIELD_KIND_UTF8, msg->command);
	put_header_entry(entries, &n, "c", AMQP_FIELD_KIND_BYTES, msg->constraint);
	put_header_entry(entries, &n, "t", AMQP_FIELD_KIND_UTF8, msg->target);
	put_header_entry(entries, &n, "m", AMQP_FIELD_KIND_UTF8, msg->failure_message);
	put_header_entry(entries, &n, "sc", AMQP_FIELD_KIND_BYTES, msg->span_context);
	put_header_entry(entries, &n, "traceparent", AMQP_FIELD_KIND_UTF8, msg->traceparent);
	put_header_entry(entries, &n, "tracestate", AMQP_FIELD_KIND_UTF8, msg->tracestate);
	if (msg->has_deadline)
	{
		entries[n].key = rinq_to_amqp(rinq_bytes("dl", 2));
		entries[n].value.kind = AMQP_FIELD_KIND_I64;
		entries[n].value.value.i64 = msg->deadline;
		n++;
	}
	return n;
}

static void
put_property(amqp_basic_properties_t *props, amqp_flags_t flag,
			 amqp_bytes_t *field, RinqBytes value)
{
	if (value.data == NULL)
		return;
	props->_flags |= flag;
	*field = rinq_to_amqp(value);
}

size_t
rinq_message_encode(const RinqMessage *msg, char *buf, size_t size)
{
	amqp_basic_properties_t props;
	amqp_table_entry_t entries[MAX_HEADERS + 1];
	amqp_bytes_t out;
	int			written;

	props._flags = 0;
	put_property(&props, AMQP_BASIC_MESSAGE_ID_FLAG, &props.message_id,
				 msg->message_id);
	put_property(&props, AMQP_BASIC_CORRELATION_ID_FLAG, &props.correlation_id,
				 msg->correlation_id);
	put_property(&props, AMQP_BASIC_REPLY_TO_FLAG, &props.reply_to,
				 msg->reply_to);
	put_property(&props, AMQP_BASIC_EXPIRATION_FLAG, &props.expiration,
				 msg->expiration);
	put_property(&props, AMQP_BASIC_TYPE_FLAG, &props.type, msg->type);
	if (msg->has_priority)
	{
		props._flags |= AMQP_BASIC_PRIORITY_FLAG;
		props.priority = msg->priority;
	}
	if (msg->persistent)
	{
		props._flags |= AMQP_BASIC_DELIVERY_MODE_FLAG;
		props.delivery_mode = 2;
	}
	props.headers.entries = entries;
	props.headers.num_entries = fill_headers(msg, entries);
	if (props.headers.num_entries > 0)
		props._flags |= AMQP_BASIC_HEADERS_FLAG;

	out.bytes = buf;
	out.len = size;
	written = amqp_encode_properties(AMQP_BASIC_CLASS, &props, out);
	return written > 0 ? (size_t) written : 0;
}

const char *
rinq_msg_status_text(RinqMsgStatus status)
{
	switch (status)
	{
		case RINQ_MSG_OK:
			return "no error";
		case RINQ_MSG_STRING_TOO_LONG:
			return "a name or property is longer than 255 bytes";
		case RINQ_MSG_TOO_LARGE:
			return "the message is too large";
		case RINQ_MSG_BAD_FIELDS:
			return "the message has fields that exclude each other";
		case RINQ_MSG_NO_MEMORY:
			return "out of memory";
		case RINQ_MSG_OVER_BROKER_LIMIT:
			return "the message is larger than the broker allows";
		case RINQ_MSG_BACKLOG:
			return "too many bytes wait to be sent to the broker";
		case RINQ_MSG_NOT_OPEN:
			return "the connection or channel to the broker is not open";
		case RINQ_MSG_BAD_CHANNEL:
			return "the broker does not allow that many channels";
	}
	return "unknown error";
}
