/*-------------------------------------------------------------------------
 *
 * record.c
 *	  What is written down about requests: how often one was attempted that
 *	  the broker delivers again, which ones were given up, and which ones were
 *	  handled and must not be handled twice.
 *
 * All functions work in the current transaction.  Attempts are to be committed
 * before the attempt, or they would be forgotten with what they count; that a
 * request was handled belongs into the handler's own transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "executor/answer.h"
#include "executor/cleanup.h"
#include "executor/record.h"
#include "executor/spi.h"
#include "guc.h"
#include "own_tables.h"
#include "payload.h"
#include "request.h"
#include "transaction.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define PURGE_INTERVAL 60000	/* ms, at least, between two purges, unless what is kept is younger */
#define PURGE_ROWS "10000"		/* deleted at a time */
#define LOCK_TIMEOUT "5s"		/* of what is written down before an attempt */
#define PURGE_LOCK_TIMEOUT "100ms"

static Datum
bytea_datum(RinqBytes bytes)
{
	bytea	   *result = palloc(VARHDRSZ + bytes.len);

	SET_VARSIZE(result, VARHDRSZ + bytes.len);
	if (bytes.len > 0)
		memcpy(VARDATA(result), bytes.data, bytes.len);
	return PointerGetDatum(result);
}

/*
 * Counts an attempt at a request that was delivered before.  Returns its
 * number; the first one was not counted, and so this is the second at least.
 */
static int
record_attempt(const RinqBytes *fields)
{
	RinqOwnTable table;
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	bool		isnull;
	int			attempts;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_attempt");
	values[0] = rinq_text_datum(fields[RINQ_REQUEST_ID]);
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s AS a (id, attempts, first, last)"
										   " VALUES ($1, 2, pg_catalog.now(), pg_catalog.now())"
										   " ON CONFLICT (id) DO UPDATE SET"
										   " attempts = a.attempts OPERATOR(pg_catalog.+) 1,"
										   " last = excluded.last RETURNING attempts", table.name),
								  1, types, values, NULL);
	attempts = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
										   &isnull));
	rinq_own_table_close(&table);
	return attempts;
}

/*
 * Sets a request aside, for an administrator to look at.
 */
static void
record_dead(const RinqBytes *fields, int attempts, const char *error)
{
	RinqOwnTable table;
	Oid			types[9] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, TEXTOID, TEXTOID,
		INT4OID, TEXTOID
	};
	Datum		values[9];
	char		nulls[9];

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_dead_letter");
	memset(nulls, ' ', sizeof(nulls));
	values[0] = rinq_text_datum(fields[RINQ_REQUEST_ID]);
	values[1] = rinq_text_datum(fields[RINQ_REQUEST_SOURCE]);
	values[2] = rinq_text_datum(fields[RINQ_REQUEST_NAMESPACE]);
	values[3] = rinq_text_datum(fields[RINQ_REQUEST_COMMAND]);
	values[4] = bytea_datum(fields[RINQ_REQUEST_PAYLOAD]);
	if (fields[RINQ_REQUEST_PAYLOAD].len == 0)
		nulls[4] = 'n';
	values[5] = rinq_text_datum(fields[RINQ_REQUEST_TRACE]);
	values[6] = rinq_text_datum(fields[RINQ_REQUEST_HANDLER]);
	values[7] = Int32GetDatum(attempts);
	values[8] = CStringGetTextDatum(error);
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s (id, source, namespace, command,"
										   " payload, trace_id, handler, attempts, error, recorded)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
										   " pg_catalog.now()) ON CONFLICT (id) DO NOTHING",
										   table.name),
								  9, types, values, nulls);
	rinq_own_table_close(&table);
}

/*
 * Was this request handled before?  Then *payload is what it was answered; if
 * not, it is noted as handled, if the transaction commits.  A transaction that
 * is handling the same request is waited for.
 */
bool
rinq_record_was_handled(const RinqBytes *fields, RinqBytes *payload)
{
	RinqOwnTable table;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	bool		handled;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(fields[RINQ_REQUEST_ID]);
	values[1] = rinq_text_datum(fields[RINQ_REQUEST_NAMESPACE]);
	for (;;)
	{
		bytea	   *found;
		Datum		value;
		bool		isnull;

		handled = rinq_own_table_execute(psprintf("INSERT INTO %s (id, namespace, handled)"
												  " VALUES ($1, $2, pg_catalog.now())"
												  " ON CONFLICT (id) DO NOTHING", table.name),
										 2, types, values, NULL) == 0;
		if (!handled)
			break;
		if (rinq_own_table_execute(psprintf("SELECT payload FROM %s"
											" WHERE id OPERATOR(pg_catalog.=) $1", table.name),
								   1, types, values, NULL) == 0)
			continue;			/* deleted in this moment, by a purge */
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		*payload = rinq_bytes("", 0);
		if (!isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			found = DatumGetByteaPCopy(value);
			MemoryContextSwitchTo(old);
			*payload = rinq_bytes(VARDATA(found), VARSIZE(found) - VARHDRSZ);
		}
		break;
	}
	rinq_own_table_close(&table);
	return handled;
}

/*
 * Notes what a request was answered.
 */
void
rinq_record_handled(const RinqBytes *fields, RinqBytes payload)
{
	RinqOwnTable table;
	Oid			types[2] = {TEXTOID, BYTEAOID};
	Datum		values[2];

	if (payload.len == 0)
		return;					/* nil, as the row says already */
	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(fields[RINQ_REQUEST_ID]);
	values[1] = bytea_datum(payload);
	(void) rinq_own_table_execute(psprintf("UPDATE %s SET payload = $2"
										   " WHERE id OPERATOR(pg_catalog.=) $1", table.name),
								  2, types, values, NULL);
	rinq_own_table_close(&table);
}

/*
 * Do some bookkeeping in a transaction of its own; when it fails, that is
 * logged, and the request goes on without it.
 */
static void
keep_books(void (*work) (void *arg), void *arg, bool durably, const char *lock_timeout,
		   MemoryContext context)
{
	PG_TRY();
	{
		StartTransactionCommand();

		/* whatever the role has set for its own transactions */
		XactReadOnly = false;
		XactIsoLevel = XACT_READ_COMMITTED;
		(void) set_config_option("lock_timeout", lock_timeout, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
		PushActiveSnapshot(GetTransactionSnapshot());
		work(arg);
		PopActiveSnapshot();

		/* the server may end in the attempt that is counted, or the request be acknowledged */
		if (durably)
			rinq_commit_durably();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		rinq_end_failed_transaction(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

typedef struct Attempt
{
	const RinqBytes *fields;
	int			number;
	char		error[64];
} Attempt;

static void
count_attempt(void *arg)
{
	Attempt    *attempt = arg;

	attempt->number = record_attempt(attempt->fields);
}

static void
set_aside(void *arg)
{
	Attempt    *attempt = arg;

	record_dead(attempt->fields, attempt->number - 1, attempt->error);
}

/*
 * Count an attempt at a request that the broker has delivered before: it may
 * have ended its executor, or the whole server, each time.  After some attempts
 * it is answered with an error, and set aside; then the result is true.
 */
bool
rinq_record_give_up(RinqSlot *slot, const RinqBytes *fields, MemoryContext context)
{
	Attempt		attempt;

	if (!slot->redelivered || rinq_max_attempts == 0)
		return false;
	attempt.fields = fields;
	attempt.number = 0;
	keep_books(count_attempt, &attempt, true, LOCK_TIMEOUT, context);
	if (attempt.number <= rinq_max_attempts)
		return false;
	snprintf(attempt.error, sizeof(attempt.error), "the request was given up after %d attempts",
			 attempt.number - 1);
	ereport(LOG,
			(errmsg("rinq gives up a request that was delivered %d times", attempt.number),
			 errhint("Look at the view rinq_inbox_dead_letter.")));
	keep_books(set_aside, &attempt, true, LOCK_TIMEOUT, context);
	rinq_answer_plainly(slot, attempt.error);
	return true;
}

/*
 * Is it time to delete what is old?  The one that asks first has to do it.
 */
static bool
purge_due(RinqDatabase *db)
{
	uint64		now = (uint64) rinq_clock_ms();
	uint64		last = pg_atomic_read_u64(&db->last_purge);
	uint64		interval = Min(PURGE_INTERVAL, (uint64) rinq_dedup_retention * 1000);

	return now - last >= interval &&
		pg_atomic_compare_exchange_u64(&db->last_purge, &last, now);
}

static void
purge_table(Oid schema, const char *name, const char *column)
{
	RinqOwnTable table;
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1];

	rinq_own_table_open(&table, schema, name);
	values[0] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
																-INT64CONST(1000) * rinq_dedup_retention));
	(void) rinq_own_table_execute(psprintf("DELETE FROM %s WHERE id OPERATOR(pg_catalog.=)"
										   " ANY (ARRAY(SELECT id FROM %s"
										   " WHERE %s OPERATOR(pg_catalog.<) $1"
										   " ORDER BY %s LIMIT " PURGE_ROWS "))",
										   table.name, table.name, column, column),
								  1, types, values, NULL);
	rinq_own_table_close(&table);
}

static void
purge_all(void *arg)
{
	Oid			schema = rinq_internal_schema();

	purge_table(schema, "inbox_handled", "handled");
	purge_table(schema, "inbox_attempt", "last");
}

/*
 * Delete what is older than rinq.dedup_retention, if it is time.
 */
void
rinq_record_purge(RinqDatabase *db, MemoryContext context)
{
	/* nobody waits for this, and so it must not wait for anybody */
	if (purge_due(db))
		keep_books(purge_all, NULL, false, PURGE_LOCK_TIMEOUT, context);
}
