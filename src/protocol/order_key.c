/*-------------------------------------------------------------------------
 *
 * order_key.c
 *	  The value in a payload by which requests are handled one at a time.
 *
 * The peer, which has no database, and executors compute it alike, from the
 * payload's CBOR.  It is a number: two values may share one, upon which their
 * requests wait for each other for nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "cbor/decoder.h"
#include "cbor/stream.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "common/shortest_dec.h"
#include "common/string.h"
#include "protocol/order_key.h"

#define NO_KEY UINT64CONST(0)
#define KEY_OF_UNREADABLE UINT64CONST(1)

/*
 * Take the next item, passing over tags, of which "tag" is the one of a number
 * if there is any; false when there is none.
 */
static bool
next_value(RinqCborReader *reader, RinqCborItem *item, uint64 *tag)
{
	*tag = 0;
	do
	{
		if (!rinq_cbor_next(reader, item))
			return false;
		if (item->kind == RINQ_CBOR_TAG && item->number >= RINQ_TAG_BIGNUM && item->number <= RINQ_TAG_BIGFLOAT)
			*tag = item->number;
	} while (item->kind == RINQ_CBOR_TAG);
	return true;
}

/*
 * Read the text that comes next, in whichever form it was sent; "made" is to be
 * freed then, unless it is NULL.
 */
static bool
read_any_text(RinqCborReader *reader, RinqBytes *text, char **made)
{
	const char *end = reader->rest.data + reader->rest.len;
	const char *begin = reader->rest.data;
	bool		good = rinq_cbor_read_text(reader, text);

	*made = text->len > 0 && (text->data < begin || text->data >= end) ? unconstify(char *, text->data) : NULL;
	return good;
}

/* Tell whether the key of a map that comes next has this name in SQL. */
static bool
key_has_name(RinqCborReader reader, RinqBytes name)
{
	RinqCborReader at_key = reader;
	RinqCborItem item;
	RinqBytes	text;
	uint64		tag;
	char		number[32];
	char	   *made = NULL;
	bool		same = false;

	if (!next_value(&reader, &item, &tag))
		return false;
	if (item.kind == RINQ_CBOR_TEXT)
		return rinq_bytes_equal(item.bytes, name);
	if (item.kind == RINQ_CBOR_CHUNKS)
	{
		same = read_any_text(&at_key, &text, &made) && rinq_bytes_equal(text, name);
		if (made != NULL)
			pfree(made);
		return same;
	}
	if (item.kind != RINQ_CBOR_UINT && (item.kind != RINQ_CBOR_NINT || item.number == PG_UINT64_MAX))
		return false;
	if (item.kind == RINQ_CBOR_UINT)
		snprintf(number, sizeof(number), UINT64_FORMAT, item.number);
	else
		snprintf(number, sizeof(number), "-" UINT64_FORMAT, item.number + 1);
	return rinq_bytes_are(name, number);
}

/* Go to the value of a key of a map, whose head was read; false when it has none. */
static bool
enter_key(RinqCborReader *reader, uint64 left, RinqBytes key)
{
	while (rinq_cbor_more(reader, &left))
	{
		bool		found = key_has_name(*reader, key);

		if (!rinq_cbor_skip(reader))
			return false;
		if (found)
			return true;
		if (!rinq_cbor_skip(reader))
			return false;
	}
	return false;
}

/* Count the elements of an array that come next, which is reading them. */
static uint64
count_elements(RinqCborReader *reader, uint64 left)
{
	RinqCborReader ahead = *reader;
	uint64		count = 0;

	if (left != RINQ_CBOR_INDEFINITE)
		return left;
	while (rinq_cbor_more(&ahead, &left) && rinq_cbor_skip(&ahead))
		count++;
	reader->items = ahead.items;
	reader->failed = ahead.failed;
	return count;
}

/*
 * Go to an element of an array, whose head was read, as jsonb's #> does: from
 * the end if the number is negative.  False when it has none.
 */
static bool
enter_index(RinqCborReader *reader, uint64 left, const char *text)
{
	char	   *end;
	int64		index;

	errno = 0;
	index = strtoint(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0)
		return false;
	if (index < 0)
	{
		uint64		count = count_elements(reader, left);

		if ((uint64) -index > count || count > PG_INT32_MAX)
			return false;
		index += (int64) count;
	}
	for (; rinq_cbor_more(reader, &left); index--)
	{
		if (index == 0)
			return true;
		if (!rinq_cbor_skip(reader))
			return false;
	}
	return false;
}

/* Go to what a path leads to, each of whose elements ends with a zero byte. */
static bool
follow_path(RinqCborReader *reader, RinqBytes path)
{
	const char *end = path.data + path.len;
	const char *element;

	for (element = path.data; element < end; element += strlen(element) + 1)
	{
		RinqCborItem item;
		uint64		tag;

		if (!next_value(reader, &item, &tag))
			return false;
		if (item.kind == RINQ_CBOR_MAP)
		{
			if (!enter_key(reader, item.number, rinq_bytes_str(element)))
				return false;
		}
		else if (item.kind != RINQ_CBOR_ARRAY || !enter_index(reader, item.number, element))
			return false;
	}
	return true;
}

static uint64
hash_typed_value(char kind, const void *data, size_t len)
{
	uint64		hash = hash_bytes_extended(data, (int) len, (uint64) kind);

	return hash == NO_KEY || hash == KEY_OF_UNREADABLE ? hash + 2 : hash;
}

static uint64
hash_whole_number(bool negative, uint64 number)
{
	return hash_typed_value(negative ? 'n' : 'u', &number, sizeof(number));
}

/* Read a float of 2, 4 or 8 bytes, behind its head. */
static double
read_float(RinqBytes bytes)
{
	uint64		bits = 0;
	size_t		i;

	for (i = 1; i < bytes.len; i++)
		bits = bits << 8 | (uint8) bytes.data[i];
	if (bytes.len == 9)
	{
		double		value;

		memcpy(&value, &bits, sizeof(value));
		return value;
	}
	if (bytes.len == 5)
	{
		uint32		half = (uint32) bits;
		float		value;

		memcpy(&value, &half, sizeof(value));
		return value;
	}
	{
		int			exponent = (int) (bits >> 10 & 0x1F);
		double		mantissa = (double) (bits & 0x3FF);
		double		value = exponent == 0 ? ldexp(mantissa, -24) :
			exponent == 31 ? (double) NAN : ldexp(mantissa + 1024, exponent - 25);

		return bits & 0x8000 ? -value : value;
	}
}

/*
 * Tell whether a float stands for a whole number of up to 64 bits, which is the
 * one that its shortest decimal says, as in SQL.
 */
static bool
is_whole_number(double value, uint64 *number)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
	const char *p;
	int			exponent = 0;
	bool		fraction = false;

	if (value != floor(value) || value >= 1e20)
		return false;
	(void) double_to_shortest_decimal_buf(value, text);
	*number = 0;
	for (p = text; *p != '\0' && *p != 'e'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (pg_mul_u64_overflow(*number, 10, number) || pg_add_u64_overflow(*number, (uint64) (*p - '0'), number))
			return false;
		else if (fraction)
			exponent--;
	}
	if (*p == 'e')
		exponent += atoi(p + 1);
	for (; exponent > 0; exponent--)
	{
		if (pg_mul_u64_overflow(*number, 10, number))
			return false;
	}
	return exponent == 0;
}

/* Hash a float; one that is a whole number is the same value as that number. */
static uint64
hash_float(RinqBytes bytes)
{
	double		value = read_float(bytes);
	uint64		number;

	if (isnan(value) || isinf(value))
		return hash_typed_value('f', bytes.data, bytes.len);
	if (!is_whole_number(fabs(value), &number))
		return hash_typed_value('d', &value, sizeof(value));
	return value < 0 ? hash_whole_number(true, number - 1) : hash_whole_number(false, number);
}

/* Hash a whole number that was sent as bytes. */
static uint64
hash_bignum(bool negative, RinqBytes bytes)
{
	uint64		number = 0;
	size_t		i;

	while (bytes.len > 0 && bytes.data[0] == '\0')
		bytes = rinq_bytes(bytes.data + 1, bytes.len - 1);
	if (bytes.len > sizeof(number))
		return hash_typed_value(negative ? 'N' : 'U', bytes.data, bytes.len);
	for (i = 0; i < bytes.len; i++)
		number = number << 8 | (uint8) bytes.data[i];
	return hash_whole_number(negative, number);
}

/* Hash a text that was sent in chunks as the one that it is. */
static uint64
hash_chunked_text(RinqCborReader *reader)
{
	RinqBytes	text;
	char	   *made;
	uint64		hash;

	hash = read_any_text(reader, &text, &made) ? hash_typed_value('t', text.data, text.len) : KEY_OF_UNREADABLE;
	if (made != NULL)
		pfree(made);
	return hash;
}

/* Hash what cannot be compared but as it was sent. */
static uint64
hash_as_sent(RinqCborReader *reader)
{
	const char *begin = reader->rest.data;

	if (!rinq_cbor_skip(reader))
		return KEY_OF_UNREADABLE;
	return hash_typed_value('b', begin, (size_t) (reader->rest.data - begin));
}

/* Hash the value that comes next. */
static uint64
hash_next(RinqCborReader *reader)
{
	RinqCborReader whole = *reader;
	RinqCborItem item;
	uint64		tag;

	if (!next_value(reader, &item, &tag))
		return NO_KEY;
	if (item.kind == RINQ_CBOR_BYTES && (tag == RINQ_TAG_BIGNUM || tag == RINQ_TAG_NEGATIVE_BIGNUM))
		return hash_bignum(tag == RINQ_TAG_NEGATIVE_BIGNUM, item.bytes);
	if (tag != 0)
		return hash_as_sent(&whole);
	switch (item.kind)
	{
		case RINQ_CBOR_NULL:
			return NO_KEY;
		case RINQ_CBOR_TEXT:
			return hash_typed_value('t', item.bytes.data, item.bytes.len);
		case RINQ_CBOR_UINT:
		case RINQ_CBOR_NINT:
			return hash_whole_number(item.kind == RINQ_CBOR_NINT, item.number);
		case RINQ_CBOR_FALSE:
		case RINQ_CBOR_TRUE:
			return hash_typed_value(item.kind == RINQ_CBOR_TRUE ? 'T' : 'F', "", 0);
		case RINQ_CBOR_OTHER:
			return hash_float(item.bytes);
		case RINQ_CBOR_CHUNKS:
			return item.number == RINQ_CBOR_TEXT ? hash_chunked_text(&whole) : hash_as_sent(&whole);
		default:
			return hash_as_sent(&whole);
	}
}

/*
 * Return the key of the value that a path leads to: texts, whole numbers of up
 * to 64 bits and truth values by what they say, others as they were sent.  0 when
 * there is none, or null.  What cannot be read has a key that all such payloads
 * share.
 */
uint64
rinq_order_key(RinqBytes payload, RinqBytes path)
{
	RinqCborReader reader;
	uint64		key;

	Assert(path.len > 0);
	if (payload.len == 0)
		return NO_KEY;
	rinq_cbor_reader_init(&reader, payload);
	key = follow_path(&reader, path) ? hash_next(&reader) : NO_KEY;
	return reader.failed ? KEY_OF_UNREADABLE : key;
}
