/*-------------------------------------------------------------------------
 *
 * decode.c
 *	  CBOR to jsonb, first half: checks the input and puts it on a tape.
 *
 * libcbor's streaming decoder reads one item head at a time, allocates
 * nothing, and calls back; everything that concerns the structure of the
 * document is checked here.  cbor/tape.c keeps the result, cbor/build.c makes the jsonb from the tape.
 *
 * No count or length that the input declares leads to an allocation before
 * the bytes to justify it have been seen.  Errors are raised straight from
 * the callbacks; libcbor keeps no state that a longjmp could leave behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "cbor/decoder.h"
#include "cbor/head.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

/* ---------------- integers ---------------- */

static inline void
take_integer(RinqDecoder *d, RinqTapeKind kind, uint64 value)
{
	rinq_cbor_start_item(d);
	if (unlikely(d->number != 0))
		rinq_malformed(d, "The content of tag %d has the wrong type.", d->number);

	if (unlikely(rinq_cbor_at_key(d)))
	{
		char		text[32];

		if (kind == RINQ_TAPE_UINT)
			snprintf(text, sizeof(text), UINT64_FORMAT, value);
		else if (value == PG_UINT64_MAX)
			strlcpy(text, "-18446744073709551616", sizeof(text));
		else
			snprintf(text, sizeof(text), "-" UINT64_FORMAT, value + 1);
		rinq_cbor_complete_key(d, text, strlen(text));
		return;
	}
	rinq_cbor_append_item(d, kind, RINQ_BOUND_INTEGER)->u.integer = value;
	rinq_cbor_finish_item(d);
}

static void
on_uint8(void *d, uint8_t value)
{
	take_integer(d, RINQ_TAPE_UINT, value);
}

static void
on_uint16(void *d, uint16_t value)
{
	take_integer(d, RINQ_TAPE_UINT, value);
}

static void
on_uint32(void *d, uint32_t value)
{
	take_integer(d, RINQ_TAPE_UINT, value);
}

static void
on_uint64(void *d, uint64_t value)
{
	take_integer(d, RINQ_TAPE_UINT, value);
}

static void
on_negint8(void *d, uint8_t value)
{
	take_integer(d, RINQ_TAPE_NINT, value);
}

static void
on_negint16(void *d, uint16_t value)
{
	take_integer(d, RINQ_TAPE_NINT, value);
}

static void
on_negint32(void *d, uint32_t value)
{
	take_integer(d, RINQ_TAPE_NINT, value);
}

static void
on_negint64(void *d, uint64_t value)
{
	take_integer(d, RINQ_TAPE_NINT, value);
}

/* ---------------- floats ---------------- */

static void
on_double(void *context, double value)
{
	RinqDecoder *d = context;

	rinq_cbor_start_plain_item(d);
	if (unlikely(!isfinite(value)))
		rinq_unsupported(d, "JSON has no NaN and no infinity.");

	if (unlikely(rinq_cbor_at_key(d)))
	{
		char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
		int			len;

		/* adding zero turns -0 into 0 */
		len = double_to_shortest_decimal_bufn(value + 0.0, text);
		rinq_cbor_complete_key(d, text, len);
		return;
	}
	rinq_cbor_append_item(d, RINQ_TAPE_DOUBLE, RINQ_BOUND_DOUBLE)->u.real = value;
	rinq_cbor_finish_item(d);
}

static void
on_float(void *context, float value)
{
	on_double(context, value);
}

/* ---------------- simple values ---------------- */

static void
on_null(void *context)
{
	RinqDecoder *d = context;

	rinq_cbor_start_plain_item(d);
	if (rinq_cbor_at_key(d))
		rinq_unsupported(d, "A map key is null or undefined.");
	rinq_cbor_append_item(d, RINQ_TAPE_NULL, RINQ_BOUND_PLAIN);
	rinq_cbor_finish_item(d);
}

static void
on_boolean(void *context, bool value)
{
	RinqDecoder *d = context;

	rinq_cbor_start_plain_item(d);
	if (rinq_cbor_at_key(d))
	{
		rinq_cbor_complete_key(d, value ? "true" : "false", value ? 4 : 5);
		return;
	}
	rinq_cbor_append_item(d, value ? RINQ_TAPE_TRUE : RINQ_TAPE_FALSE, RINQ_BOUND_PLAIN);
	rinq_cbor_finish_item(d);
}

/* ---------------- text strings ---------------- */

static void
check_utf8(RinqDecoder *d, const char *text, size_t len)
{
	if (likely(rinq_is_plain_ascii(text, len)))
		return;
	if (memchr(text, '\0', len) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("CBOR text string at byte %zu contains a NUL character",
						d->offset),
				 errdetail("PostgreSQL cannot store it in text.")));
	if (len > PG_INT32_MAX || !pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("CBOR text string at byte %zu is not valid UTF-8", d->offset)));
}

static void
complete_text(RinqDecoder *d, const char *text, size_t len)
{
	rinq_cbor_start_plain_item(d);
	if (GetDatabaseEncoding() != PG_UTF8 && !rinq_is_plain_ascii(text, len))
	{
		MemoryContext old;
		char	   *converted;

		old = MemoryContextSwitchTo(rinq_cbor_scratch(d));
		converted = pg_any_to_server(text, (int) len, PG_UTF8);
		MemoryContextSwitchTo(old);
		if (converted != text)
			len = strlen(converted);
		text = converted;
	}
	rinq_cbor_complete_string(d, text, len);
}

/* ---------------- byte strings ---------------- */

/*
 * Complete a byte string: base64url without padding unless a tag asks for
 * something else (RFC 8949, sections 3.4.5.2 and 6.1), or the digits of a
 * bignum.
 */
static void
complete_bignum(RinqDecoder *d, const uint8 *bytes, size_t len)
{
	bool		negative = d->number == RINQ_TAG_NEGATIVE_BIGNUM;
	RinqTapeItem *item;

	if (d->top->kind == RINQ_FRAME_FRACTION)
	{
		item = rinq_cbor_append_item(d, negative ? RINQ_TAPE_BIG_NEGATIVE : RINQ_TAPE_BIG_POSITIVE, 0);
		item->u.text = (const char *) bytes;
		item->len = (uint32) len;
	}
	else
	{
		MemoryContext old;
		char	   *num;

		old = MemoryContextSwitchTo(rinq_cbor_scratch(d));
		num = rinq_numeric_from_fraction(negative, bytes, len, 0, 10);
		MemoryContextSwitchTo(old);
		if (num == NULL)
			rinq_cbor_numeric_overflow(d);
		item = rinq_cbor_append_item(d, RINQ_TAPE_NUMERIC, RINQ_BOUND_NUMERIC + VARSIZE(num));
		item->u.text = num;
		item->len = VARSIZE(num);
	}
	rinq_cbor_finish_item(d);
}

/*
 * Complete a byte string: base64url without padding unless a tag asks for
 * something else (RFC 8949, sections 3.4.5.2 and 6.1), or the digits of a
 * bignum.
 */
static void
complete_bytes(RinqDecoder *d, const uint8 *bytes, size_t len)
{
	uint8		hint;
	char	   *text;

	if (d->number == RINQ_TAG_BIGNUM || d->number == RINQ_TAG_NEGATIVE_BIGNUM)
	{
		complete_bignum(d, bytes, len);
		return;
	}
	rinq_cbor_start_plain_item(d);

	/* the text is longer, so this cannot become a string */
	if (len > JENTRY_OFFLENMASK)
	{
		rinq_cbor_complete_string(d, (const char *) bytes, len);
		return;
	}

	hint = rinq_cbor_effective_hint(d);
	text = MemoryContextAlloc(rinq_cbor_scratch(d),
							  hint == RINQ_TAG_BASE16 ? len * 2 : (len + 2) / 3 * 4);
	if (hint == RINQ_TAG_BASE16)
		len = rinq_base16(text, bytes, len);
	else
		len = rinq_base64(text, bytes, len, hint != RINQ_TAG_BASE64);
	rinq_cbor_complete_string(d, text, len);
}

/*
 * Add a chunk to the indefinite-length string being read.  The first one is
 * only remembered, because often it is the only one.
 */
static void
add_chunk(RinqDecoder *d, const char *data, size_t len)
{
	if (d->chunk_text == NULL)
	{
		d->chunk_text = data;
		d->chunk_len = len;
		return;
	}

	Assert(d->chunks != RINQ_CHUNKS_NONE);
	if (d->chunk_buf.data == NULL)
		initStringInfo(&d->chunk_buf);
	if (d->chunk_text != d->chunk_buf.data)
	{
		resetStringInfo(&d->chunk_buf);
		appendBinaryStringInfo(&d->chunk_buf, d->chunk_text, (int) d->chunk_len);
	}
	appendBinaryStringInfo(&d->chunk_buf, data, (int) len);
	d->chunk_text = d->chunk_buf.data;
	d->chunk_len = d->chunk_buf.len;
}

static void
finish_chunks(RinqDecoder *d)
{
	RinqChunkMode mode = d->chunks;
	const char *text = d->chunk_text != NULL ? d->chunk_text : "";
	size_t		len = d->chunk_text != NULL ? d->chunk_len : 0;

	/* the buffer serves the next string, too */
	if (text == d->chunk_buf.data)
	{
		char	   *copy = MemoryContextAlloc(rinq_cbor_scratch(d), len);

		memcpy(copy, text, len);
		text = copy;
	}
	d->chunks = RINQ_CHUNKS_NONE;
	d->chunk_text = NULL;

	if (mode == RINQ_CHUNKS_TEXT)
		complete_text(d, text, len);
	else
		complete_bytes(d, (const uint8 *) text, len);
}

static void
on_string(void *context, cbor_data data, rinq_cbor_size len)
{
	RinqDecoder *d = context;
	const char *text = (const char *) data;

	if (d->chunks == RINQ_CHUNKS_BYTES)
		rinq_malformed(d, "An indefinite-length byte string contains a text string.");
	check_utf8(d, text, len);
	if (d->chunks == RINQ_CHUNKS_TEXT)
		add_chunk(d, text, len);
	else
		complete_text(d, text, len);
}

static void
on_bytes(void *context, cbor_data data, rinq_cbor_size len)
{
	RinqDecoder *d = context;

	if (d->chunks == RINQ_CHUNKS_TEXT)
		rinq_malformed(d, "An indefinite-length text string contains a byte string.");
	if (d->chunks == RINQ_CHUNKS_BYTES)
		add_chunk(d, (const char *) data, len);
	else
		complete_bytes(d, data, len);
}

static void
on_string_start(void *context)
{
	RinqDecoder *d = context;

	rinq_cbor_start_plain_item(d);
	d->chunks = RINQ_CHUNKS_TEXT;
}

static void
on_bytes_start(void *context)
{
	RinqDecoder *d = context;

	rinq_cbor_start_item(d);
	d->chunks = RINQ_CHUNKS_BYTES;
}

/* ---------------- containers ---------------- */

/* Return the bytes that come after the head being decoded. */
static inline size_t
bytes_behind_head(const RinqDecoder *d)
{
	size_t		head = 1 + rinq_head_argument_size(d->data[d->offset]);

	Assert(head <= d->len - d->offset);
	return d->len - d->offset - head;
}

static void
take_array(RinqDecoder *d, uint32 expected)
{
	rinq_cbor_start_item(d);
	if (d->number == RINQ_TAG_DECIMAL || d->number == RINQ_TAG_BIGFLOAT)
		rinq_cbor_open_container(d, RINQ_FRAME_FRACTION, expected);
	else
	{
		rinq_cbor_start_plain_item(d);
		rinq_cbor_open_container(d, RINQ_FRAME_ARRAY, expected);
	}
}

static void
on_array_start(void *context, rinq_cbor_size count)
{
	RinqDecoder *d = context;
	size_t		left = bytes_behind_head(d);

	/* every element takes at least one byte */
	if (count > left)
		rinq_malformed(d, "An array of length " UINT64_FORMAT
					   " cannot fit into the %zu bytes that follow.",
					   (uint64) count, left);
	take_array(d, (uint32) count);
}

static void
on_indefinite_array_start(void *d)
{
	take_array(d, RINQ_INDEFINITE);
}

static void
on_map_start(void *context, rinq_cbor_size count)
{
	RinqDecoder *d = context;
	size_t		left = bytes_behind_head(d);

	rinq_cbor_start_plain_item(d);
	if (count > left / 2)
		rinq_malformed(d, "A map of length " UINT64_FORMAT
					   " cannot fit into the %zu bytes that follow.",
					   (uint64) count, left);
	rinq_cbor_open_container(d, RINQ_FRAME_MAP, (uint32) count * 2);
}

static void
on_indefinite_map_start(void *context)
{
	rinq_cbor_start_plain_item(context);
	rinq_cbor_open_container(context, RINQ_FRAME_MAP, RINQ_INDEFINITE);
}

static void
on_break(void *context)
{
	RinqDecoder *d = context;

	if (d->chunks != RINQ_CHUNKS_NONE)
	{
		finish_chunks(d);
		return;
	}
	if (d->tagged)
		rinq_malformed(d, "A tag has no content.");
	if (d->top->expected != RINQ_INDEFINITE)
		rinq_malformed(d, "A break stands outside of any indefinite-length item.");
	if (d->top->kind == RINQ_FRAME_MAP && d->top->count % 2 != 0)
		rinq_malformed(d, "The last key of an indefinite-length map has no value.");
	Assert(d->top > d->frames);
	rinq_cbor_close_container(d);
	rinq_cbor_finish_item(d);
}

/* ---------------- tags ---------------- */

/*
 * Note a tag: those of numbers and of text encodings are obeyed, all others
 * are ignored and their content is taken.
 */
static void
on_tag(void *context, uint64_t tag)
{
	RinqDecoder *d = context;

	rinq_cbor_start_item(d);
	if (d->number != 0)
		rinq_malformed(d, "The content of tag %d has the wrong type.", d->number);

	if (tag >= RINQ_TAG_BIGNUM && tag <= RINQ_TAG_BIGFLOAT)
	{
		if (rinq_cbor_at_key(d))
			rinq_unsupported(d, "A map key is a number with tag %d.", (int) tag);
		if (d->top->kind == RINQ_FRAME_FRACTION && tag >= RINQ_TAG_DECIMAL)
			rinq_malformed(d, "The content of tag %d must be an array of two integers.",
						   d->top->tag);
		d->number = (uint8) tag;
	}
	else if (tag >= RINQ_TAG_BASE64URL && tag <= RINQ_TAG_BASE16)
		d->hint = (uint8) tag;
	d->tagged = true;
}

/*
 * Return the table of callbacks.  It starts as a copy of libcbor's, because
 * later versions of it have members that this one does not know.
 */
static const struct cbor_callbacks *
decoder_callbacks(void)
{
	static struct cbor_callbacks callbacks;
	static bool ready = false;

	if (!ready)
	{
		callbacks = cbor_empty_callbacks;
		callbacks.uint8 = on_uint8;
		callbacks.uint16 = on_uint16;
		callbacks.uint32 = on_uint32;
		callbacks.uint64 = on_uint64;
		callbacks.negint8 = on_negint8;
		callbacks.negint16 = on_negint16;
		callbacks.negint32 = on_negint32;
		callbacks.negint64 = on_negint64;
		callbacks.byte_string_start = on_bytes_start;
		callbacks.byte_string = on_bytes;
		callbacks.string = on_string;
		callbacks.string_start = on_string_start;
		callbacks.indef_array_start = on_indefinite_array_start;
		callbacks.array_start = on_array_start;
		callbacks.indef_map_start = on_indefinite_map_start;
		callbacks.map_start = on_map_start;
		callbacks.tag = on_tag;
		callbacks.float2 = on_float;
		callbacks.float4 = on_float;
		callbacks.float8 = on_double;
		callbacks.undefined = on_null;
		callbacks.null = on_null;
		callbacks.boolean = on_boolean;
		callbacks.indef_break = on_break;
		ready = true;
	}
	return &callbacks;
}

/*
 * Handle the well-formed items that libcbor 0.8 does not know: tags 6 to 20
 * in one byte, and simple values.  Returns the number of bytes taken, zero
 * for everything else.
 */
static inline size_t
take_special_item(RinqDecoder *d, uint8 head)
{
	if (likely(head < 0xC6 || (head > 0xD4 && head < 0xE0) ||
			   (head > 0xF3 && head != 0xF8)))
		return 0;

	if (head <= 0xD4)
	{
		on_tag(d, head & 0x1F);
		return 1;
	}

	rinq_cbor_start_item(d);
	if (head != 0xF8)
		rinq_unsupported(d, "It is the simple value %d.", head & 0x1F);
	if (d->len - d->offset < 2)
		rinq_malformed(d, "The input ends inside of an item.");
	if (d->data[d->offset + 1] < 32)
		rinq_malformed(d, "The simple value %d has the wrong length.",
					   d->data[d->offset + 1]);
	rinq_unsupported(d, "It is the simple value %d.", d->data[d->offset + 1]);
	return 0;					/* keep compiler quiet */
}

static void
decode_items(RinqDecoder *d)
{
	const struct cbor_callbacks *callbacks = decoder_callbacks();

	while (d->offset < d->len && !d->done)
	{
		const uint8 *start = d->data + d->offset;
		size_t		taken = take_special_item(d, *start);

		CHECK_FOR_INTERRUPTS();
		if (taken == 0)
		{
			struct cbor_decoder_result result;

			result = cbor_stream_decode(start, d->len - d->offset, callbacks, d);
			if (result.status == CBOR_DECODER_NEDATA)
				rinq_malformed(d, "The input ends inside of an item.");
			if (result.status != CBOR_DECODER_FINISHED)
				rinq_malformed(d, "The byte 0x%02X starts no item.", *start);
			taken = result.read;
		}
		d->offset += taken;
		Assert(taken > 0 && d->offset <= d->len);
	}

	if (!d->done)
	{
		if (d->len == 0)
			rinq_malformed(d, "The input is empty.");
		if (d->chunks != RINQ_CHUNKS_NONE)
			rinq_malformed(d, "The input ends inside of an indefinite-length string.");
		if (d->tagged)
			rinq_malformed(d, "The input ends after a tag.");
		rinq_malformed(d, "The input ends inside of an array or a map.");
	}
	if (d->offset < d->len)
		rinq_malformed(d, "The input goes on after the end of the item.");
}

Jsonb *
rinq_cbor_to_jsonb(const uint8 *data, size_t len)
{
	RinqDecoder d;
	Jsonb	   *result;

	if (len > MaxAllocSize)
		rinq_cbor_too_large();

	/* everything up to the arrays at the end, which need no initial value */
	memset(&d, 0, offsetof(RinqDecoder, first_tape));
	d.data = data;
	d.len = len;
	d.tape = d.first_tape;
	d.tape_size = RINQ_FIRST_TAPE_ITEMS;
	d.top = d.frames;
	memset(d.top, 0, sizeof(RinqFrame));
	d.top->expected = 1;

	decode_items(&d);
	result = rinq_cbor_build(d.tape, d.bound);

	if (d.tape != d.first_tape)
		pfree(d.tape);
	if (d.chunk_buf.data != NULL)
		pfree(d.chunk_buf.data);
	if (d.scratch != NULL)
		MemoryContextDelete(d.scratch);
	return result;
}
