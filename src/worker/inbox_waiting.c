/*-------------------------------------------------------------------------
 *
 * inbox_waiting.c
 *	  Commands that have failed: kept until their next attempt, or set aside.
 *
 * No caller hears of the error that ends a command, so it is written down, in a
 * transaction that commits before the command is acknowledged: in
 * "inbox_waiting" when the listener's policy, or the handler itself, wants
 * another attempt, in "inbox_dead_letter" when not.  Where that fails, the
 * command goes back to the broker.
 *
 * When a command is due, the peer has an executor take the oldest one of its
 * namespace.  The attempt is counted in a transaction of its own, before it
 * begins; the row is then due a little later, so that no other executor
 * takes it meanwhile, and another one does if this process ends.  The handler's
 * transaction deletes the row first, if it is still the row of this attempt:
 * the row is gone if and only if the command was handled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"

#include "access/xact.h"
#include "backend/handler_rules.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/handler.h"
#include "worker/inbox_waiting.h"
#include "worker/response.h"
#include "worker/retry_delay.h"
#include "worker/time_limit.h"

#define WAITING "inbox_waiting"
#define DEAD_LETTER "inbox_dead_letter"

#define BLOCKED_DELAY 5000		/* ms until another look at what is locked */

#define MAX_CAUSE_LEN 65536		/* bytes of each text of an error */

/* columns that both tables have, in the order of COMMON_COLUMNS */
enum
{
	COLUMN_ID,
	COLUMN_DIGEST,
	COLUMN_SOURCE,
	COLUMN_NAMESPACE,
	COLUMN_COMMAND,
	COLUMN_PAYLOAD,
	COLUMN_TRACE_ID,
	COLUMN_DEADLINE,
	COLUMN_SPAN_CONTEXT,
	COLUMN_TRACEPARENT,
	COLUMN_TRACESTATE,
	COLUMN_HANDLER,
	COLUMN_ATTEMPTS,
	COLUMN_FIRST_RECEIVED,
	COLUMN_LAST_ATTEMPT,
	COLUMN_SQLSTATE,
	COLUMN_ERROR,
	COLUMN_DETAIL,
	COLUMN_HINT,
	COLUMN_CONTEXT,
	COMMON_END,

	/* of those that wait */
	COLUMN_TRIES = COMMON_END,
	COLUMN_DUE,
	COLUMN_DATABASE,
	WAITING_END
};

#define COMMON_COLUMNS "id, digest, source, namespace, command, payload, trace_id, deadline," \
	" span_context, traceparent, tracestate, handler, attempts, first_received, last_attempt," \
	" sqlstate, error, detail, hint, context"

static const Oid column_types[WAITING_END] = {
	TEXTOID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, TEXTOID, TIMESTAMPTZOID,
	BYTEAOID, BYTEAOID, BYTEAOID, TEXTOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	INT4OID, TIMESTAMPTZOID, OIDOID
};

/* why an attempt has failed, as text of this database */
typedef struct Cause
{
	const char *sqlstate;		/* NULL: it was no error */
	const char *message;
	const char *detail;
	const char *hint;
	const char *context;
} Cause;

/* what is to be written about a request */
typedef struct Failure
{
	const RinqSlot *slot;
	const RinqFields *fields;
	Cause		cause;
	int			tries;
	int64		delay;			/* ms until the next attempt; -1: set it aside */
} Failure;

/* what is asked about, and taken from, those that wait */
typedef struct Taking
{
	RinqSlot   *slot;
	RinqFields *fields;
	MemoryContext context;
	bool		found;
	bool		more;			/* there is another one that is due */
	bool		set_aside;
	const char *reason;			/* then */
	TimestampTz next;			/* when the next one is due; DT_NOEND: there
								 * is none */
} Taking;

/* when the attempt began that is written about */
static TimestampTz attempt_began = 0;

/* attempts, since it was put into the table, at the request that was taken */
static int	taken_tries = 0;

static void
put_datum(Datum *values, char *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = ' ';
}

static void
put_cause_text(Datum *values, char *nulls, int column, const char *text)
{
	if (text == NULL)
		return;
	if ((int) strlen(text) > MAX_CAUSE_LEN)
		text = pnstrdup(text, pg_mbcliplen(text, (int) strlen(text), MAX_CAUSE_LEN));
	put_datum(values, nulls, column, CStringGetTextDatum(text));
}

static void
put_bytea(Datum *values, char *nulls, int column, RinqBytes bytes)
{
	if (bytes.len > 0)
		put_datum(values, nulls, column, PointerGetDatum(rinq_bytes_to_bytea(bytes)));
}

static void
put_time(Datum *values, char *nulls, int column, TimestampTz time)
{
	put_datum(values, nulls, column, TimestampTzGetDatum(time));
}

/* Return the key of a request in the inbox, beside its id. */
static Datum
key_digest(const RinqSlot *slot, const RinqFields *fields)
{
	RinqBytes	digest = rinq_get_bytes(fields, RINQ_REQUEST_DIGEST);

	if (digest.data != NULL)
		return PointerGetDatum(rinq_bytes_to_bytea(digest));
	return rinq_request_digest(slot, fields);
}

static TimestampTz
first_received(const RinqFields *fields)
{
	TimestampTz first = rinq_get_int64(fields, RINQ_REQUEST_FIRST_RECEIVED);

	return first != 0 ? first : GetCurrentTimestamp();
}

/*
 * Fill in the columns that both tables have.  A command, or trace id, that has
 * no form in this database is written with question marks.
 */
static void
put_request(const Failure *failure, Datum *values, char *nulls)
{
	const RinqSlot *slot = failure->slot;
	const RinqFields *fields = failure->fields;
	RinqBytes	handler = rinq_get_bytes(fields, RINQ_REQUEST_HANDLER);

	put_datum(values, nulls, COLUMN_ID, rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID)));
	put_datum(values, nulls, COLUMN_DIGEST, key_digest(slot, fields));
	put_datum(values, nulls, COLUMN_SOURCE, rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_SOURCE)));
	put_datum(values, nulls, COLUMN_NAMESPACE, rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_NAMESPACE)));
	put_datum(values, nulls, COLUMN_COMMAND,
			  CStringGetTextDatum(rinq_message_from_wire(rinq_get_bytes(fields, RINQ_REQUEST_COMMAND))));
	put_bytea(values, nulls, COLUMN_PAYLOAD, rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD));
	put_datum(values, nulls, COLUMN_TRACE_ID,
			  CStringGetTextDatum(rinq_message_from_wire(rinq_get_bytes(fields, RINQ_REQUEST_TRACE))));
	if (slot->deadline != 0)
		put_time(values, nulls, COLUMN_DEADLINE,
				 rinq_timestamp_of_ms(rinq_wall_of_clock(slot->deadline)));
	put_bytea(values, nulls, COLUMN_SPAN_CONTEXT, rinq_get_bytes(fields, RINQ_REQUEST_SPAN));
	put_bytea(values, nulls, COLUMN_TRACEPARENT, rinq_get_bytes(fields, RINQ_REQUEST_TRACEPARENT));
	put_bytea(values, nulls, COLUMN_TRACESTATE, rinq_get_bytes(fields, RINQ_REQUEST_TRACESTATE));
	put_datum(values, nulls, COLUMN_HANDLER,
			  CStringGetTextDatum(rinq_handler_name(pnstrdup(handler.data, handler.len))));
	put_datum(values, nulls, COLUMN_ATTEMPTS, Int32GetDatum((int32) rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT)));
	put_time(values, nulls, COLUMN_FIRST_RECEIVED, first_received(fields));
	put_time(values, nulls, COLUMN_LAST_ATTEMPT, attempt_began);
}

static void
put_cause(const Cause *cause, Datum *values, char *nulls)
{
	put_cause_text(values, nulls, COLUMN_SQLSTATE, cause->sqlstate);
	put_cause_text(values, nulls, COLUMN_ERROR, cause->message);
	put_cause_text(values, nulls, COLUMN_DETAIL, cause->detail);
	put_cause_text(values, nulls, COLUMN_HINT, cause->hint);
	put_cause_text(values, nulls, COLUMN_CONTEXT, cause->context);
}

/* Run a statement that has the id, the digest and the attempts of a request as arguments. */
static uint64
run_with_key(const RinqOwnTable *table, const char *query, const RinqSlot *slot,
			 const RinqFields *fields)
{
	Oid			types[3] = {TEXTOID, BYTEAOID, INT4OID};
	Datum		values[3];

	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = key_digest(slot, fields);
	values[2] = Int32GetDatum((int32) rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT));
	return rinq_own_table_execute(psprintf(query, table->name), 3, types, values, NULL);
}

#define THIS_KEY " WHERE id OPERATOR(pg_catalog.=) $1 AND digest OPERATOR(pg_catalog.=) $2"
#define THIS_ATTEMPT THIS_KEY " AND attempts OPERATOR(pg_catalog.=) $3"

/* Delete the row of an attempt that was taken; false when it is not that of this attempt any more. */
static bool
delete_taken(const RinqSlot *slot, const RinqFields *fields)
{
	RinqOwnTable table;
	uint64		rows;

	rinq_own_table_open(&table, rinq_internal_schema(), WAITING);
	rows = run_with_key(&table, "DELETE FROM %s" THIS_ATTEMPT, slot, fields);
	rinq_own_table_close(&table);
	return rows > 0;
}

static void
insert_dead(const Failure *failure)
{
	RinqOwnTable table;
	Oid			types[COMMON_END];
	Datum		values[COMMON_END] = {0};
	char		nulls[COMMON_END];

	rinq_own_table_open(&table, rinq_internal_schema(), DEAD_LETTER);
	memcpy(types, column_types, sizeof(types));
	memset(nulls, 'n', sizeof(nulls));
	put_request(failure, values, nulls);
	put_cause(&failure->cause, values, nulls);
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s (" COMMON_COLUMNS ", recorded)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,"
										   " $14, $15, $16, $17, $18, $19, $20, pg_catalog.now())"
										   " ON CONFLICT (id, digest) DO NOTHING", table.name),
								  COMMON_END, types, values, nulls);
	rinq_own_table_close(&table);
}

static void
insert_waiting(const Failure *failure)
{
	RinqOwnTable table;
	Oid			types[WAITING_END];
	Datum		values[WAITING_END] = {0};
	char		nulls[WAITING_END];

	rinq_own_table_open(&table, rinq_internal_schema(), WAITING);
	memcpy(types, column_types, sizeof(types));
	memset(nulls, 'n', sizeof(nulls));
	put_request(failure, values, nulls);
	put_cause(&failure->cause, values, nulls);
	put_datum(values, nulls, COLUMN_TRIES, Int32GetDatum(failure->tries));
	put_time(values, nulls, COLUMN_DUE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), failure->delay));
	put_datum(values, nulls, COLUMN_DATABASE, ObjectIdGetDatum(MyDatabaseId));
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s (" COMMON_COLUMNS ", tries, due, database)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,"
										   " $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
										   " ON CONFLICT (id, digest) DO NOTHING", table.name),
								  WAITING_END, types, values, nulls);
	rinq_own_table_close(&table);
}

/* Write when the next attempt at a request that was taken is due, and what has ended this one. */
static void
update_waiting(const Failure *failure)
{
	static const int columns[] = {
		COLUMN_SQLSTATE, COLUMN_ERROR, COLUMN_DETAIL, COLUMN_HINT, COLUMN_CONTEXT, COLUMN_DUE,
		COLUMN_ID, COLUMN_DIGEST, COLUMN_ATTEMPTS
	};
	RinqOwnTable table;
	Oid			types[lengthof(columns)];
	Datum		values[lengthof(columns)];
	char		nulls[lengthof(columns)];
	Datum		all[WAITING_END] = {0};
	char		all_nulls[WAITING_END];
	int			i;

	rinq_own_table_open(&table, rinq_internal_schema(), WAITING);
	memset(all_nulls, 'n', sizeof(all_nulls));
	put_cause(&failure->cause, all, all_nulls);
	put_time(all, all_nulls, COLUMN_DUE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), failure->delay));
	put_datum(all, all_nulls, COLUMN_ID, rinq_text_datum(rinq_get_bytes(failure->fields, RINQ_REQUEST_ID)));
	put_datum(all, all_nulls, COLUMN_DIGEST, key_digest(failure->slot, failure->fields));
	put_datum(all, all_nulls, COLUMN_ATTEMPTS,
			  Int32GetDatum((int32) rinq_get_uint32(failure->fields, RINQ_REQUEST_ATTEMPT)));
	for (i = 0; i < (int) lengthof(columns); i++)
	{
		types[i] = column_types[columns[i]];
		values[i] = all[columns[i]];
		nulls[i] = all_nulls[columns[i]];
	}
	(void) rinq_own_table_execute(psprintf("UPDATE %s SET sqlstate = $1, error = $2, detail = $3, hint = $4,"
										   " context = $5, due = $6 WHERE id OPERATOR(pg_catalog.=) $7"
										   " AND digest OPERATOR(pg_catalog.=) $8"
										   " AND attempts OPERATOR(pg_catalog.=) $9", table.name),
								  lengthof(columns), types, values, nulls);
	rinq_own_table_close(&table);
}

static void
write_failure(void *arg)
{
	const Failure *failure = arg;
	bool		taken = failure->slot->from_inbox;

	if (failure->delay >= 0 && taken)
		update_waiting(failure);
	else if (failure->delay >= 0)
		insert_waiting(failure);
	else if (!taken || delete_taken(failure->slot, failure->fields))
		insert_dead(failure);
}

/*
 * Tell whether a command's name has a form in this database; one that has none
 * is not handled by any attempt.
 */
static bool
is_command_readable(const RinqFields *fields)
{
	RinqBytes	command = rinq_get_bytes(fields, RINQ_REQUEST_COMMAND);
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
static int
attempts_allowed(const RinqSlot *slot, bool asked_for)
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
decide_delay(const Failure *failure, const ErrorData *error)
{
	bool		asked_for = rinq_asks_for_retry(error);
	int64		delay;

	if (failure->tries >= attempts_allowed(failure->slot, asked_for))
		return -1;
	delay = rinq_retry_delay_after(&failure->slot->retry, failure->tries, asked_for);
	if (failure->slot->deadline != 0 && rinq_clock_ms() + delay >= failure->slot->deadline)
		return -1;
	return delay;
}

/* Describe an error; a handler that was ended by a limit did not fail by itself. */
static void
describe_error(const RinqSlot *slot, ErrorData *error, Cause *cause)
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

/* Count what has become of a failed command, and say in the log that it was set aside. */
static void
tell_failure(RinqDatabase *db, const Failure *failure, bool log)
{
	if (failure->delay >= 0)
	{
		rinq_count(db, RINQ_REQUESTS_RETRIED);
		return;
	}
	rinq_count(db, RINQ_REQUESTS_SET_ASIDE);
	if (log)
		ereport(LOG,
				(errmsg("rinq has set a request aside after attempt %u",
						rinq_get_uint32(failure->fields, RINQ_REQUEST_ATTEMPT)),
				 errdetail_internal("%s", failure->cause.message),
				 errhint("Look at the view rinq_inbox_dead_letter.")));
}

/*
 * Keep a command that an error has ended for another attempt, or set it aside.
 * Its delivery may be acknowledged then; if it cannot be written down, it goes
 * back to the broker, as it does from a standby, which writes nothing down: also
 * when that was promoted since the handler began.
 *
 * To be called outside of any PG_CATCH, like rinq_result_error.
 */
void
rinq_waiting_failed(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields, ErrorData *error,
					bool on_standby, MemoryContext context)
{
	Failure		failure = {slot, fields};

	Assert(InterruptHoldoffCount == 0 && !slot->wants_response);
	attempt_began = GetCurrentStatementStartTimestamp();
	describe_error(slot, error, &failure.cause);
	failure.tries = slot->from_inbox ? taken_tries : (int) rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT);
	failure.delay = decide_delay(&failure, error);
	rinq_slot_clear(slot);
	if (!rinq_handler_entered && !slot->from_inbox && failure.delay >= 0 && !is_command_readable(fields))
		failure.delay = -1;
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (on_standby ||
		!rinq_keep_books(write_failure, &failure, true, RINQ_BOOKS_LOCK_TIMEOUT, context))
		return;
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	if (failure.delay >= 0)
		slot->due = rinq_clock_earlier(slot->due, rinq_clock_ms() + failure.delay + 1);
	tell_failure(db, &failure, rinq_handler_entered);
}

/*
 * Set a request aside that the broker has delivered too often.  Its caller, if
 * there is one, is told; else it is acknowledged if it could be written down.
 */
void
rinq_waiting_give_up(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
					 MemoryContext context)
{
	Failure		failure = {slot, fields};
	char		text[64];
	bool		written;

	snprintf(text, sizeof(text), "the request was given up after %u attempts",
			 rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT));
	attempt_began = GetCurrentTimestamp();
	failure.cause.message = text;
	failure.delay = -1;
	written = rinq_keep_books(write_failure, &failure, true, RINQ_BOOKS_LOCK_TIMEOUT, context);
	if (written)
		tell_failure(db, &failure, true);
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
rinq_call_again(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields, ErrorData *error)
{
	Failure		failure = {slot, fields};
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

/* ---------------- another attempt ---------------- */

/* Copy a value of the row that a statement has returned; absent for NULL. */
static RinqBytes
copy_column(const Taking *taking, int column)
{
	HeapTuple	row = SPI_tuptable->vals[0];
	bool		isnull;
	Datum		value = SPI_getbinval(row, SPI_tuptable->tupdesc, column + 1, &isnull);
	MemoryContext old;
	RinqBytes	bytes;

	if (isnull)
		return rinq_bytes(NULL, 0);
	old = MemoryContextSwitchTo(taking->context);
	if (column_types[column] == TEXTOID)
		bytes = rinq_text_to_wire(TextDatumGetCString(value));
	else
	{
		bytea	   *found = DatumGetByteaPCopy(value);

		bytes = rinq_bytes(VARDATA(found), VARSIZE(found) - VARHDRSZ);
	}
	MemoryContextSwitchTo(old);
	return bytes;
}

/* Return a number, or time, of that row; 0 for NULL. */
static int64
taken_number(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column + 1, &isnull);

	if (isnull)
		return 0;
	return column_types[column] == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

/* Make the row that a statement has returned the request that is to be handled. */
static void
read_taken(Taking *taking)
{
	static const struct
	{
		int			field;
		int			column;
	}			parts[] = {
		{RINQ_REQUEST_ID, COLUMN_ID}, {RINQ_REQUEST_DIGEST, COLUMN_DIGEST},
		{RINQ_REQUEST_SOURCE, COLUMN_SOURCE}, {RINQ_REQUEST_COMMAND, COLUMN_COMMAND},
		{RINQ_REQUEST_PAYLOAD, COLUMN_PAYLOAD}, {RINQ_REQUEST_TRACE, COLUMN_TRACE_ID},
		{RINQ_REQUEST_SPAN, COLUMN_SPAN_CONTEXT}, {RINQ_REQUEST_TRACEPARENT, COLUMN_TRACEPARENT},
		{RINQ_REQUEST_TRACESTATE, COLUMN_TRACESTATE}
	};
	TimestampTz deadline = taken_number(COLUMN_DEADLINE);
	int			i;

	for (i = 0; i < (int) lengthof(parts); i++)
		rinq_put_bytes(taking->fields, parts[i].field, copy_column(taking, parts[i].column));
	rinq_put_uint32(taking->fields, RINQ_REQUEST_ATTEMPT, (uint32) taken_number(COLUMN_ATTEMPTS));
	rinq_put_int64(taking->fields, RINQ_REQUEST_FIRST_RECEIVED, taken_number(COLUMN_FIRST_RECEIVED));
	taking->slot->deadline = deadline == 0 ? 0 : rinq_clock_of_wall(rinq_ms_of_timestamp(deadline));
	taken_tries = (int) taken_number(COLUMN_TRIES);
}

#define OF_NAMESPACE " WHERE namespace OPERATOR(pg_catalog.=) $1 AND database OPERATOR(pg_catalog.=) $2"

/* Take the one of a namespace that has been due for longest, if there is one. */
static void
take_oldest(Taking *taking, const RinqOwnTable *table, Datum *values)
{
	Oid			types[2] = {TEXTOID, OIDOID};

	taking->found =
		rinq_own_table_execute(psprintf("WITH n AS MATERIALIZED (SELECT id, digest FROM %s" OF_NAMESPACE
										" AND due OPERATOR(pg_catalog.<=) pg_catalog.now()"
										" ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED)"
										" UPDATE %s AS w SET attempts = w.attempts OPERATOR(pg_catalog.+) 1,"
										" tries = w.tries OPERATOR(pg_catalog.+) 1, last_attempt = pg_catalog.now(),"
										" due = pg_catalog.now() OPERATOR(pg_catalog.+)"
										" '" CppAsString2(RINQ_ATTEMPT_GRACE) " ms'::pg_catalog.interval"
										" FROM n WHERE w.id OPERATOR(pg_catalog.=) n.id"
										" AND w.digest OPERATOR(pg_catalog.=) n.digest"
										" RETURNING w.id, w.digest, w.source, w.namespace, w.command, w.payload,"
										" w.trace_id, w.deadline, w.span_context, w.traceparent, w.tracestate,"
										" w.handler, w.attempts, w.first_received, w.last_attempt, w.sqlstate,"
										" w.error, w.detail, w.hint, w.context, w.tries",
										table->name, table->name), 2, types, values, NULL) > 0;
	if (taking->found)
		read_taken(taking);
}

/* Find out when the next one is due, but for the one that was taken. */
static void
find_next_due(Taking *taking, const RinqOwnTable *table, Datum *values)
{
	Oid			types[4] = {TEXTOID, OIDOID, TEXTOID, BYTEAOID};
	char		nulls[4] = {' ', ' ', 'n', 'n'};
	bool		isnull;

	if (taking->found)
	{
		values[2] = rinq_text_datum(rinq_get_bytes(taking->fields, RINQ_REQUEST_ID));
		values[3] = key_digest(taking->slot, taking->fields);
		nulls[2] = nulls[3] = ' ';
	}
	taking->next = DT_NOEND;
	if (rinq_own_table_execute(psprintf("SELECT due FROM %s" OF_NAMESPACE
										" AND ($3 IS NULL OR id OPERATOR(pg_catalog.<>) $3"
										" OR digest OPERATOR(pg_catalog.<>) $4) ORDER BY due LIMIT 1", table->name),
							   4, types, values, nulls) > 0)
		taking->next = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	taking->more = taking->next <= GetCurrentTransactionStartTimestamp();
}

/* Say why a request that was taken is not tried again; NULL when it is. */
static const char *
reason_against(const RinqSlot *slot)
{
	if (taken_tries > attempts_allowed(slot, true))
		return "the request was given up, since its handler has ended its process, or could not be ended in order";
	if (slot->deadline != 0 && rinq_clock_ms() >= slot->deadline)
		return "the deadline of the request has passed";
	return NULL;
}

static void
take_due(void *arg)
{
	Taking	   *taking = arg;
	RinqOwnTable table;
	Datum		values[4];
	const char *reason;

	rinq_own_table_open(&table, rinq_internal_schema(), WAITING);
	values[0] = rinq_text_datum(rinq_get_bytes(taking->fields, RINQ_REQUEST_NAMESPACE));
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	take_oldest(taking, &table, values);
	find_next_due(taking, &table, values);
	rinq_own_table_close(&table);
	reason = taking->found ? reason_against(taking->slot) : NULL;
	if (reason != NULL)
	{
		Failure		failure = {taking->slot, taking->fields};

		attempt_began = GetCurrentTransactionStartTimestamp();
		failure.cause.message = reason;
		failure.delay = -1;
		write_failure(&failure);
		taking->set_aside = true;
		taking->reason = reason;
	}
}

/* Tell the peer when the next one is due. */
static void
note_next_due(RinqDatabase *db, uint32 index, const Taking *taking)
{
	RinqSlot   *slot = taking->slot;

	if (taking->next == DT_NOEND)
		return;
	slot->due = rinq_clock_of_wall(rinq_ms_of_timestamp(taking->next)) + 1;
	if (!taking->more)
		return;
	if (!taking->found)
		slot->due = rinq_clock_ms() + BLOCKED_DELAY;
	else
		rinq_event_put(db, RINQ_EVENT_MORE_DUE, index, slot->serial);
}

/*
 * Take the command of a namespace that has been due for longest, and count the
 * attempt.  False when there is none that may be handled now; then the slot has
 * its result.
 */
bool
rinq_waiting_take(RinqDatabase *db, uint32 index, RinqFields *fields, MemoryContext context)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];
	Taking		taking = {slot, fields, context};

	Assert(slot->from_inbox && !slot->wants_response);
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (!rinq_keep_books(take_due, &taking, true, RINQ_BOOKS_LOCK_TIMEOUT, context))
		return false;
	note_next_due(db, index, &taking);
	if (taking.found && !taking.set_aside)
		return true;
	if (taking.set_aside)
	{
		Failure		failure = {slot, fields};

		failure.cause.message = taking.reason;
		failure.delay = -1;
		tell_failure(db, &failure, true);
	}
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	return false;
}

/*
 * Delete the row of the command that is about to be handled, in the handler's
 * transaction, whatever the role has set for its own.  False when there is none
 * of this attempt any more: an administrator has deleted it, or another executor has it.
 */
bool
rinq_waiting_claim(const RinqFields *fields)
{
	bool		read_only = XactReadOnly;
	RinqOwnTable table;
	uint64		rows;

	Assert(rinq_get_bytes(fields, RINQ_REQUEST_DIGEST).data != NULL);
	XactReadOnly = false;
	rinq_own_table_open(&table, rinq_internal_schema(), WAITING);
	rows = run_with_key(&table, "DELETE FROM %s" THIS_ATTEMPT, NULL, fields);
	rinq_own_table_close(&table);
	XactReadOnly = read_only;
	return rows > 0;
}

/*
 * Tell whether a command that was delivered again waits here already, or was
 * set aside.
 */
bool
rinq_waiting_has(const RinqSlot *slot, const RinqFields *fields)
{
	static const char *const names[] = {WAITING, DEAD_LETTER};
	bool		found = false;
	int			i;

	for (i = 0; !found && i < (int) lengthof(names); i++)
	{
		RinqOwnTable table;

		rinq_own_table_open(&table, rinq_internal_schema(), names[i]);
		found = run_with_key(&table, "SELECT FROM %s" THIS_KEY " AND $3 IS NOT NULL", slot, fields) > 0;
		rinq_own_table_close(&table);
	}
	return found;
}
