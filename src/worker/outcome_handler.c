/*-------------------------------------------------------------------------
 *
 * outcome_handler.c
 *	  Running the handler of a durable call, whose outcome is in its row.
 *
 * The row is locked, the handler called with what it has, and the row deleted,
 * in one transaction: so the effects of an outcome happen once, however often
 * an executor is sent here.  When the handler fails, the row stays, and says
 * when it is tried again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/durable_calls.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/request_context.h"
#include "backend/retry_policy.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/outcome_handler.h"
#include "worker/handler.h"
#include "worker/books.h"
#include "worker/response.h"
#include "worker/retry_delay.h"

/*
 * Run a statement on the row of the call, which is a role's, whatever the role,
 * or its handler, has set for the transaction.
 */
static uint64
execute_on_call(SPIPlanPtr * plan, const char *query, const RinqFields *fields, Oid role)
{
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2];
	bool		read_only = XactReadOnly;
	uint64		rows;

	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_RESPONSE_ID));
	values[1] = ObjectIdGetDatum(role);
	XactReadOnly = false;
	rows = rinq_own_table_execute_kept(plan, query, 2, types, values, NULL);
	XactReadOnly = read_only;
	return rows;
}

/*
 * Lock the row of a call whose outcome is to be handled, and read it; false when
 * there is none, or another process is at it.
 */
static bool
lock_outcome(const RinqFields *fields, RinqFields *outcome, Oid *owner, MemoryContext context)
{
	static SPIPlanPtr plan = NULL;
	RinqOwnTable table;
	bool		found;
	bool		isnull;

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	found = execute_on_call(&plan, "SELECT " RINQ_DURABLE_OUTCOME_COLUMNS ", c.handler_owner"
							" FROM rinq_internal.durable_call c WHERE c.id OPERATOR(pg_catalog.=) $1"
							" AND c.role OPERATOR(pg_catalog.=) $2 AND c.outcome IS NOT NULL"
							" AND c.handler IS NOT NULL AND c.due IS NOT NULL"
							" FOR UPDATE SKIP LOCKED", fields, table.saved_user) > 0;
	if (found)
	{
		rinq_durable_call_outcome(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, context, outcome);
		*owner = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												RINQ_DURABLE_OUTCOME_COUNT + 1, &isnull));
	}
	rinq_own_table_close(&table);
	return found;
}

/*
 * Delete the row of a call, which is a role's, whose outcome was handled.  The
 * handler may have become another role meanwhile, or have cancelled the call: no
 * other transaction can have deleted the row, which is locked.
 */
static void
delete_call(const RinqFields *fields, Oid role)
{
	static SPIPlanPtr plan = NULL;
	RinqOwnTable table;

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	(void) execute_on_call(&plan, "DELETE FROM rinq_internal.durable_call c"
						   " WHERE c.id OPERATOR(pg_catalog.=) $1"
						   " AND c.role OPERATOR(pg_catalog.=) $2", fields, role);
	rinq_own_table_close(&table);
}

/* Have what is sent meanwhile belong to the call, which was not known before. */
static void
inherit_call(const RinqFields *outcome)
{
	rinq_inherited.trace = rinq_get_bytes(outcome, RINQ_RESPONSE_TRACE);
	rinq_inherited.span_context = rinq_get_bytes(outcome, RINQ_RESPONSE_SPAN);
	rinq_inherited.traceparent = rinq_get_bytes(outcome, RINQ_RESPONSE_TRACEPARENT);
	rinq_inherited.tracestate = rinq_get_bytes(outcome, RINQ_RESPONSE_TRACESTATE);
}

/*
 * Handle the outcome of a call, in the current transaction.
 */
void
rinq_outcome_handle(const RinqFields *fields)
{
	static MemoryContext context = NULL;
	RinqFields	outcome;
	Oid			role = GetUserId();
	Oid			owner;

	/* lives longer than the transaction, as what is inherited does */
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "rinq durable call", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(context);
	if (!lock_outcome(fields, &outcome, &owner, context))
		return;
	inherit_call(&outcome);
	(void) rinq_handler_call(RINQ_WORK_RESPONSE, &outcome, owner, 0, false);
	delete_call(fields, role);
}

/* what is written down about an attempt */
typedef struct Attempt
{
	const RinqFields *fields;
	const char *error;
	bool		count;			/* the attempt, which was not counted yet */
	bool		failed;			/* set when it is tried again */
	bool		asked_for;		/* the handler asks for that */
	bool		given_up;
	bool		again;			/* set when there is a next one, */
	int64		delay;			/* after these ms */
} Attempt;

/*
 * Read the policy of a call.  Without one, and with one that was written by hand
 * and is none, the handler is tried rinq.max_attempts times.
 */
static void
read_call_policy(HeapTuple row, TupleDesc desc, int column, RinqRetryPolicy *policy)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	if (isnull || rinq_retry_policy_read(DatumGetJsonbP(value), policy) != NULL)
		memset(policy, 0, sizeof(*policy));
}

/* Return how many attempts at a handler there may be; 0 for as many as it takes. */
static int
call_attempts_allowed(const RinqRetryPolicy *policy)
{
	return policy->attempts > 0 ? policy->attempts : rinq_max_attempts;
}

/* Find out whether a handler is tried again that has failed, or not ended, so often, and when. */
static void
plan_next_attempt(Attempt *attempt, const RinqRetryPolicy *policy, int attempts)
{
	int			allowed = call_attempts_allowed(policy);

	attempt->again = allowed == 0 || attempts < allowed;
	if (attempt->again)
		attempt->delay = rinq_retry_delay_after(policy, attempts, attempt->asked_for);
}

/*
 * Count an attempt, and set when the next one is: when it has failed, by the
 * attempts so far, and else when this one is not heard of.
 */
static void
write_attempt(void *arg)
{
	static SPIPlanPtr count_plan = NULL;
	static SPIPlanPtr lock_plan = NULL;
	static SPIPlanPtr due_plan = NULL;
	Attempt    *attempt = arg;
	RinqOwnTable table;
	Oid			types[4] = {TEXTOID, OIDOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[4];
	char		nulls[4] = {' ', ' ', ' ', ' '};
	RinqRetryPolicy policy;
	int			attempts;
	bool		isnull;

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	if (execute_on_call(attempt->count ? &count_plan : &lock_plan, attempt->count ?
						"UPDATE rinq_internal.durable_call c SET attempts = c.attempts OPERATOR(pg_catalog.+) 1"
						" WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.role OPERATOR(pg_catalog.=) $2"
						" AND c.due IS NOT NULL RETURNING c.attempts, c.retry" :
						"SELECT c.attempts, c.retry FROM rinq_internal.durable_call c"
						" WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.role OPERATOR(pg_catalog.=) $2"
						" AND c.due IS NOT NULL FOR UPDATE", attempt->fields, table.saved_user) == 0)
	{
		rinq_own_table_close(&table);
		return;
	}
	attempts = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	read_call_policy(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &policy);
	attempt->given_up = !attempt->failed && call_attempts_allowed(&policy) > 0 &&
		attempts > call_attempts_allowed(&policy);
	if (attempt->failed || attempt->given_up)
	{
		plan_next_attempt(attempt, &policy, attempts);
		values[0] = rinq_text_datum(rinq_get_bytes(attempt->fields, RINQ_RESPONSE_ID));
		values[1] = ObjectIdGetDatum(table.saved_user);
		values[2] = CStringGetTextDatum(attempt->error);
		nulls[3] = attempt->again ? ' ' : 'n';
		values[3] = TimestampTzGetDatum(rinq_timestamp_of_ms(rinq_wall_ms() + attempt->delay));
		(void) rinq_own_table_execute_kept(&due_plan,
										   "UPDATE rinq_internal.durable_call c SET error = $3, due = $4"
										   " WHERE c.id OPERATOR(pg_catalog.=) $1"
										   " AND c.role OPERATOR(pg_catalog.=) $2",
										   4, types, values, nulls);
	}
	rinq_own_table_close(&table);
}

/*
 * Count an attempt at a handler that may have ended its executor, or the whole
 * server, each time.  After some of them it is given up; then the result is
 * true.
 */
bool
rinq_outcome_give_up(RinqSlot *slot, const RinqFields *fields, MemoryContext context)
{
	Attempt		attempt;

	if (!slot->redelivered)
		return false;
	memset(&attempt, 0, sizeof(attempt));
	attempt.fields = fields;
	attempt.count = true;
	attempt.error = "the handler has not ended in any of its attempts";
	(void) rinq_keep_books(write_attempt, &attempt, true, RINQ_BOOKS_LOCK_TIMEOUT, context);
	if (attempt.given_up)
		rinq_result_plainly(slot, "the handler was given up");
	return attempt.given_up;
}

/*
 * Have a handler tried again later that has failed, or given up after some
 * attempts.  The peer learns when from the result of this one.
 */
void
rinq_outcome_failed(RinqSlot *slot, const RinqFields *fields, const ErrorData *error,
					MemoryContext context)
{
	Attempt		attempt;

	memset(&attempt, 0, sizeof(attempt));
	attempt.fields = fields;
	attempt.count = !slot->redelivered;
	attempt.failed = true;
	attempt.asked_for = rinq_asks_for_retry(error);
	attempt.error = error->message != NULL ? error->message : "unknown error";
	if (rinq_keep_books(write_attempt, &attempt, true, RINQ_BOOKS_LOCK_TIMEOUT, context) && attempt.again)
		slot->due = rinq_clock_ms() + attempt.delay;
}
