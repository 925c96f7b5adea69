/*-------------------------------------------------------------------------
 *
 * table.h
 *	  Reading AMQP field tables as they come from the network.
 *
 * Responsible for walking over the entries of one encoded table.  Nested
 * tables and arrays are stepped over by their encoded length and never looked
 * into, so that the depth of their nesting costs nothing; librabbitmq's own
 * decoder recurses into them without a limit and allocates for each.
 * Private to this directory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_TABLE_H
#define RINQ_AMQP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* Unread bytes, with reads that fail instead of passing the end. */
typedef struct RinqReader
{
	const uint8_t *pos;
	const uint8_t *end;
} RinqReader;

/* One entry of a table, pointing into the encoded form. */
typedef struct RinqTableEntry
{
	RinqBytes	key;
	char		kind;			/* the AMQP type character */
	RinqBytes	value;			/* content: without the length of S, x, A, F */
} RinqTableEntry;

typedef enum RinqTableStep
{
	RINQ_TABLE_ENTRY,			/* *entry is filled in */
	RINQ_TABLE_END,
	RINQ_TABLE_MALFORMED
} RinqTableStep;

extern RinqReader rinq_reader(const void *data, size_t len);
extern bool rinq_read_u8(RinqReader *r, uint8_t *value);
extern bool rinq_read_u16(RinqReader *r, uint16_t *value);
extern bool rinq_read_u32(RinqReader *r, uint32_t *value);
extern bool rinq_read_u64(RinqReader *r, uint64_t *value);
extern bool rinq_read_shortstr(RinqReader *r, RinqBytes *value);

/* a 32-bit length and that many bytes: long strings, tables, arrays */
extern bool rinq_read_longstr(RinqReader *r, RinqBytes *value);

/* table runs over the content of a table, without its length */
extern RinqTableStep rinq_table_next(RinqReader *table, RinqTableEntry *entry);

#endif							/* RINQ_AMQP_TABLE_H */
