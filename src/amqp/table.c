/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Bounds-checked reading of AMQP primitives and field tables.
 *
 *-------------------------------------------------------------------------
 */
#include "amqp/table.h"

RinqReader
rinq_reader(const void *data, size_t len)
{
	RinqReader	r;

	r.pos = data != NULL ? data : (const void *) "";
	r.end = r.pos + (data != NULL ? len : 0);
	return r;
}

static inline size_t
reader_bytes_left(const RinqReader *r)
{
	return (size_t) (r->end - r->pos);
}

bool
rinq_read_u8(RinqReader *r, uint8_t *value)
{
	if (reader_bytes_left(r) < 1)
		return false;
	*value = *r->pos++;
	return true;
}

bool
rinq_read_u16(RinqReader *r, uint16_t *value)
{
	if (reader_bytes_left(r) < 2)
		return false;
	*value = (uint16_t) (r->pos[0] << 8 | r->pos[1]);
	r->pos += 2;
	return true;
}

bool
rinq_read_u32(RinqReader *r, uint32_t *value)
{
	if (reader_bytes_left(r) < 4)
		return false;
	*value = (uint32_t) r->pos[0] << 24 | (uint32_t) r->pos[1] << 16 |
		(uint32_t) r->pos[2] << 8 | (uint32_t) r->pos[3];
	r->pos += 4;
	return true;
}

bool
rinq_read_u64(RinqReader *r, uint64_t *value)
{
	uint32_t	hi = 0;
	uint32_t	lo = 0;

	if (reader_bytes_left(r) < 8)
		return false;
	(void) rinq_read_u32(r, &hi);
	(void) rinq_read_u32(r, &lo);
	*value = (uint64_t) hi << 32 | lo;
	return true;
}

static bool
take_reader_bytes(RinqReader *r, size_t len, RinqBytes *value)
{
	if (reader_bytes_left(r) < len)
		return false;
	*value = rinq_bytes((const char *) r->pos, len);
	r->pos += len;
	return true;
}

bool
rinq_read_shortstr(RinqReader *r, RinqBytes *value)
{
	uint8_t		len;

	return rinq_read_u8(r, &len) && take_reader_bytes(r, len, value);
}

bool
rinq_read_longstr(RinqReader *r, RinqBytes *value)
{
	uint32_t	len;

	return rinq_read_u32(r, &len) && take_reader_bytes(r, len, value);
}

RinqTableStep
rinq_table_next(RinqReader *table, RinqTableEntry *entry)
{
	uint8_t		kind;
	bool		ok;

	if (table->pos == table->end)
		return RINQ_TABLE_END;
	if (!rinq_read_shortstr(table, &entry->key) || !rinq_read_u8(table, &kind))
		return RINQ_TABLE_MALFORMED;
	entry->kind = (char) kind;

	switch (kind)
	{
		case 'V':
			ok = take_reader_bytes(table, 0, &entry->value);
			break;
		case 't':
		case 'b':
		case 'B':
			ok = take_reader_bytes(table, 1, &entry->value);
			break;
		case 's':
		case 'u':
			ok = take_reader_bytes(table, 2, &entry->value);
			break;
		case 'I':
		case 'i':
		case 'f':
			ok = take_reader_bytes(table, 4, &entry->value);
			break;
		case 'D':
			ok = take_reader_bytes(table, 5, &entry->value);
			break;
		case 'l':
		case 'L':
		case 'd':
		case 'T':
			ok = take_reader_bytes(table, 8, &entry->value);
			break;
		case 'S':
		case 'x':
		case 'A':
		case 'F':
			ok = rinq_read_longstr(table, &entry->value);
			break;
		default:
			/* of unknown length: nothing after it can be found */
			ok = false;
			break;
	}
	return ok ? RINQ_TABLE_ENTRY : RINQ_TABLE_MALFORMED;
}
