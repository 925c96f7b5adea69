/*-------------------------------------------------------------------------
 *
 * inbox_failed.c
 *	  What becomes of requests and notifications that have failed: another attempt,
 *	  or they are set aside.
 *
 * No caller hears of the error that ends a command, so it is written down, in a
 * transaction that commits before the command is acknowledged: in
 * "inbox_waiting" when the listener's policy, or the handler itself, wants
 * another attempt, in "inbox_dead_letter" when not.  Where that fails, the
 * command goes back to the broker.
 *
 * The same is done for a notification of a subscription with a policy, which was
 * acknowledged when it arrived.  Where it cannot be written down, the peer has it
 * handled again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"

#include "access/xact.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/handler.h"
#include "worker/inbox_failed.h"
#include "worker/response.h"
#include "worker/retry_delay.h"
#include "worker/time_limit.h"

int			rinq_inbox_tries = 0;

/*
 * Tell whether what has failed is kept: a command, or a notification of a
 * subscription that wants that, or whose handler does.
 */
bool
rinq_inbox_keeps(const RinqSlot *slot, const RinqFields *fields, const ErrorData *error)
{
	if (slot->work == RINQ_WORK_REQUEST)
		return !slot->wants_response;
	if (slot->work != RINQ_WORK_NOTIFICATION || rinq_get_bytes(fields, RINQ_NOTIFICATION_SUBSCRIPTION).data == NULL)
		return false;
	return slot->from_inbox || slot->retry.attempts > 0 || rinq_asks_for_retry(error);
}

/*
 * Tell whether the name of a command, or type of a notification, has a form in
 * this database; one that has none is not handled by any attempt.
 */
static bool
is_command_readable(const RinqFields *fields)
{
	RinqBytes	command = rinq_get_bytes(fields, rinq_common_fields_of(fields)->subject);
	const char *text = rinq_message_from_wire(command);
	int			before = 0;
	int			after = 0;
	size_t		i;

	for (i = 0; i < command.len; i++)
		before += command.data[i] == '?';
	for (; text != NULL && *text != '\0'; text++)
		after += *text == '?';
	return before == after;
}

/*
 * Return how many attempts there may be at a request: as the policy says, or the
 * setting when there is none and the handler has asked for another one.
 */
int
rinq_inbox_attempts_allowed(const RinqSlot *slot, bool asked_for)
{
	if (slot->retry.attempts > 0)
		return slot->retry.attempts;
	if (!asked_for)
		return 1;
	return rinq_max_attempts > 0 ? rinq_max_attempts : INT_MAX;
}

/*
 * Decide when the next attempt is made, or that there is none, -1: there were
 * enough, or it would come too late.
 */
static int64
decide_delay(const RinqInboxFailure * failure, const ErrorData *error)
{
	bool		asked_for = rinq_asks_for_retry(error);
	int64		delay;

	if (failure->tries >= rinq_inbox_attempts_allowed(failure->slot, asked_for))
		return -1;
	delay = rinq_retry_delay_after(&failure->slot->retry, failure->tries, asked_for);
	if (failure->slot->deadline != 0 && rinq_clock_ms() + delay >= failure->slot->deadline)
		return -1;
	return delay;
}

/* Describe an error; a handler that was ended by a limit did not fail by itself. */
static void
describe_error(const RinqSlot *slot, ErrorData *error, RinqInboxCause * cause)
{
	memset(cause, 0, sizeof(*cause));
	cause->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	cause->message = error->message != NULL ? error->message : "unknown error";
	if (rinq_result_is_late(slot, error))
		cause->message = "the deadline of the request has passed";
	else if (rinq_result_is_over_limit(slot, error))
		cause->message = rinq_limit_text();
	cause->detail = error->detail_log != NULL ? error->detail_log : error->detail;
	cause->hint = error->hint;
	cause->context = error->context;
}

/* Count what has become of what has failed, and say in the log that it was set aside. */
void
rinq_inbox_tell(RinqDatabase *db, const RinqInboxFailure * failure, bool log)
{
	bool		is_notification = failure->fields->kind == RINQ_KIND_NOTIFICATION;

	if (failure->delay >= 0)
	{
		rinq_count(db, is_notification ? RINQ_NOTIFICATIONS_RETRIED : RINQ_REQUESTS_RETRIED);
		return;
	}
	rinq_count(db, is_notification ? RINQ_NOTIFICATIONS_SET_ASIDE : RINQ_REQUESTS_SET_ASIDE);
	if (log)
		ereport(LOG,
				(errmsg("rinq has set a %s aside after attempt %u", is_notification ? "notification" : "request",
						rinq_get_uint32(failure->fields, rinq_common_fields_of(failure->fields)->attempt)),
				 errdetail_internal("%s", failure->cause.message),
				 errhint("Look at the view rinq_inbox_dead_letter.")));
}

/* Write a failure down, in a transaction, which converting text needs as well. */
static void
write_failure(void *arg)
{
	RinqInboxFailure *failure = arg;

	if (!rinq_handler_entered && !failure->slot->from_inbox && failure->delay >= 0 &&
		!is_command_readable(failure->fields))
		failure->delay = -1;
	rinq_inbox_write(failure);
}

/*
 * Keep a command or notification that an error has ended for another attempt, or
 * set it aside.  Its delivery may be acknowledged then; if it cannot be written
 * down, it is given back, as it is on a standby, which writes nothing down: also
 * when that was promoted since the handler began.
 *
 * To be called outside of any PG_CATCH, like rinq_result_error.
 */
void
rinq_inbox_failed(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields, ErrorData *error,
				  bool on_standby, MemoryContext context)
{
	RinqInboxFailure failure = {slot, fields};

	Assert(InterruptHoldoffCount == 0 && rinq_inbox_keeps(slot, fields, error));
	failure.began = GetCurrentStatementStartTimestamp();
	describe_error(slot, error, &failure.cause);
	failure.tries = slot->from_inbox ? rinq_inbox_tries :
		(int) rinq_get_uint32(fields, rinq_common_fields_of(fields)->attempt);
	failure.delay = decide_delay(&failure, error);
	rinq_slot_clear(slot);
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (on_standby ||
		!rinq_keep_books(write_failure, &failure, true, RINQ_BOOKS_LOCK_TIMEOUT, context))
		return;
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	if (failure.delay >= 0)
		slot->due = rinq_clock_earlier(slot->due, rinq_clock_ms() + failure.delay + 1);
	rinq_inbox_tell(db, &failure, rinq_handler_entered);
}

/*
 * Set a request aside that the broker has delivered too often, or a notification
 * whose executor has ended each time.  Its caller, if there is one, is told; else
 * it is over if it could be written down.
 */
void
rinq_inbox_set_aside(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
					 MemoryContext context)
{
	RinqInboxFailure failure = {slot, fields};
	char		text[64];
	bool		written;

	snprintf(text, sizeof(text), "the %s was given up after %u attempts",
			 fields->kind == RINQ_KIND_NOTIFICATION ? "notification" : "request",
			 rinq_get_uint32(fields, rinq_common_fields_of(fields)->attempt));
	failure.began = GetCurrentTimestamp();
	failure.cause.message = text;
	failure.delay = -1;
	written = rinq_keep_books(rinq_inbox_write, &failure, true, RINQ_BOOKS_LOCK_TIMEOUT, context);
	if (written)
		rinq_inbox_tell(db, &failure, true);
	if (slot->wants_response)
		rinq_result_plainly(slot, text);
	else
		slot->outcome = written ? RINQ_OUTCOME_SUCCESS : RINQ_OUTCOME_GIVEN_BACK;
}

/*
 * Have the peer make another attempt at a call that an error has ended, if its
 * listener's policy wants that for calls, and its deadline allows it.  A
 * failure that the application defines is the response.
 */
bool
rinq_inbox_call_again(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields, ErrorData *error)
{
	RinqInboxFailure failure = {slot, fields};
	int64		delay;

	if (slot->work != RINQ_WORK_REQUEST || !slot->retry.calls || rinq_result_is_failure(error) ||
		rinq_result_is_late(slot, error))
		return false;
	failure.tries = (int) rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT);
	delay = decide_delay(&failure, error);
	if (delay < 0)
		return false;
	rinq_slot_clear(slot);
	slot->outcome = RINQ_OUTCOME_AGAIN;
	slot->due = rinq_clock_ms() + delay;
	rinq_count(db, RINQ_REQUESTS_RETRIED);
	return true;
}
