/*-------------------------------------------------------------------------
 *
 * cbor_jsonb.h
 *	  Conversion between jsonb and CBOR (RFC 8949), and its check.
 *
 * This is the whole interface of the converter.  It knows nothing about
 * messages, limits set by settings, or the network.  docs/cbor.md describes
 * what each value becomes and which error each refused input raises.
 *
 * All functions may raise errors, answer interrupts, and, in databases
 * whose encoding is not UTF-8, look up conversion functions: call them in a
 * transaction, never from a process that has no database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_CBOR_JSONB_H
#define RINQ_CBOR_CBOR_JSONB_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * How many containers may be open at once, in both directions, so that
 * whatever one side writes the other side reads.  The usual decoders of
 * other languages stop at about the same depth.
 */
#define RINQ_CBOR_MAX_DEPTH		1000

/*
 * Append the CBOR form of a jsonb value, exactly one item.
 *
 * jb must be a detoasted value with a four-byte header, as
 * PG_GETARG_JSONB_P() returns it.  Errors: 54000 when the value is nested
 * more deeply than RINQ_CBOR_MAX_DEPTH or the buffer would pass 1 GB, 22021
 * or 22P05 for text that is not valid or has no UTF-8 form, XX001 for a
 * number that no sound jsonb holds.  After an error the buffer holds an
 * incomplete item.
 */
extern void rinq_cbor_append_jsonb(StringInfo out, const Jsonb *jb);

/*
 * Convert CBOR into a jsonb value, allocated in the current memory context.
 *
 * The input must be exactly one item; an empty input is an error (22P03).
 * Other errors: 22P03 malformed, 22023 well-formed but without a JSON form,
 * 22003 number out of range, 22021 invalid UTF-8, 22P05 character without
 * an equivalent in the server encoding (NUL included), 22030 duplicate key,
 * 54000 too deep or too large.  The input is not modified, and the result
 * does not point into it.
 */
extern Jsonb *rinq_cbor_to_jsonb(const uint8 *data, size_t len);

/*
 * Raise an error unless the input is exactly one well-formed item whose texts
 * are UTF-8: 22P03, 22021, or 54000 for one nested too deeply.  Items without
 * a JSON form pass.
 */
extern void rinq_cbor_check(const uint8 *data, size_t len);

#endif							/* RINQ_CBOR_CBOR_JSONB_H */
