/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  Reading and writing CBOR item by item, for the messages that peers
 *	  exchange about sessions and in constraints.
 *
 * Unlike the conversions of cbor/cbor_jsonb.h, reading raises no errors, needs no
 * database, and takes nothing for granted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_STREAM_H
#define RINQ_CBOR_STREAM_H

#include "postgres.h"

#include "base/bytes.h"
#include "lib/stringinfo.h"

typedef enum RinqCborKind
{
	RINQ_CBOR_END,				/* of the input, or malformed: see "failed" */
	RINQ_CBOR_UINT,				/* number */
	RINQ_CBOR_NINT,
	RINQ_CBOR_BYTES,			/* bytes */
	RINQ_CBOR_TEXT,				/* bytes */
	RINQ_CBOR_CHUNKS,			/* of a string of unknown length; number:
								 * BYTES or TEXT */
	RINQ_CBOR_ARRAY,			/* number */
	RINQ_CBOR_MAP,				/* number */
	RINQ_CBOR_TAG,				/* number */
	RINQ_CBOR_NULL,				/* or undefined */
	RINQ_CBOR_FALSE,
	RINQ_CBOR_TRUE,
	RINQ_CBOR_OTHER,			/* floats: bytes, with the head */
	RINQ_CBOR_BREAK
} RinqCborKind;

#define RINQ_CBOR_INDEFINITE PG_UINT64_MAX

/* items of one message, whose number is what reading costs: some may be one byte */
#define RINQ_CBOR_MAX_ITEMS 160000

typedef struct RinqCborItem
{
	RinqCborKind kind;
	uint64		number;			/* items of a container, or INDEFINITE */
	RinqBytes	bytes;
} RinqCborItem;

typedef struct RinqCborReader
{
	RinqBytes	rest;
	bool		failed;
	uint32		items;			/* read so far */
} RinqCborReader;

extern void rinq_cbor_reader_init(RinqCborReader *reader, RinqBytes data);
extern bool rinq_cbor_next(RinqCborReader *reader, RinqCborItem *item);
extern bool rinq_cbor_more(RinqCborReader *reader, uint64 *left);
extern bool rinq_cbor_skip(RinqCborReader *reader);
extern bool rinq_cbor_enter(RinqCborReader *reader, RinqCborKind container, uint64 *left);

/* null stands for nothing: zero, false, no text; other types fail */
extern bool rinq_cbor_read_uint32(RinqCborReader *reader, uint32 *value);
extern bool rinq_cbor_read_bool(RinqCborReader *reader, bool *value);
extern bool rinq_cbor_read_text(RinqCborReader *reader, RinqBytes *value);

extern void rinq_cbor_write_map(StringInfo out, uint64 pairs);
extern void rinq_cbor_write_array(StringInfo out, uint64 items);
extern void rinq_cbor_write_uint(StringInfo out, uint64 value);
extern void rinq_cbor_write_null(StringInfo out);
extern void rinq_cbor_write_bool(StringInfo out, bool value);
extern void rinq_cbor_write_text(StringInfo out, RinqBytes text);

#endif							/* RINQ_CBOR_STREAM_H */
