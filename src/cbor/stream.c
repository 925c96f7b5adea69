/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Reading and writing CBOR item by item, for the messages that peers
 *	  exchange about sessions and in constraints.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/decoder.h"
#include "cbor/head.h"
#include "cbor/internal.h"
#include "cbor/stream.h"

void
rinq_cbor_reader_init(RinqCborReader *reader, RinqBytes data)
{
	reader->rest = data;
	reader->failed = false;
	reader->items = 0;
}

/* libcbor hands each item to one of these */

static void
got_number(void *context, RinqCborKind kind, uint64 number)
{
	RinqCborItem *item = context;

	item->kind = kind;
	item->number = number;
}

static void
got_uint8(void *context, uint8_t value)
{
	got_number(context, RINQ_CBOR_UINT, value);
}

static void
got_uint16(void *context, uint16_t value)
{
	got_number(context, RINQ_CBOR_UINT, value);
}

static void
got_uint32(void *context, uint32_t value)
{
	got_number(context, RINQ_CBOR_UINT, value);
}

static void
got_uint64(void *context, uint64_t value)
{
	got_number(context, RINQ_CBOR_UINT, value);
}

static void
got_negint8(void *context, uint8_t value)
{
	got_number(context, RINQ_CBOR_NINT, value);
}

static void
got_negint16(void *context, uint16_t value)
{
	got_number(context, RINQ_CBOR_NINT, value);
}

static void
got_negint32(void *context, uint32_t value)
{
	got_number(context, RINQ_CBOR_NINT, value);
}

static void
got_negint64(void *context, uint64_t value)
{
	got_number(context, RINQ_CBOR_NINT, value);
}

static void
got_bytes(void *context, cbor_data data, rinq_cbor_size len)
{
	got_number(context, RINQ_CBOR_BYTES, 0);
	((RinqCborItem *) context)->bytes = rinq_bytes((const char *) data, (size_t) len);
}

static void
got_text(void *context, cbor_data data, rinq_cbor_size len)
{
	got_number(context, RINQ_CBOR_TEXT, 0);
	((RinqCborItem *) context)->bytes = rinq_bytes((const char *) data, (size_t) len);
}

static void
got_byte_chunks(void *context)
{
	got_number(context, RINQ_CBOR_CHUNKS, RINQ_CBOR_BYTES);
}

static void
got_text_chunks(void *context)
{
	got_number(context, RINQ_CBOR_CHUNKS, RINQ_CBOR_TEXT);
}

static void
got_array(void *context, rinq_cbor_size count)
{
	got_number(context, RINQ_CBOR_ARRAY, count);
}

static void
got_open_array(void *context)
{
	got_number(context, RINQ_CBOR_ARRAY, RINQ_CBOR_INDEFINITE);
}

static void
got_map(void *context, rinq_cbor_size count)
{
	got_number(context, RINQ_CBOR_MAP, count);
}

static void
got_open_map(void *context)
{
	got_number(context, RINQ_CBOR_MAP, RINQ_CBOR_INDEFINITE);
}

static void
got_tag(void *context, uint64_t value)
{
	got_number(context, RINQ_CBOR_TAG, value);
}

static void
got_half(void *context, float value)
{
	got_number(context, RINQ_CBOR_OTHER, 0);
}

static void
got_double(void *context, double value)
{
	got_number(context, RINQ_CBOR_OTHER, 0);
}

static void
got_null(void *context)
{
	got_number(context, RINQ_CBOR_NULL, 0);
}

static void
got_bool(void *context, bool value)
{
	got_number(context, value ? RINQ_CBOR_TRUE : RINQ_CBOR_FALSE, 0);
}

static void
got_break(void *context)
{
	got_number(context, RINQ_CBOR_BREAK, 0);
}

static const struct cbor_callbacks callbacks = {
	.uint8 = got_uint8,
	.uint16 = got_uint16,
	.uint32 = got_uint32,
	.uint64 = got_uint64,
	.negint8 = got_negint8,
	.negint16 = got_negint16,
	.negint32 = got_negint32,
	.negint64 = got_negint64,
	.byte_string = got_bytes,
	.byte_string_start = got_byte_chunks,
	.string = got_text,
	.string_start = got_text_chunks,
	.array_start = got_array,
	.indef_array_start = got_open_array,
	.map_start = got_map,
	.indef_map_start = got_open_map,
	.tag = got_tag,
	.float2 = got_half,
	.float4 = got_half,
	.float8 = got_double,
	.null = got_null,
	.undefined = got_null,
	.boolean = got_bool,
	.indef_break = got_break,
};

/* Tell whether a byte is the head of a tag that libcbor 0.8 does not know. */
static bool
is_unknown_tag(uint8 head)
{
	return head >= 0xC6 && head <= 0xD4;
}

/*
 * Take the next item, of a container its head; false at the end and when the
 * input is malformed.
 */
bool
rinq_cbor_next(RinqCborReader *reader, RinqCborItem *item)
{
	struct cbor_decoder_result result;

	item->kind = RINQ_CBOR_END;
	item->bytes = rinq_bytes(NULL, 0);
	if (reader->failed || reader->rest.len == 0)
		return false;
	if (++reader->items > RINQ_CBOR_MAX_ITEMS)
	{
		reader->failed = true;
		return false;
	}
	if (is_unknown_tag((uint8) reader->rest.data[0]))
	{
		got_tag(item, rinq_head_info((uint8) reader->rest.data[0]));
		reader->rest = rinq_bytes(reader->rest.data + 1, reader->rest.len - 1);
		return true;
	}
	result = cbor_stream_decode((cbor_data) reader->rest.data, reader->rest.len, &callbacks, item);
	if (result.status != CBOR_DECODER_FINISHED || item->kind == RINQ_CBOR_END ||
		result.read == 0 || result.read > reader->rest.len)
	{
		reader->failed = true;
		return false;
	}
	if (item->kind == RINQ_CBOR_OTHER)
		item->bytes = rinq_bytes(reader->rest.data, result.read);
	reader->rest = rinq_bytes(reader->rest.data + result.read, reader->rest.len - result.read);
	return true;
}

/* Go to the next item behind any tags. */
static bool
next_untagged(RinqCborReader *reader, RinqCborItem *item)
{
	do
	{
		if (!rinq_cbor_next(reader, item))
		{
			reader->failed = true;
			return false;
		}
	} while (item->kind == RINQ_CBOR_TAG);
	return true;
}

static bool
fail_reading(RinqCborReader *reader)
{
	reader->failed = true;
	return false;
}

/*
 * Tell whether a container has another element.  "left" is what
 * rinq_cbor_enter has set; a pair of a map is one element.
 */
bool
rinq_cbor_more(RinqCborReader *reader, uint64 *left)
{
	Assert(reader->items <= RINQ_CBOR_MAX_ITEMS + 1);
	if (reader->failed || *left == 0)
		return false;
	if (*left != RINQ_CBOR_INDEFINITE)
	{
		(*left)--;
		return true;
	}
	if (reader->rest.len == 0)
		return fail_reading(reader);
	if ((uint8) reader->rest.data[0] != RINQ_HEAD_BREAK)
		return true;
	reader->rest = rinq_bytes(reader->rest.data + 1, reader->rest.len - 1);
	*left = 0;
	return false;
}

/*
 * Take the head of a container; false, without failing, for null.
 */
bool
rinq_cbor_enter(RinqCborReader *reader, RinqCborKind container, uint64 *left)
{
	RinqCborItem item;

	*left = 0;
	if (!next_untagged(reader, &item) || item.kind == RINQ_CBOR_NULL)
		return false;
	if (item.kind != container)
		return fail_reading(reader);
	*left = item.number;
	return true;
}

static bool
skip_chunks(RinqCborReader *reader)
{
	RinqCborItem item;

	do
	{
		if (!rinq_cbor_next(reader, &item))
			return fail_reading(reader);
	} while (item.kind == RINQ_CBOR_TEXT || item.kind == RINQ_CBOR_BYTES);
	return item.kind == RINQ_CBOR_BREAK || fail_reading(reader);
}

static bool
skip_nested(RinqCborReader *reader, int depth)
{
	RinqCborItem item;
	uint64		left;

	if (depth > RINQ_CBOR_MAX_DEPTH || !next_untagged(reader, &item))
		return fail_reading(reader);
	switch (item.kind)
	{
		case RINQ_CBOR_BREAK:
			return fail_reading(reader);
		case RINQ_CBOR_CHUNKS:
			return skip_chunks(reader);
		case RINQ_CBOR_ARRAY:
		case RINQ_CBOR_MAP:
			left = item.number;
			while (rinq_cbor_more(reader, &left))
			{
				if (!skip_nested(reader, depth + 1) ||
					(item.kind == RINQ_CBOR_MAP && !skip_nested(reader, depth + 1)))
					return false;
			}
			return !reader->failed;
		default:
			return true;
	}
}

/*
 * Pass over one item with all it contains.
 */
bool
rinq_cbor_skip(RinqCborReader *reader)
{
	return skip_nested(reader, 0);
}

bool
rinq_cbor_read_uint32(RinqCborReader *reader, uint32 *value)
{
	RinqCborItem item;

	*value = 0;
	if (!next_untagged(reader, &item))
		return false;
	if (item.kind == RINQ_CBOR_NULL)
		return true;
	if (item.kind != RINQ_CBOR_UINT || item.number > PG_UINT32_MAX)
		return fail_reading(reader);
	*value = (uint32) item.number;
	return true;
}

bool
rinq_cbor_read_bool(RinqCborReader *reader, bool *value)
{
	RinqCborItem item;

	*value = false;
	if (!next_untagged(reader, &item))
		return false;
	if (item.kind == RINQ_CBOR_TRUE)
		*value = true;
	else if (item.kind != RINQ_CBOR_FALSE && item.kind != RINQ_CBOR_NULL)
		return fail_reading(reader);
	return true;
}

/*
 * Take a text, which points into the input unless it came in chunks; bytes
 * are taken for a text if they are one.
 */
bool
rinq_cbor_read_text(RinqCborReader *reader, RinqBytes *value)
{
	RinqCborItem item;

	*value = rinq_bytes("", 0);
	if (!next_untagged(reader, &item))
		return false;
	if (item.kind == RINQ_CBOR_NULL)
		return true;
	if (item.kind == RINQ_CBOR_CHUNKS)
	{
		StringInfoData whole;

		initStringInfo(&whole);
		for (;;)
		{
			if (!rinq_cbor_next(reader, &item))
				return fail_reading(reader);
			if (item.kind == RINQ_CBOR_BREAK)
				break;
			if (item.kind != RINQ_CBOR_TEXT && item.kind != RINQ_CBOR_BYTES)
				return fail_reading(reader);
			appendBinaryStringInfo(&whole, item.bytes.data, (int) item.bytes.len);
		}
		*value = rinq_bytes(whole.data, whole.len);
	}
	else if (item.kind == RINQ_CBOR_TEXT || item.kind == RINQ_CBOR_BYTES)
		*value = item.bytes;
	else
		return fail_reading(reader);
	return rinq_is_utf8(value->data, value->len) || fail_reading(reader);
}

void
rinq_cbor_write_map(StringInfo out, uint64 pairs)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_map_start(pairs, p, RINQ_CBOR_HEAD_MAX);
}

void
rinq_cbor_write_array(StringInfo out, uint64 items)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_array_start(items, p, RINQ_CBOR_HEAD_MAX);
}

void
rinq_cbor_write_uint(StringInfo out, uint64 value)
{
	rinq_cbor_put_uint(out, value);
}

void
rinq_cbor_write_null(StringInfo out)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_null(p, RINQ_CBOR_HEAD_MAX);
}

void
rinq_cbor_write_bool(StringInfo out, bool value)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_bool(value, p, RINQ_CBOR_HEAD_MAX);
}

void
rinq_cbor_write_text(StringInfo out, RinqBytes text)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX + text.len);

	out->len += cbor_encode_string_start(text.len, p, RINQ_CBOR_HEAD_MAX);
	if (text.len > 0)
		memcpy(out->data + out->len, text.data, text.len);
	out->len += (int) text.len;
}
