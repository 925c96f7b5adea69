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

#include "cbor/stream.h"
#include "common/hashfn.h"
#include "protocol/order_key.h"

#define NO_KEY UINT64CONST(0)
#define KEY_OF_UNREADABLE UINT64CONST(1)

/* Take the next item, passing over tags. */
static bool
next_value(RinqCborReader *reader, RinqCborItem *item)
{
	do
	{
		if (!rinq_cbor_next(reader, item))
			return false;
	} while (item->kind == RINQ_CBOR_TAG);
	return true;
}

/* Go to the value of a key of a map, whose head was read; false when it has none. */
static bool
enter_key(RinqCborReader *reader, uint64 left, RinqBytes key)
{
	while (rinq_cbor_more(reader, &left))
	{
		RinqCborReader at_key = *reader;
		RinqCborItem item;

		if (rinq_cbor_next(&at_key, &item) && item.kind == RINQ_CBOR_TEXT && rinq_bytes_equal(item.bytes, key))
		{
			*reader = at_key;
			return true;
		}
		if (!rinq_cbor_skip(reader) || !rinq_cbor_skip(reader))
			return false;
	}
	return false;
}

/* Go to an element of an array, whose head was read; false when it has none. */
static bool
enter_index(RinqCborReader *reader, uint64 left, RinqBytes text)
{
	uint64		index = 0;
	size_t		i;

	if (text.len == 0 || text.len > 9)
		return false;
	for (i = 0; i < text.len; i++)
	{
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		index = index * 10 + (uint64) (text.data[i] - '0');
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

		if (!next_value(reader, &item))
			return false;
		if (item.kind == RINQ_CBOR_MAP)
		{
			if (!enter_key(reader, item.number, rinq_bytes_str(element)))
				return false;
		}
		else if (item.kind != RINQ_CBOR_ARRAY || !enter_index(reader, item.number, rinq_bytes_str(element)))
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

/* Hash a float; one that is a whole number is the same value as that number. */
static uint64
hash_float(RinqBytes bytes)
{
	double		value = read_float(bytes);

	if (value == floor(value) && fabs(value) < 9007199254740992.0)
		return hash_whole_number(value < 0, (uint64) (value < 0 ? -1 - value : value));
	if (isnan(value) || isinf(value))
		return hash_typed_value('f', bytes.data, bytes.len);
	return hash_typed_value('d', &value, sizeof(value));
}

/* Hash the value that comes next. */
static uint64
hash_next(RinqCborReader *reader)
{
	RinqCborReader whole = *reader;
	RinqCborItem item;
	RinqBytes	span;

	if (!rinq_cbor_next(reader, &item))
		return NO_KEY;
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
		default:
			break;
	}
	span.data = whole.rest.data;
	if (item.kind == RINQ_CBOR_OTHER)
		return hash_float(rinq_bytes(span.data, (size_t) (reader->rest.data - span.data)));
	if (!rinq_cbor_skip(&whole))
		return KEY_OF_UNREADABLE;
	return hash_typed_value('b', span.data, (size_t) (whole.rest.data - span.data));
}

/*
 * Return the key of the value that a path leads to: texts, whole numbers and
 * truth values by what they say, others as they were sent.  0 when there is
 * none, or null.  What cannot be read has a key that all such payloads share.
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
