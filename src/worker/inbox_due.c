/*-------------------------------------------------------------------------
 *
 * inbox_due.c
 *	  Taking a command or notification that is due for its next attempt.
 *
 * When one is due, the peer has an executor take the oldest command of a
 * namespace, or notification of a subscription.  The attempt is counted in a
 * transaction of its own, before it begins; the row is then due a little later,
 * so that no other executor takes it meanwhile, and another one does if this
 * process ends.  The handler's transaction deletes the row first, if it is still
 * the row of this attempt: the row is gone if and only if it was handled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/inbox_due.h"
#include "worker/inbox_failed.h"
#include "worker/inbox_rows.h"

#define BLOCKED_DELAY 5000		/* ms until another look at what is locked */

/* what is asked about, and taken from, those that wait */
typedef struct Taking
{
	RinqSlot   *slot;
	RinqFields *fields;
	MemoryContext context;
	bool		found;
	bool		unfinished;		/* the attempt before it has left no word */
	bool		more;			/* there is another one that is due */
	const char *reason;			/* why it was set aside; NULL: it was not */
	TimestampTz next;			/* when the next one is due; DT_NOEND: there
								 * is none */
} Taking;

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
	if (rinq_inbox_types[column] == TEXTOID)
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
	return rinq_inbox_types[column] == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

/* Tell whether the row was as the attempt before has left it when it began: it was to come back by itself. */
static bool
is_taken_unfinished(void)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, RINQ_INBOX_TRIES + 2, &isnull);

	return !isnull && DatumGetBool(value);
}

static void
put_column(Taking *taking, int field, int column)
{
	rinq_put_bytes(taking->fields, field, copy_column(taking, column));
}

/* Tell whether it is a notification, and not a command. */
static bool
is_notification(const Taking *taking)
{
	return taking->fields->kind == RINQ_KIND_NOTIFICATION;
}

/* Make the row that a statement has returned the request or notification that is to be handled. */
static void
read_taken(Taking *taking)
{
	const RinqCommonFields *common = rinq_common_fields_of(taking->fields);
	TimestampTz deadline = taken_number(RINQ_INBOX_DEADLINE);

	put_column(taking, common->id, RINQ_INBOX_ID);
	put_column(taking, common->digest, RINQ_INBOX_DIGEST);
	put_column(taking, common->source, RINQ_INBOX_SOURCE);
	put_column(taking, common->namespace, RINQ_INBOX_NAMESPACE);
	put_column(taking, common->subject, RINQ_INBOX_COMMAND);
	put_column(taking, common->payload, RINQ_INBOX_PAYLOAD);
	put_column(taking, common->trace, RINQ_INBOX_TRACE_ID);
	put_column(taking, common->span, RINQ_INBOX_SPAN_CONTEXT);
	put_column(taking, common->traceparent, RINQ_INBOX_TRACEPARENT);
	put_column(taking, common->tracestate, RINQ_INBOX_TRACESTATE);
	if (is_notification(taking))
	{
		put_column(taking, RINQ_NOTIFICATION_TARGET, RINQ_INBOX_TARGET);
		put_column(taking, RINQ_NOTIFICATION_CONSTRAINT, RINQ_INBOX_FILTER);
	}
	rinq_put_uint32(taking->fields, common->attempt, (uint32) taken_number(RINQ_INBOX_ATTEMPTS));
	rinq_put_int64(taking->fields, common->first_received, taken_number(RINQ_INBOX_FIRST_RECEIVED));
	taking->slot->deadline = deadline == 0 ? 0 : rinq_clock_of_wall(rinq_ms_of_timestamp(deadline));
	rinq_inbox_tries = (int) taken_number(RINQ_INBOX_TRIES);
	taking->unfinished = is_taken_unfinished();
}

/* rows of a namespace's commands, or of a subscription's notifications */
#define THESE_ROWS " WHERE waits_for OPERATOR(pg_catalog.=) $1 AND database OPERATOR(pg_catalog.=) $2"

/* Return what these rows are looked for by; the install script says how it is made. */
static Datum
looked_for(const Taking *taking)
{
	RinqBytes	name;

	if (!is_notification(taking))
		return rinq_text_datum(rinq_get_bytes(taking->fields, RINQ_REQUEST_NAMESPACE));
	name = rinq_get_bytes(taking->fields, RINQ_NOTIFICATION_SUBSCRIPTION);
	return CStringGetTextDatum(psprintf(" %.*s", (int) name.len, name.data));
}

/* how long after its beginning an attempt that leaves no word is due again */
#define GRACE_OF_ATTEMPT "'" CppAsString2(RINQ_ATTEMPT_GRACE) " ms'::pg_catalog.interval"

/* Take the one that has been due for longest, if there is one. */
static void
take_oldest(Taking *taking, const RinqOwnTable *table, Datum *values)
{
	Oid			types[2] = {TEXTOID, OIDOID};

	taking->found =
		rinq_own_table_execute(psprintf("WITH n AS MATERIALIZED (SELECT id, digest, due OPERATOR(pg_catalog.=)"
										" (last_attempt OPERATOR(pg_catalog.+) " GRACE_OF_ATTEMPT ") AS unfinished"
										" FROM %s" THESE_ROWS
										" AND due OPERATOR(pg_catalog.<=) pg_catalog.now()"
										" ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED),"
										" u AS (UPDATE %s AS w SET attempts = w.attempts OPERATOR(pg_catalog.+) 1,"
										" tries = w.tries OPERATOR(pg_catalog.+) 1, last_attempt = pg_catalog.now(),"
										" due = pg_catalog.now() OPERATOR(pg_catalog.+) " GRACE_OF_ATTEMPT
										" FROM n WHERE w.id OPERATOR(pg_catalog.=) n.id"
										" AND w.digest OPERATOR(pg_catalog.=) n.digest"
										" RETURNING w.*, n.unfinished)"
										" SELECT " RINQ_INBOX_COMMON_COLUMNS ", tries, unfinished FROM u",
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
		values[2] = rinq_text_datum(rinq_get_bytes(taking->fields, rinq_common_fields_of(taking->fields)->id));
		values[3] = rinq_inbox_digest(taking->slot, taking->fields);
		nulls[2] = nulls[3] = ' ';
	}
	taking->next = DT_NOEND;
	if (rinq_own_table_execute(psprintf("SELECT due FROM %s" THESE_ROWS
										" AND ($3 IS NULL OR id OPERATOR(pg_catalog.<>) $3"
										" OR digest OPERATOR(pg_catalog.<>) $4) ORDER BY due LIMIT 1", table->name),
							   4, types, values, nulls) > 0)
		taking->next = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	taking->more = taking->next <= GetCurrentTransactionStartTimestamp();
}

/*
 * Say why a request or notification that was taken is not tried again; NULL when it
 * is.  An attempt that was decided upon when the one before had failed is made, also
 * where the policy allows fewer since then.
 */
static const char *
reason_against(const Taking *taking)
{
	const RinqSlot *slot = taking->slot;

	if (taking->unfinished && rinq_inbox_tries > rinq_inbox_attempts_allowed(slot, true))
		return is_notification(taking) ?
			"the notification was given up, since its handler has ended its process, or could not be ended in order" :
			"the request was given up, since its handler has ended its process, or could not be ended in order";
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

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_INBOX_WAITING);
	values[0] = looked_for(taking);
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	take_oldest(taking, &table, values);
	find_next_due(taking, &table, values);
	rinq_own_table_close(&table);
	taking->reason = taking->found ? reason_against(taking) : NULL;
	if (taking->reason != NULL)
	{
		RinqInboxFailure failure = {taking->slot, taking->fields};

		failure.began = GetCurrentTransactionStartTimestamp();
		failure.cause.message = taking->reason;
		failure.delay = -1;
		rinq_inbox_write(&failure);
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
 * Take the command of a namespace, or the notification of a subscription, that has
 * been due for longest, and count the attempt.  False when there is none that may
 * be handled now; then the slot has its result.
 */
bool
rinq_inbox_take(RinqDatabase *db, uint32 index, RinqFields *fields, MemoryContext context)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];
	Taking		taking = {slot, fields, context};

	Assert(slot->from_inbox && !slot->wants_response);
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (!rinq_keep_books(take_due, &taking, true, RINQ_BOOKS_LOCK_TIMEOUT, context))
		return false;
	note_next_due(db, index, &taking);
	if (taking.found && taking.reason == NULL)
		return true;
	if (taking.reason != NULL)
	{
		RinqInboxFailure failure = {slot, fields};

		failure.cause.message = taking.reason;
		failure.delay = -1;
		rinq_inbox_tell(db, &failure, true);
	}
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	return false;
}
