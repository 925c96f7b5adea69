/*-------------------------------------------------------------------------
 *
 * protocol/response.c
 *	  A response, or what else has become of a call, as a row of the type
 *	  rinq_response.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "protocol/payload.h"
#include "protocol/response.h"
#include "utils/builtins.h"

const Oid	rinq_response_types[RINQ_RESPONSE_COLUMNS] = {
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID
};

/*
 * Return the session of a message id, which is that with a revision and a
 * number behind it.
 */
static Datum
source_session_datum(RinqBytes id)
{
	const char *at = memchr(id.data, '@', id.len);

	return rinq_text_datum(rinq_bytes(id.data, at == NULL ? id.len : (size_t) (at - id.data)));
}

/* Put a text that a peer may have left out. */
static void
put_text_if_any(Datum *values, bool *nulls, int column, RinqBytes text)
{
	nulls[column] = text.data == NULL;
	if (text.data != NULL)
		values[column] = rinq_text_datum(text);
}

/*
 * Fill in the columns of a row.
 */
void
rinq_response_row(const RinqFields *fields, Datum *values, bool *nulls)
{
	RinqBytes	id = rinq_get_bytes(fields, RINQ_RESPONSE_ID);
	RinqBytes	failure_type = rinq_get_bytes(fields, RINQ_RESPONSE_FAILURE_TYPE);
	RinqBytes	message = rinq_get_bytes(fields, RINQ_RESPONSE_MESSAGE);
	Jsonb	   *payload = rinq_payload_to_jsonb(rinq_get_bytes(fields, RINQ_RESPONSE_PAYLOAD));

	memset(nulls, 0, RINQ_RESPONSE_COLUMNS * sizeof(bool));
	values[RINQ_RESPONSE_COLUMN_ID] = rinq_text_datum(id);
	values[RINQ_RESPONSE_COLUMN_SESSION] = source_session_datum(id);
	put_text_if_any(values, nulls, RINQ_RESPONSE_COLUMN_NAMESPACE,
					rinq_get_bytes(fields, RINQ_RESPONSE_NAMESPACE));
	put_text_if_any(values, nulls, RINQ_RESPONSE_COLUMN_COMMAND,
					rinq_get_bytes(fields, RINQ_RESPONSE_COMMAND));
	values[RINQ_RESPONSE_COLUMN_OUTCOME] = rinq_text_datum(rinq_get_bytes(fields, RINQ_RESPONSE_OUTCOME));
	nulls[RINQ_RESPONSE_COLUMN_PAYLOAD] = payload == NULL;
	values[RINQ_RESPONSE_COLUMN_PAYLOAD] = PointerGetDatum(payload);
	nulls[RINQ_RESPONSE_COLUMN_FAILURE_TYPE] = failure_type.len == 0;
	if (failure_type.len > 0)
		values[RINQ_RESPONSE_COLUMN_FAILURE_TYPE] = rinq_text_datum(failure_type);
	nulls[RINQ_RESPONSE_COLUMN_MESSAGE] = message.len == 0;
	if (message.len > 0)
		values[RINQ_RESPONSE_COLUMN_MESSAGE] = CStringGetTextDatum(rinq_message_from_wire(message));
	values[RINQ_RESPONSE_COLUMN_TRACE_ID] = rinq_text_datum(rinq_get_bytes(fields, RINQ_RESPONSE_TRACE));
}
