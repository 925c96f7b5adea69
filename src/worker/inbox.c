/*-------------------------------------------------------------------------
 *
 * inbox.c
 *	  What is written down about requests: how often one was attempted that
 *	  the broker delivers again, which ones were given up, and which ones were
 *	  handled and must not be handled twice.
 *
 * Attempts are committed before the attempt, or they would be forgotten with
 * what they count; that a request was handled belongs into the handler's own
 * transaction.
 *
 * Commands that are kept for another attempt, and requests that are set aside,
 * are the business of inbox_failed.c; what is deleted again, and when, is purge.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "protocol/payload.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/inbox.h"
#include "worker/inbox_failed.h"
#include "worker/inbox_rows.h"
#include "worker/purge.h"
#include "worker/response.h"

typedef struct Attempt
{
	const RinqSlot *slot;
	const RinqFields *fields;
	bool		may_go_on;
	bool		is_kept;		/* a command that waits, or was set aside */
	int			attempts;		/* this attempt included, if it may go on */
	TimestampTz first;			/* when the second one began */
} Attempt;

/* Read the first row that a statement has returned: attempts, and when they began. */
static void
read_attempts(Attempt *attempt)
{
	bool		isnull;

	Assert(SPI_processed > 0);
	attempt->attempts = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	attempt->first = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
}

/*
 * Count an attempt at a request that was delivered before, if there may be
 * another one: the first attempt was not counted, and so this is the second at
 * least.
 */
static void
record_attempt(Attempt *attempt)
{
	const RinqFields *fields = attempt->fields;
	RinqOwnTable table;
	Oid			types[3] = {TEXTOID, BYTEAOID, INT4OID};
	Datum		values[3];
	bool		counted;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_attempt");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = rinq_request_digest(attempt->slot, fields);
	values[2] = Int32GetDatum(rinq_max_attempts);
	counted = rinq_own_table_execute(psprintf("INSERT INTO %s AS a (id, digest, attempts, first, last)"
											  " VALUES ($1, $2, CASE WHEN $3 OPERATOR(pg_catalog.<) 2 THEN 1 ELSE 2 END,"
											  " pg_catalog.now(), pg_catalog.now())"
											  " ON CONFLICT (id, digest) DO UPDATE SET"
											  " attempts = a.attempts OPERATOR(pg_catalog.+) 1, last = excluded.last"
											  " WHERE a.attempts OPERATOR(pg_catalog.<) $3"
											  " RETURNING attempts, first", table.name),
									 3, types, values, NULL) > 0;
	if (!counted &&
		rinq_own_table_execute(psprintf("SELECT attempts, first FROM %s WHERE id OPERATOR(pg_catalog.=) $1"
										" AND digest OPERATOR(pg_catalog.=) $2", table.name),
							   2, types, values, NULL) == 0)
		elog(ERROR, "the attempts at a request are not counted any more");
	read_attempts(attempt);
	rinq_own_table_close(&table);
	rinq_purge_written();
	attempt->may_go_on = counted && rinq_max_attempts > 1;
}

/*
 * Return the response in the row that a statement has returned, in the memory
 * of a context.
 */
static RinqBytes
found_response(const RinqSlot *slot, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	bool		dropped = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
													 2, &isnull));
	MemoryContext old;
	bytea	   *found;

	if (dropped && slot->wants_response)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the request was handled before, and its response is not kept any more")));
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return rinq_bytes("", 0);
	old = MemoryContextSwitchTo(context);
	found = DatumGetByteaPCopy(value);
	MemoryContextSwitchTo(old);
	return rinq_bytes(VARDATA(found), VARSIZE(found) - VARHDRSZ);
}

/*
 * Find out whether this request was handled before: then *payload is what it
 * was answered; if not, it is noted as handled, if the transaction commits.  A
 * transaction that is handling the same request is waited for.
 */
bool
rinq_inbox_was_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes *payload)
{
	RinqOwnTable table;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[3] = {TEXTOID, BYTEAOID, TEXTOID};
	Datum		values[3];
	bool		handled;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = rinq_request_digest(slot, fields);
	values[2] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_NAMESPACE));
	for (;;)
	{
		handled = rinq_own_table_execute(psprintf("INSERT INTO %s (id, digest, namespace, handled)"
												  " VALUES ($1, $2, $3, pg_catalog.now())"
												  " ON CONFLICT (id, digest) DO NOTHING", table.name),
										 3, types, values, NULL) == 0;
		if (!handled)
			break;
		if (rinq_own_table_execute(psprintf("SELECT payload, is_payload_dropped FROM %s"
											" WHERE id OPERATOR(pg_catalog.=) $1"
											" AND digest OPERATOR(pg_catalog.=) $2", table.name),
								   2, types, values, NULL) == 0)
			continue;			/* deleted in this moment, by a purge */
		*payload = found_response(slot, context);
		break;
	}
	rinq_own_table_close(&table);
	return handled;
}

/*
 * Note the response to a request, if it may ever be asked for again.
 */
void
rinq_inbox_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes payload)
{
	RinqOwnTable table;
	Oid			types[3] = {TEXTOID, BYTEAOID, BYTEAOID};
	Datum		values[3];

	if (payload.len == 0 || !slot->wants_response)
		return;					/* nil, as the row says already */
	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = rinq_request_digest(slot, fields);
	values[2] = PointerGetDatum(rinq_bytes_to_bytea(payload));
	(void) rinq_own_table_execute(psprintf("UPDATE %s SET payload = $3"
										   " WHERE id OPERATOR(pg_catalog.=) $1"
										   " AND digest OPERATOR(pg_catalog.=) $2", table.name),
								  3, types, values, NULL);
	rinq_own_table_close(&table);
}

static void
count_attempt(void *arg)
{
	Attempt    *attempt = arg;

	attempt->is_kept = !attempt->slot->wants_response &&
		rinq_inbox_has(attempt->slot, attempt->fields);
	if (!attempt->is_kept)
		record_attempt(attempt);
}

/* Note that there is no more to do for what is kept already, but to look when it is due. */
static void
result_is_kept(RinqSlot *slot)
{
	slot->outcome = RINQ_OUTCOME_SUCCESS;
	slot->due = rinq_clock_ms();
}

static void
find_whether_kept(void *arg)
{
	Attempt    *attempt = arg;

	attempt->is_kept = rinq_inbox_has(attempt->slot, attempt->fields);
}

/*
 * Set a notification aside whose executors have ended; but for one that was kept
 * already, of which only the result was lost.
 */
static void
set_notification_aside(RinqDatabase *db, RinqSlot *slot, RinqFields *fields, MemoryContext context)
{
	Attempt		attempt;

	memset(&attempt, 0, sizeof(attempt));
	attempt.slot = slot;
	attempt.fields = fields;
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (!rinq_keep_books(find_whether_kept, &attempt, false, RINQ_BOOKS_LOCK_TIMEOUT, context))
		return;
	if (attempt.is_kept)
		result_is_kept(slot);
	else
		rinq_inbox_set_aside(db, slot, fields, context);
}

/*
 * Count an attempt at a request that the broker has delivered before: it may
 * have ended its executor, or the whole server, each time.  After some attempts
 * it is answered with an error, and set aside; then the result is true, as it
 * is for a command that was kept already, of which only the acknowledgement was
 * lost.  Attempts at a notification are counted by the peer.
 */
bool
rinq_inbox_give_up(RinqDatabase *db, RinqSlot *slot, RinqFields *fields, MemoryContext context)
{
	Attempt		attempt;

	if (slot->give_up)
	{
		set_notification_aside(db, slot, fields, context);
		return true;
	}

	/* a standby counts nothing; the peer waits longer between its attempts */
	if (!slot->redelivered || slot->work != RINQ_WORK_REQUEST || rinq_max_attempts == 0 || RecoveryInProgress())
		return false;
	memset(&attempt, 0, sizeof(attempt));
	attempt.slot = slot;
	attempt.fields = fields;
	attempt.may_go_on = true;	/* also when it cannot be counted */
	(void) rinq_keep_books(count_attempt, &attempt, true, RINQ_BOOKS_LOCK_TIMEOUT, context);
	if (attempt.is_kept)
	{
		result_is_kept(slot);
		return true;
	}
	if (attempt.attempts > 0)
	{
		rinq_put_uint32(fields, RINQ_REQUEST_ATTEMPT, (uint32) attempt.attempts);
		rinq_put_int64(fields, RINQ_REQUEST_FIRST_RECEIVED, attempt.first);
	}
	if (attempt.may_go_on)
		return false;
	rinq_inbox_set_aside(db, slot, fields, context);
	return true;
}
