/*-------------------------------------------------------------------------
 *
 * protocol/notification.c
 *	  A notification on its way from the peer to SQL: packed, and as a row of
 *	  type rinq_notification.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "protocol/notification.h"
#include "protocol/payload.h"

/* columns of rinq_notification; the install script defines it to match */
enum
{
	COLUMN_ID,
	COLUMN_SOURCE,
	COLUMN_TARGET,
	COLUMN_NAMESPACE,
	COLUMN_TYPE,
	COLUMN_PAYLOAD,
	COLUMN_IS_MULTICAST,
	COLUMN_CONSTRAINT,
	COLUMN_TRACE_ID
};

const Oid	rinq_notification_types[RINQ_NOTIFICATION_COLUMNS] = {
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BOOLOID, InvalidOid, TEXTOID
};

/*
 * Return how many bytes rinq_notification_pack writes.
 */
Size
rinq_notification_packed_size(const RinqBytes *fields)
{
	Size		size = RINQ_NOTIFICATION_FIELDS * sizeof(uint32);
	int			i;

	for (i = 0; i < RINQ_NOTIFICATION_FIELDS; i++)
	{
		Assert(fields[i].data != NULL || fields[i].len == 0);
		size += fields[i].len;
	}
	return size;
}

void
rinq_notification_pack(char *to, const RinqBytes *fields)
{
	int			i;

	for (i = 0; i < RINQ_NOTIFICATION_FIELDS; i++)
	{
		uint32		len = fields[i].data == NULL ? PG_UINT32_MAX : (uint32) fields[i].len;

		memcpy(to, &len, sizeof(len));
		to += sizeof(len);
		if (fields[i].data == NULL)
			continue;
		memcpy(to, fields[i].data, fields[i].len);
		to += fields[i].len;
	}
}

/*
 * Take the first one off a list, which the fields point into; false when that
 * is none.
 */
bool
rinq_notification_unpack(RinqBytes *list, RinqBytes *fields)
{
	int			i;

	for (i = 0; i < RINQ_NOTIFICATION_FIELDS; i++)
	{
		uint32		len;

		if (list->len < sizeof(len))
			return false;
		memcpy(&len, list->data, sizeof(len));
		*list = rinq_bytes(list->data + sizeof(len), list->len - sizeof(len));
		fields[i] = rinq_bytes(NULL, 0);
		if (len == PG_UINT32_MAX)
			continue;
		if (len > list->len)
			return false;
		fields[i] = rinq_bytes(list->data, len);
		*list = rinq_bytes(list->data + len, list->len - len);
	}
	return true;
}

/*
 * Fill in the columns of a rinq_notification.  Raises an error when the
 * payload has no form in jsonb, or a text none in this database's encoding.
 */
void
rinq_notification_row(const RinqBytes *fields, Datum *values, bool *nulls)
{
	static const struct
	{
		int			column;
		int			field;
	}			texts[] = {
		{COLUMN_ID, RINQ_NOTIFICATION_ID},
		{COLUMN_SOURCE, RINQ_NOTIFICATION_SOURCE},
		{COLUMN_TARGET, RINQ_NOTIFICATION_TARGET},
		{COLUMN_NAMESPACE, RINQ_NOTIFICATION_NAMESPACE},
		{COLUMN_TYPE, RINQ_NOTIFICATION_TYPE},
		{COLUMN_TRACE_ID, RINQ_NOTIFICATION_TRACE}
	};
	RinqBytes	constraint = fields[RINQ_NOTIFICATION_CONSTRAINT];
	Jsonb	   *payload = rinq_payload_to_jsonb(fields[RINQ_NOTIFICATION_PAYLOAD]);
	int			i;

	StaticAssertStmt(lengthof(texts) + 3 == RINQ_NOTIFICATION_COLUMNS, "each column of rinq_notification is filled in");

	memset(nulls, 0, RINQ_NOTIFICATION_COLUMNS * sizeof(bool));
	for (i = 0; i < (int) lengthof(texts); i++)
		values[texts[i].column] = rinq_text_datum(fields[texts[i].field]);
	nulls[COLUMN_PAYLOAD] = payload == NULL;
	values[COLUMN_PAYLOAD] = PointerGetDatum(payload);
	values[COLUMN_IS_MULTICAST] = BoolGetDatum(constraint.data != NULL);
	nulls[COLUMN_CONSTRAINT] = constraint.data == NULL;
	if (constraint.data != NULL)
	{
		bytea	   *value = palloc(VARHDRSZ + constraint.len);

		/* the peer has read it, so it is a value of the type as it is */
		SET_VARSIZE(value, VARHDRSZ + constraint.len);
		memcpy(VARDATA(value), constraint.data, constraint.len);
		values[COLUMN_CONSTRAINT] = PointerGetDatum(value);
	}
}
