/*-------------------------------------------------------------------------
 *
 * protocol/notification.c
 *	  A notification as a row of type rinq_notification.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "protocol/notification.h"
#include "protocol/payload.h"
#include "utils/timestamp.h"

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
	COLUMN_TRACE_ID,
	COLUMN_ATTEMPT,
	COLUMN_FIRST_RECEIVED
};

const Oid	rinq_notification_types[RINQ_NOTIFICATION_COLUMNS] = {
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BOOLOID, InvalidOid, TEXTOID,
	INT4OID, TIMESTAMPTZOID
};

/*
 * Fill in the columns of a rinq_notification.  Raises an error when the
 * payload has no form in jsonb, or a text none in this database's encoding.
 */
void
rinq_notification_row(const RinqFields *fields, Datum *values, bool *nulls)
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
	RinqBytes	constraint = rinq_get_bytes(fields, RINQ_NOTIFICATION_CONSTRAINT);
	Jsonb	   *payload = rinq_payload_to_jsonb(rinq_get_bytes(fields, RINQ_NOTIFICATION_PAYLOAD));
	int			i;

	StaticAssertStmt(lengthof(texts) + 5 == RINQ_NOTIFICATION_COLUMNS, "each column of rinq_notification is filled in");

	memset(nulls, 0, RINQ_NOTIFICATION_COLUMNS * sizeof(bool));
	for (i = 0; i < (int) lengthof(texts); i++)
		values[texts[i].column] = rinq_text_datum(rinq_get_bytes(fields, texts[i].field));
	nulls[COLUMN_PAYLOAD] = payload == NULL;
	values[COLUMN_PAYLOAD] = PointerGetDatum(payload);
	values[COLUMN_IS_MULTICAST] = BoolGetDatum(constraint.data != NULL);
	nulls[COLUMN_CONSTRAINT] = constraint.data == NULL;

	/* the peer has read it, so it is a value of the type as it is */
	values[COLUMN_CONSTRAINT] = PointerGetDatum(rinq_bytes_to_bytea(constraint));
	values[COLUMN_ATTEMPT] = Int32GetDatum((int32) rinq_get_uint32(fields, RINQ_NOTIFICATION_ATTEMPT));
	values[COLUMN_FIRST_RECEIVED] = TimestampTzGetDatum(rinq_get_int64(fields, RINQ_NOTIFICATION_FIRST_RECEIVED));
}
