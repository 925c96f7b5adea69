/*-------------------------------------------------------------------------
 *
 * decoder.h
 *	  The state of the CBOR decoder, between cbor/decode.c, which reads items,
 *	  and cbor/tape.c, which keeps what they make.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_DECODER_H
#define RINQ_CBOR_DECODER_H

#include "cbor/cbor_jsonb.h"
#include "cbor/internal.h"
#include "utils/memutils.h"

#define RINQ_INDEFINITE			PG_UINT32_MAX
#define RINQ_FIRST_TAPE_ITEMS	64

/* tags that mean something here */
#define RINQ_TAG_BIGNUM			2
#define RINQ_TAG_NEGATIVE_BIGNUM	3
#define RINQ_TAG_DECIMAL		4
#define RINQ_TAG_BIGFLOAT		5
#define RINQ_TAG_BASE64URL		21
#define RINQ_TAG_BASE64			22
#define RINQ_TAG_BASE16			23

typedef enum RinqFrameKind
{
	RINQ_FRAME_ROOT,			/* holds exactly one item */
	RINQ_FRAME_ARRAY,
	RINQ_FRAME_MAP,
	RINQ_FRAME_FRACTION			/* the array inside of tag 4 or 5 */
} RinqFrameKind;

/* A container whose content is being read. */
typedef struct RinqFrame
{
	uint32		count;			/* items so far; a map has two per pair */
	uint32		expected;		/* items in all, or RINQ_INDEFINITE */
	uint32		item;			/* index on the tape */
	uint8		kind;
	uint8		hint;			/* how to write byte strings: a tag number */
	uint8		tag;			/* RINQ_FRAME_FRACTION: 4 or 5 */
} RinqFrame;

typedef enum RinqChunkMode
{
	RINQ_CHUNKS_NONE,
	RINQ_CHUNKS_TEXT,
	RINQ_CHUNKS_BYTES
} RinqChunkMode;

typedef struct RinqDecoder
{
	const uint8 *data;
	size_t		len;
	size_t		offset;			/* where the current item starts */

	RinqTapeItem *tape;
	uint32		tape_used;
	uint32		tape_size;
	uint64		bound;			/* see RINQ_BOUND_PLAIN */

	RinqFrame  *top;			/* innermost open container */
	bool		done;			/* the root item is complete */

	/* what the tags in front of the next item say */
	bool		tagged;			/* there is one */
	uint8		number;			/* RINQ_TAG_BIGNUM ... RINQ_TAG_BIGFLOAT, or 0 */
	uint8		hint;			/* RINQ_TAG_BASE64URL ... RINQ_TAG_BASE16, or
								 * 0 */

	/* an indefinite-length string whose chunks are being read */
	RinqChunkMode chunks;
	const char *chunk_text;		/* the string so far */
	size_t		chunk_len;
	StringInfoData chunk_buf;	/* holds it if there were several chunks */

	MemoryContext scratch;		/* converted texts and numbers; NULL if none */

	RinqTapeItem first_tape[RINQ_FIRST_TAPE_ITEMS];
	RinqFrame	frames[RINQ_CBOR_MAX_DEPTH + 1];
} RinqDecoder;

#define rinq_malformed(d, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), \
			 errmsg("invalid CBOR at byte %zu", (d)->offset), \
			 errdetail(__VA_ARGS__)))

#define rinq_unsupported(d, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), \
			 errmsg("CBOR item at byte %zu has no jsonb form", (d)->offset), \
			 errdetail(__VA_ARGS__)))

/* cbor/tape.c */
extern MemoryContext rinq_cbor_scratch(RinqDecoder *d);
extern void rinq_cbor_grow_tape(RinqDecoder *d);
extern void rinq_cbor_too_large(void) __attribute__((noreturn));
extern void rinq_cbor_numeric_overflow(const RinqDecoder *d) __attribute__((noreturn));
extern void rinq_cbor_open_container(RinqDecoder *d, RinqFrameKind kind, uint32 expected);
extern void rinq_cbor_close_container(RinqDecoder *d);
extern void rinq_cbor_complete_key(RinqDecoder *d, const char *text, size_t len);
extern void rinq_cbor_complete_string(RinqDecoder *d, const char *text, size_t len);

static inline RinqTapeItem *
rinq_cbor_append_item(RinqDecoder *d, RinqTapeKind kind, uint64 bound)
{
	RinqTapeItem *item;

	if (unlikely(d->tape_used == d->tape_size))
		rinq_cbor_grow_tape(d);
	Assert(d->tape_used < d->tape_size);
	item = &d->tape[d->tape_used++];
	item->kind = kind;
	item->len = 0;

	/* stop at once when the result is bound to be too large */
	d->bound += bound;
	if (unlikely(d->bound > MaxAllocSize))
		rinq_cbor_too_large();
	return item;
}

static inline bool
rinq_cbor_at_key(const RinqDecoder *d)
{
	return d->top->kind == RINQ_FRAME_MAP && d->top->count % 2 == 0;
}

/* Return how a byte string here is to be written. */
static inline uint8
rinq_cbor_effective_hint(const RinqDecoder *d)
{
	return d->hint != 0 ? d->hint : d->top->hint;
}

/*
 * Check what every item must pass before it is taken.
 */
static inline void
rinq_cbor_start_item(RinqDecoder *d)
{
	if (unlikely(d->chunks != RINQ_CHUNKS_NONE))
		rinq_malformed(d, "An indefinite-length string contains something that is no chunk of it.");
}

/*
 * Check what every item must pass that is not part of a number.
 */
static inline void
rinq_cbor_start_plain_item(RinqDecoder *d)
{
	rinq_cbor_start_item(d);
	if (unlikely(d->number != 0))
		rinq_malformed(d, "The content of tag %d has the wrong type.", d->number);
	if (unlikely(d->top->kind == RINQ_FRAME_FRACTION))
		rinq_malformed(d, "The content of tag %d must be an array of two integers.",
					   d->top->tag);
}

/*
 * Account for a complete item, and for all containers it completes.
 */
static inline void
rinq_cbor_finish_item(RinqDecoder *d)
{
	d->tagged = false;
	d->number = 0;
	d->hint = 0;

	while (++d->top->count == d->top->expected)
	{
		if (d->top->kind == RINQ_FRAME_ROOT)
		{
			d->done = true;
			return;
		}
		rinq_cbor_close_container(d);
	}
}

#endif							/* RINQ_CBOR_DECODER_H */
