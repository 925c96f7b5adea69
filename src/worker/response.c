/*-------------------------------------------------------------------------
 *
 * response.c
 *	  How what a handler returns, or the error that ended it, becomes the
 *	  result in a request's slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "protocol/payload.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "worker/cleanup.h"
#include "worker/response.h"
#include "worker/time_limit.h"

#define ROOM_INTERVAL 10		/* ms between looks for payload memory */

/* bytes of an error's message that are sent */
#define MAX_ERROR_TEXT 65536

/*
 * Write a result that needs neither room nor conversion, and so cannot fail.
 */
void
rinq_result_plainly(RinqSlot *slot, const char *ascii)
{
	RinqFields	result;

	rinq_fields_init(&result, RINQ_KIND_RESULT);
	rinq_put_bytes(&result, RINQ_RESULT_TEXT, rinq_bytes_str(ascii));
	(void) rinq_slot_write(slot, &result);
	slot->outcome = RINQ_OUTCOME_ERROR;
}

/*
 * Write the fields of a result into the slot; waits for payload memory that
 * others use, until the request's deadline, or for as long as a call would
 * wait.  False when there was none.
 */
static bool
write_when_room(RinqSlot *slot, const RinqFields *fields)
{
	static uint32 wait_event = 0;
	int64		begun = rinq_clock_ms();
	int64		left = slot->deadline != 0 ? slot->deadline - begun : rinq_default_timeout;
	int64		waited = 0;

	Assert(rinq_slot_state(slot) == RINQ_SLOT_RUNNING ||
		   rinq_slot_state(slot) == RINQ_SLOT_ABANDONED);
	while (!rinq_slot_write(slot, fields))
	{
		if (waited >= left)
			return false;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ROOM_INTERVAL, RINQ_WAIT_EVENT(wait_event, "RinqPayloadMemory"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		waited = Max(waited + 1, rinq_clock_ms() - begun);
	}
	return true;
}

/*
 * Write what a handler has returned; false when there is no room for it, and
 * then the slot has no result.  To be called before the handler's transaction
 * commits: nothing about a result can fail after that.
 */
bool
rinq_result_success(RinqSlot *slot, RinqBytes payload)
{
	RinqFields	fields;

	Assert(IsTransactionState() && slot->owner == RINQ_MY_PROCNO);
	rinq_fields_init(&fields, RINQ_KIND_RESULT);
	if (slot->wants_response)
		rinq_put_bytes(&fields, RINQ_RESULT_PAYLOAD, payload);
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	return write_when_room(slot, &fields);
}

/*
 * Put the text of an error, or as much of it as the slot itself has room for.
 */
static void
put_error_text(RinqSlot *slot, const char *text)
{
	RinqFields	fields;
	RinqBytes	wire = rinq_text_to_wire(text);

	rinq_fields_init(&fields, RINQ_KIND_RESULT);
	rinq_put_bytes(&fields, RINQ_RESULT_TEXT, wire);
	slot->outcome = RINQ_OUTCOME_ERROR;
	if (rinq_slot_write(slot, &fields))
		return;
	wire.len = pg_encoding_mbcliplen(PG_UTF8, wire.data, (int) wire.len,
									 RINQ_SLOT_INLINE - (int) (rinq_fields_size(&fields) - wire.len));
	rinq_put_bytes(&fields, RINQ_RESULT_TEXT, wire);
	(void) rinq_slot_write(slot, &fields);
}

/* Respond with the failure that a handler has ended with. */
static void
respond_failure(RinqSlot *slot)
{
	RinqFields	fields;

	Assert(rinq_last_failure_data.type != NULL);
	rinq_fields_init(&fields, RINQ_KIND_RESULT);
	rinq_put_bytes(&fields, RINQ_RESULT_FAILURE_TYPE, rinq_text_to_wire(rinq_last_failure_data.type));
	if (rinq_last_failure_data.message != NULL)
		rinq_put_bytes(&fields, RINQ_RESULT_TEXT, rinq_text_to_wire(rinq_last_failure_data.message));
	rinq_put_bytes(&fields, RINQ_RESULT_PAYLOAD, rinq_payload_from_jsonb(rinq_last_failure_data.payload));
	slot->outcome = RINQ_OUTCOME_FAILURE;
	if (!slot->wants_response)
		rinq_fields_init(&fields, RINQ_KIND_RESULT);
	if (!write_when_room(slot, &fields))
		rinq_result_plainly(slot, RINQ_NO_ROOM_FOR_RESPONSE);
}

/*
 * Tell whether an error was raised by rinq_fail, or by a call that was
 * answered so.
 */
bool
rinq_result_is_failure(ErrorData *error)
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
 * Make a message one that can be sent whatever it holds: cut to a length that
 * is more than anyone reads, and without the bytes that only a database
 * without an encoding has.
 */
static const char *
make_sendable(const char *text)
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
 * Tell whether a handler was cancelled because the deadline of its request has
 * passed.
 */
bool
rinq_result_is_late(const RinqSlot *slot, const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && slot->deadline != 0 &&
		rinq_clock_ms() >= slot->deadline;
}

/*
 * Tell whether a handler was ended because it took longer than its limit: it
 * was cancelled, or a call of its own has ended by that limit.
 */
bool
rinq_result_is_over_limit(const RinqSlot *slot, const ErrorData *error)
{
	return !rinq_result_is_late(slot, error) && rinq_limit_passed() &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_RINQ_TIMEOUT);
}

/*
 * Turn the error that ended a handler into a result.  Its message is all
 * that leaves the server; the log has the rest.
 */
static void
respond_error(RinqSlot *slot, ErrorData *error)
{
	if (rinq_result_is_late(slot, error))
	{
		rinq_slot_clear(slot);
		slot->outcome = RINQ_OUTCOME_EXPIRED;
	}
	else if (rinq_result_is_over_limit(slot, error))
		rinq_result_plainly(slot, rinq_limit_text());
	else if (rinq_result_is_failure(error))
		respond_failure(slot);
	else
		put_error_text(slot, make_sendable(error->message != NULL ? error->message : "unknown error"));
}

/*
 * Answer a request with an error; of one that cannot be expressed, that is
 * said instead, since a request without a result would come again, for ever.
 *
 * To be called with interrupts enabled and outside of any PG_CATCH: an error
 * in here sets the count of who holds interrupts to zero, and what the caller
 * held would be released once more than it was held.
 */
void
rinq_result_error(RinqSlot *slot, ErrorData *error, MemoryContext context)
{
	Assert(InterruptHoldoffCount == 0);
	PG_TRY();
	{
		/* converting text needs a transaction */
		StartTransactionCommand();
		MemoryContextSwitchTo(context);
		respond_error(slot, error);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		rinq_end_failed_transaction(context);
		rinq_result_plainly(slot, "the error that ended the handler cannot be sent");
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}
