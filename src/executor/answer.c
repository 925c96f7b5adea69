/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  How the result of a handler, or the error that ended it, becomes the answer
 *	  in a request's slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "clock.h"
#include "executor/answer.h"
#include "mb/pg_wchar.h"
#include "payload.h"
#include "request.h"
#include "utils/memutils.h"

/* bytes of an error's message that are sent */
#define MAX_ERROR_TEXT 65536

/*
 * An answer that needs neither room nor conversion, and so cannot fail.
 */
void
rinq_answer_plainly(RinqSlot *slot, const char *ascii)
{
	RinqBytes	answer[RINQ_ANSWER_FIELDS];

	memset(answer, 0, sizeof(answer));
	answer[RINQ_ANSWER_TEXT] = rinq_bytes_str(ascii);
	(void) rinq_slot_write(slot, answer, RINQ_ANSWER_FIELDS);
	slot->outcome = RINQ_OUTCOME_ERROR;
}

/*
 * Puts an answer into a slot; texts are in the database's encoding, NULL for
 * none.
 */
void
rinq_answer(RinqSlot *slot, RinqOutcome outcome, const char *type, const char *text,
			RinqBytes payload)
{
	RinqBytes	fields[RINQ_ANSWER_FIELDS];

	fields[RINQ_ANSWER_TYPE] = type == NULL ? rinq_bytes(NULL, 0) : rinq_text_to_wire(type);
	fields[RINQ_ANSWER_TEXT] = text == NULL ? rinq_bytes(NULL, 0) : rinq_text_to_wire(text);
	fields[RINQ_ANSWER_PAYLOAD] = payload;
	slot->outcome = outcome;
	if (!rinq_slot_write(slot, fields, RINQ_ANSWER_FIELDS))
		rinq_answer_plainly(slot, "the response does not fit into \"rinq.payload_memory\"");
}

/*
 * Was this error raised by rinq_fail, or by a call that was answered so?
 */
bool
rinq_answer_is_failure(ErrorData *error)
{
	const char *expected;

	if (error->sqlerrcode != ERRCODE_RINQ_FAILURE || rinq_last_failure_data.type == NULL)
		return false;
	expected = rinq_last_failure_data.message;
	if (expected == NULL || expected[0] == '\0')
		expected = rinq_last_failure_data.type;
	return error->message != NULL && strcmp(error->message, expected) == 0;
}

/*
 * A message that can be sent whatever it holds: cut to a length that nobody
 * reads to the end, and without the bytes that only a database without an
 * encoding has.
 */
static const char *
sendable(const char *text)
{
	int			len = (int) strlen(text);
	char	   *copy;
	char	   *p;

	if (len > MAX_ERROR_TEXT)
		text = pnstrdup(text, pg_mbcliplen(text, len, MAX_ERROR_TEXT));
	if (GetDatabaseEncoding() != PG_SQL_ASCII ||
		pg_verify_mbstr(PG_UTF8, text, (int) strlen(text), true))
		return text;
	copy = pstrdup(text);
	for (p = copy; *p != '\0'; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
	return copy;
}

/*
 * Turns the error that ended a handler into an answer.  Its message is all
 * that leaves the server; the log has the rest.
 */
static void
answer_error(RinqSlot *slot, ErrorData *error)
{
	bool		expired = slot->deadline != 0 && rinq_clock_ms() >= slot->deadline;

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && expired)
	{
		rinq_slot_clear(slot);
		slot->outcome = RINQ_OUTCOME_EXPIRED;
	}
	else if (rinq_answer_is_failure(error))
		rinq_answer(slot, RINQ_OUTCOME_FAILURE, rinq_last_failure_data.type,
					rinq_last_failure_data.message,
					rinq_payload_from_jsonb(rinq_last_failure_data.payload));
	else
		rinq_answer(slot, RINQ_OUTCOME_ERROR, NULL,
					sendable(error->message != NULL ? error->message : "unknown error"),
					rinq_bytes(NULL, 0));
}

/*
 * The same, but for an error that cannot be expressed: then that is said
 * instead, since a request without an answer would come again, for ever.
 */
void
rinq_answer_error(RinqSlot *slot, ErrorData *error, MemoryContext context)
{
	PG_TRY();
	{
		/* converting text needs a transaction */
		StartTransactionCommand();
		MemoryContextSwitchTo(context);
		answer_error(slot, error);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		rinq_answer_plainly(slot, "the error that ended the handler cannot be sent");
	}
	PG_END_TRY();
}
