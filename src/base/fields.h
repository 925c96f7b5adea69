/*-------------------------------------------------------------------------
 *
 * base/fields.h
 *	  Typed fields, packed for another process.
 *
 * What one process tells another is of a kind, and has the fields of that kind:
 * bytes, flags and numbers, each of which may be absent.  The number of a field
 * names its kind, so that a field of another kind is never taken for it, and
 * the type of a field is packed with it.
 *
 * Packed are the kind, how many fields are present, and each of these as its
 * number, its type and its value.  The reader believes nothing of that: it says
 * so when kind, types or lengths make no sense.  A field that is added costs
 * nothing where it is absent.
 *
 * Plain C; nothing here allocates memory.  Bytes, references and ids that were
 * put stay the caller's, and those that were read point into what was read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_FIELDS_H
#define RINQ_BASE_FIELDS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/ident.h"
#include "base/invariant.h"

#define RINQ_MAX_FIELDS 20		/* of a kind */
#define RINQ_FIRST_FIELD(kind) ((kind) << 8)

/* fails to compile when a kind has too many fields; "end" follows its last one */
#define RINQ_CHECK_FIELDS(kind, end) \
	_Static_assert((kind) > 0 && (kind) <= 255 && \
				   (end) - RINQ_FIRST_FIELD(kind) <= RINQ_MAX_FIELDS, "too many fields")

typedef enum RinqFieldType
{
	RINQ_FIELD_ABSENT,
	RINQ_FIELD_BYTES,
	RINQ_FIELD_FLAG,
	RINQ_FIELD_UINT32,
	RINQ_FIELD_INT64,
	RINQ_FIELD_OID,
	RINQ_FIELD_REF,				/* RinqRef */
	RINQ_FIELD_MESSAGE_ID		/* RinqMessageId */
} RinqFieldType;

typedef struct RinqFields
{
	uint8_t		kind;
	uint8_t		type[RINQ_MAX_FIELDS];	/* RinqFieldType */
	union
	{
		RinqBytes	bytes;		/* references and ids, too: as they are in
								 * memory */
		int64_t		number;		/* and flags */
	}			value[RINQ_MAX_FIELDS];
} RinqFields;

/* all fields of a kind, absent */
static inline void
rinq_fields_init(RinqFields *fields, int kind)
{
	RINQ_ASSERT(kind > 0 && kind <= 255);
	fields->kind = (uint8_t) kind;
	memset(fields->type, RINQ_FIELD_ABSENT, sizeof(fields->type));
}

/* where a field is, which has to be one of the kind */
static inline int
rinq_field_index(const RinqFields *fields, int field)
{
	RINQ_ASSERT(field >> 8 == fields->kind && (field & 0xFF) < RINQ_MAX_FIELDS);
	return (field & 0xFF) % RINQ_MAX_FIELDS;
}

/* where a field is that was given this type, or none; -1 when it is absent */
static inline int
rinq_field_find(const RinqFields *fields, int field, RinqFieldType type)
{
	int			i = rinq_field_index(fields, field);

	RINQ_ASSERT(fields->type[i] == type || fields->type[i] == RINQ_FIELD_ABSENT);
	return fields->type[i] == type ? i : -1;
}

/* bytes that are absent leave the field absent */
static inline void
rinq_put_bytes(RinqFields *fields, int field, RinqBytes bytes)
{
	int			i = rinq_field_index(fields, field);

	fields->type[i] = bytes.data == NULL ? RINQ_FIELD_ABSENT : RINQ_FIELD_BYTES;
	fields->value[i].bytes = bytes;
}

static inline void
rinq_put_number(RinqFields *fields, int field, RinqFieldType type, int64_t number)
{
	int			i = rinq_field_index(fields, field);

	fields->type[i] = (uint8_t) type;
	fields->value[i].number = number;
}

static inline void
rinq_put_flag(RinqFields *fields, int field, bool flag)
{
	rinq_put_number(fields, field, RINQ_FIELD_FLAG, flag);
}

static inline void
rinq_put_uint32(RinqFields *fields, int field, uint32_t number)
{
	rinq_put_number(fields, field, RINQ_FIELD_UINT32, number);
}

static inline void
rinq_put_int64(RinqFields *fields, int field, int64_t number)
{
	rinq_put_number(fields, field, RINQ_FIELD_INT64, number);
}

static inline void
rinq_put_oid(RinqFields *fields, int field, uint32_t oid)
{
	rinq_put_number(fields, field, RINQ_FIELD_OID, oid);
}

static inline void
rinq_put_fixed(RinqFields *fields, int field, RinqFieldType type, const void *value, size_t size)
{
	int			i = rinq_field_index(fields, field);

	fields->type[i] = (uint8_t) type;
	fields->value[i].bytes = rinq_bytes(value, size);
}

static inline void
rinq_put_ref(RinqFields *fields, int field, const RinqRef *ref)
{
	rinq_put_fixed(fields, field, RINQ_FIELD_REF, ref, sizeof(*ref));
}

static inline void
rinq_put_message_id(RinqFields *fields, int field, const RinqMessageId *id)
{
	rinq_put_fixed(fields, field, RINQ_FIELD_MESSAGE_ID, id, sizeof(*id));
}

/* return the bytes of a field, which may be absent */
static inline RinqBytes
rinq_get_bytes(const RinqFields *fields, int field)
{
	int			i = rinq_field_find(fields, field, RINQ_FIELD_BYTES);

	return i < 0 ? rinq_bytes(NULL, 0) : fields->value[i].bytes;
}

/* return a number, 0 when it is absent */
static inline int64_t
rinq_get_number(const RinqFields *fields, int field, RinqFieldType type)
{
	int			i = rinq_field_find(fields, field, type);

	return i < 0 ? 0 : fields->value[i].number;
}

static inline bool
rinq_get_flag(const RinqFields *fields, int field)
{
	return rinq_get_number(fields, field, RINQ_FIELD_FLAG) != 0;
}

static inline uint32_t
rinq_get_uint32(const RinqFields *fields, int field)
{
	return (uint32_t) rinq_get_number(fields, field, RINQ_FIELD_UINT32);
}

static inline int64_t
rinq_get_int64(const RinqFields *fields, int field)
{
	return rinq_get_number(fields, field, RINQ_FIELD_INT64);
}

static inline uint32_t
rinq_get_oid(const RinqFields *fields, int field)
{
	return (uint32_t) rinq_get_number(fields, field, RINQ_FIELD_OID);
}

/* get a value of fixed size; false, and nothing filled in, when it is absent */
static inline bool
rinq_get_fixed(const RinqFields *fields, int field, RinqFieldType type, void *value, size_t size)
{
	int			i = rinq_field_find(fields, field, type);

	if (i < 0)
		return false;
	RINQ_ASSERT(fields->value[i].bytes.len == size);
	memcpy(value, fields->value[i].bytes.data, size);
	return true;
}

static inline bool
rinq_get_ref(const RinqFields *fields, int field, RinqRef *ref)
{
	return rinq_get_fixed(fields, field, RINQ_FIELD_REF, ref, sizeof(*ref));
}

static inline bool
rinq_get_message_id(const RinqFields *fields, int field, RinqMessageId *id)
{
	return rinq_get_fixed(fields, field, RINQ_FIELD_MESSAGE_ID, id, sizeof(*id));
}

/* tell whether field number "i" points to memory */
static inline bool
rinq_field_is_bytes(const RinqFields *fields, int i)
{
	return fields->type[i] == RINQ_FIELD_BYTES || fields->type[i] == RINQ_FIELD_REF ||
		fields->type[i] == RINQ_FIELD_MESSAGE_ID;
}

extern size_t rinq_fields_size(const RinqFields *fields);
extern void rinq_fields_write(const RinqFields *fields, char *to);
extern bool rinq_fields_read(RinqFields *fields, int kind, RinqBytes *from);
extern size_t rinq_fields_bytes(const RinqFields *fields);
extern char *rinq_fields_move(RinqFields *fields, char *to);

#endif							/* RINQ_BASE_FIELDS_H */
