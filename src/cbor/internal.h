/*-------------------------------------------------------------------------
 *
 * internal.h
 *	  What the source files of the CBOR converter share with each other.
 *
 * Private to src/cbor_*.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_INTERNAL_H
#define RINQ_CBOR_INTERNAL_H

/* not <cbor/cbor_jsonb.h>, which could find our own header of that name */
#include <cbor/callbacks.h>
#include <cbor/configuration.h>
#include <cbor/encoding.h>
#include <cbor/streaming.h>

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#ifndef HAVE_INT128
#error "rinq needs a compiler with 128-bit integers"
#endif

#ifndef RINQ_LINK_LIBRARIES

/* what is used of the library, still called by its names (base/library.h) */
typedef struct RinqCborFunctions
{
	__typeof__(&cbor_stream_decode) stream_decode;
	__typeof__(&cbor_encode_uint) encode_uint;
	__typeof__(&cbor_encode_negint) encode_negint;
	__typeof__(&cbor_encode_bytestring_start) encode_bytestring_start;
	__typeof__(&cbor_encode_string_start) encode_string_start;
	__typeof__(&cbor_encode_array_start) encode_array_start;
	__typeof__(&cbor_encode_map_start) encode_map_start;
	__typeof__(&cbor_encode_tag) encode_tag;
	__typeof__(&cbor_encode_bool) encode_bool;
	__typeof__(&cbor_encode_null) encode_null;
	__typeof__(&cbor_encode_double) encode_double;
} RinqCborFunctions;

extern RinqCborFunctions rinq_cbor_functions;

#define cbor_stream_decode rinq_cbor_functions.stream_decode
#define cbor_encode_uint rinq_cbor_functions.encode_uint
#define cbor_encode_negint rinq_cbor_functions.encode_negint
#define cbor_encode_bytestring_start rinq_cbor_functions.encode_bytestring_start
#define cbor_encode_string_start rinq_cbor_functions.encode_string_start
#define cbor_encode_array_start rinq_cbor_functions.encode_array_start
#define cbor_encode_map_start rinq_cbor_functions.encode_map_start
#define cbor_encode_tag rinq_cbor_functions.encode_tag
#define cbor_encode_bool rinq_cbor_functions.encode_bool
#define cbor_encode_null rinq_cbor_functions.encode_null
#define cbor_encode_double rinq_cbor_functions.encode_double

#endif

/* libcbor changed the type of counts and lengths in its callbacks in 0.9 */
#if CBOR_MAJOR_VERSION == 0 && CBOR_MINOR_VERSION < 9
typedef size_t rinq_cbor_size;
#else
typedef uint64_t rinq_cbor_size;
#endif

/*
 * The tape: what the decoder hands to the builder.  One entry per data item
 * in input order; a container is followed by its content, a map's content
 * alternates keys (always RINQ_TAPE_STRING) and values.  Texts point into
 * the input or into the decoder's scratch memory.
 */
typedef enum RinqTapeKind
{
	RINQ_TAPE_NULL,
	RINQ_TAPE_FALSE,
	RINQ_TAPE_TRUE,
	RINQ_TAPE_STRING,			/* text, len: in the server encoding */
	RINQ_TAPE_UINT,				/* integer */
	RINQ_TAPE_NINT,				/* -1 - integer */
	RINQ_TAPE_DOUBLE,			/* real: finite */
	RINQ_TAPE_NUMERIC,			/* text: a complete numeric, len: its size */
	RINQ_TAPE_ARRAY,			/* len: elements; tree */
	RINQ_TAPE_OBJECT,			/* len: pairs; tree */
	RINQ_TAPE_BIG_POSITIVE,		/* text, len: bytes of an integer; these two */
	RINQ_TAPE_BIG_NEGATIVE		/* live only while a fraction is being read */
} RinqTapeKind;

typedef struct RinqTapeItem
{
	uint32		kind;
	uint32		len;
	union
	{
		const char *text;
		uint64		integer;
		double		real;
		struct
		{
			uint32		next;	/* index of the item after the content */
			uint32		offset; /* where in the input the container starts */
		}			tree;
	}			u;
} RinqTapeItem;

/*
 * Upper bounds of what each item takes in the result: its JEntry, padding
 * in front, and the value.  The decoder sums them up, so that the builder
 * allocates once and never checks for room.
 */
#define RINQ_BOUND_PLAIN		4	/* null, true, false */
#define RINQ_BOUND_STRING		4	/* plus the text */
#define RINQ_BOUND_CONTAINER	11
#define RINQ_BOUND_INTEGER		24
#define RINQ_BOUND_DOUBLE		31
#define RINQ_BOUND_NUMERIC		7	/* plus the numeric */

/* room for any number rinq_numeric_put() writes */
#define RINQ_NUMERIC_PUT_MAX	24

/* cbor/build.c */
extern Jsonb *rinq_cbor_build(const RinqTapeItem *tape, uint64 bound);

/* cbor/numeric_out.c */
extern void rinq_cbor_append_numeric(StringInfo out, const char *num, Size avail);

/* cbor/numeric_in.c */
extern void rinq_shortest_decimal(double d, uint64 *mantissa, int *exponent);
extern Size rinq_numeric_put(char *dst, bool negative, uint128 mantissa,
							 int exponent, int dscale);
extern Size rinq_numeric_put_double(char *dst, double d);
extern char *rinq_numeric_from_fraction(bool negative, const uint8 *bytes,
										size_t len, int64 exponent, int base);

/* cbor/text.c */
extern bool rinq_is_utf8(const char *text, size_t len);
extern bool rinq_is_plain_ascii(const char *s, size_t len);
extern size_t rinq_base64(char *dst, const uint8 *src, size_t len, bool url);
extern size_t rinq_base16(char *dst, const uint8 *src, size_t len);

/* cbor/encode.c */
extern void rinq_cbor_grow(StringInfo out, Size need);

/*
 * Make room for `need` more bytes (and the terminating NUL) and return where
 * they go.
 */
static inline unsigned char *
rinq_cbor_reserve(StringInfo out, Size need)
{
	if (unlikely((Size) (out->maxlen - out->len) <= need))
		rinq_cbor_grow(out, need);
	Assert((Size) (out->maxlen - out->len) > need);
	return (unsigned char *) out->data + out->len;
}

#define RINQ_CBOR_HEAD_MAX	9

static inline void
rinq_cbor_put_uint(StringInfo out, uint64 value)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_uint(value, p, RINQ_CBOR_HEAD_MAX);
}

/* append the negative integer -1 - n */
static inline void
rinq_cbor_put_negint(StringInfo out, uint64 n)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_negint(n, p, RINQ_CBOR_HEAD_MAX);
}

#endif							/* RINQ_CBOR_INTERNAL_H */
