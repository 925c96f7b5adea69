/*-------------------------------------------------------------------------
 *
 * base/fields.c
 *	  Packing typed fields, and reading them again.
 *
 * The layout is that of one machine and one version: what is packed does not
 * leave the server's memory.
 *
 *-------------------------------------------------------------------------
 */
#include "base/fields.h"

#define HEADER_SIZE 2			/* kind, and how many fields are present */
#define FIELD_SIZE 2			/* number and type of a field */

/*
 * Return how many bytes a value of a type takes; of bytes, their length alone.
 */
static size_t
value_size(RinqFieldType type)
{
	switch (type)
	{
		case RINQ_FIELD_ABSENT:
			return 0;
		case RINQ_FIELD_BYTES:
			return sizeof(uint32_t);
		case RINQ_FIELD_FLAG:
			return 1;
		case RINQ_FIELD_UINT32:
		case RINQ_FIELD_OID:
			return sizeof(uint32_t);
		case RINQ_FIELD_INT64:
			return sizeof(int64_t);
		case RINQ_FIELD_REF:
			return sizeof(RinqRef);
		case RINQ_FIELD_MESSAGE_ID:
			return sizeof(RinqMessageId);
	}
	return 0;
}

/*
 * Return how many bytes rinq_fields_write writes.
 */
size_t
rinq_fields_size(const RinqFields *fields)
{
	size_t		size = HEADER_SIZE;
	int			i;

	for (i = 0; i < RINQ_MAX_FIELDS; i++)
	{
		if (fields->type[i] == RINQ_FIELD_ABSENT)
			continue;
		size += FIELD_SIZE + value_size((RinqFieldType) fields->type[i]);
		if (fields->type[i] == RINQ_FIELD_BYTES)
			size += fields->value[i].bytes.len;
	}
	return size;
}

/* write a value; return where the next field begins */
static char *
write_value(const RinqFields *fields, int i, char *to)
{
	RinqFieldType type = (RinqFieldType) fields->type[i];
	size_t		size = value_size(type);
	RinqBytes	bytes;
	uint32_t	word;

	switch (type)
	{
		case RINQ_FIELD_ABSENT:
			break;
		case RINQ_FIELD_BYTES:
			bytes = fields->value[i].bytes;
			RINQ_ASSERT(bytes.len <= UINT32_MAX);
			word = (uint32_t) bytes.len;
			memcpy(to, &word, sizeof(word));
			if (bytes.len > 0)
				memcpy(to + size, bytes.data, bytes.len);
			return to + size + bytes.len;
		case RINQ_FIELD_FLAG:
			*to = fields->value[i].number != 0;
			break;
		case RINQ_FIELD_UINT32:
		case RINQ_FIELD_OID:
			word = (uint32_t) fields->value[i].number;
			memcpy(to, &word, sizeof(word));
			break;
		case RINQ_FIELD_INT64:
			memcpy(to, &fields->value[i].number, sizeof(int64_t));
			break;
		case RINQ_FIELD_REF:
		case RINQ_FIELD_MESSAGE_ID:
			memcpy(to, fields->value[i].bytes.data, size);
			break;
	}
	return to + size;
}

/*
 * Pack the fields into rinq_fields_size bytes, which must not overlap with those
 * that the fields point to.
 */
void
rinq_fields_write(const RinqFields *fields, char *to)
{
	char	   *header = to;
	uint8_t		count = 0;
	int			i;

	to += HEADER_SIZE;
	for (i = 0; i < RINQ_MAX_FIELDS; i++)
	{
		if (fields->type[i] == RINQ_FIELD_ABSENT)
			continue;
		to[0] = (char) i;
		to[1] = (char) fields->type[i];
		to = write_value(fields, i, to + FIELD_SIZE);
		count++;
	}
	header[0] = (char) fields->kind;
	header[1] = (char) count;
}

/* take bytes off the front; NULL when there are fewer */
static const char *
take_fields_bytes(RinqBytes *from, size_t len)
{
	const char *start = from->data;

	if (from->len < len)
		return NULL;
	*from = rinq_bytes(start + len, from->len - len);
	return start;
}

/* read the value of a field, behind its number and type; false when it is none */
static bool
read_value(RinqFields *fields, int i, RinqFieldType type, RinqBytes *from)
{
	const char *start;
	size_t		size = value_size(type);
	uint32_t	word;

	if (size == 0 || (start = take_fields_bytes(from, size)) == NULL)
		return false;
	switch (type)
	{
		case RINQ_FIELD_ABSENT:
			return false;
		case RINQ_FIELD_BYTES:
			memcpy(&word, start, sizeof(word));
			if ((start = take_fields_bytes(from, word)) == NULL)
				return false;
			fields->value[i].bytes = rinq_bytes(start, word);
			break;
		case RINQ_FIELD_FLAG:
			if (*start != 0 && *start != 1)
				return false;
			fields->value[i].number = *start == 1;
			break;
		case RINQ_FIELD_UINT32:
		case RINQ_FIELD_OID:
			memcpy(&word, start, sizeof(word));
			fields->value[i].number = word;
			break;
		case RINQ_FIELD_INT64:
			memcpy(&fields->value[i].number, start, sizeof(int64_t));
			break;
		case RINQ_FIELD_REF:
		case RINQ_FIELD_MESSAGE_ID:
			fields->value[i].bytes = rinq_bytes(start, size);
			break;
	}
	fields->type[i] = (uint8_t) type;
	return true;
}

/* read the fields behind the header; each has to come behind the one before */
static bool
read_values(RinqFields *fields, int count, RinqBytes *from)
{
	int			next = 0;

	for (; count > 0; count--)
	{
		const char *start = take_fields_bytes(from, FIELD_SIZE);
		int			i;

		if (start == NULL)
			return false;
		i = (unsigned char) start[0];
		if (i < next || i >= RINQ_MAX_FIELDS ||
			!read_value(fields, i, (RinqFieldType) (unsigned char) start[1], from))
			return false;
		next = i + 1;
	}
	return true;
}

/*
 * Read the fields of a kind off the front of what was packed.  They point into
 * it.  False, with all fields absent, when it begins with something else.
 */
bool
rinq_fields_read(RinqFields *fields, int kind, RinqBytes *from)
{
	const char *header = take_fields_bytes(from, HEADER_SIZE);

	rinq_fields_init(fields, kind);
	if (header != NULL && (unsigned char) header[0] == kind &&
		read_values(fields, (unsigned char) header[1], from))
		return true;
	rinq_fields_init(fields, kind);
	return false;
}

/*
 * Return how many bytes all fields point to.
 */
size_t
rinq_fields_bytes(const RinqFields *fields)
{
	size_t		size = 0;
	int			i;

	for (i = 0; i < RINQ_MAX_FIELDS; i++)
	{
		if (rinq_field_is_bytes(fields, i))
			size += fields->value[i].bytes.len;
	}
	return size;
}

/*
 * Copy the bytes that fields point to into rinq_fields_bytes bytes, and let the
 * fields point there.  Returns where the copies end.
 */
char *
rinq_fields_move(RinqFields *fields, char *to)
{
	int			i;

	for (i = 0; i < RINQ_MAX_FIELDS; i++)
	{
		RinqBytes  *bytes = &fields->value[i].bytes;

		if (!rinq_field_is_bytes(fields, i))
			continue;
		if (bytes->len > 0)
			memcpy(to, bytes->data, bytes->len);
		bytes->data = to;
		to += bytes->len;
	}
	return to;
}
