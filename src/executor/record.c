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

#include "catalog/pg_type.h"
#include "clock.h"
#include "executor/record.h"
#include "executor/spi.h"
#include "guc.h"
#include "own_tables.h"
#include "payload.h"
#include "request.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define PURGE_INTERVAL 60000	/* ms, at least, between two purges, unless what is kept is younger */
#define PURGE_ROWS "10000"		/* deleted at a time */

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
int
rinq_record_attempt(const RinqBytes *fields)
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
void
rinq_record_dead(const RinqBytes *fields, int attempts, const char *error)
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
 * Is it time to delete what is old?  The one that asks first has to do it.
 */
bool
rinq_record_purge_due(RinqDatabase *db)
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

/*
 * Deletes what is older than rinq.dedup_retention.
 */
void
rinq_record_purge(void)
{
	Oid			schema = rinq_internal_schema();

	/* nobody waits for this, and so it must not wait for anybody */
	(void) set_config_option("lock_timeout", "100ms", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	purge_table(schema, "inbox_handled", "handled");
	purge_table(schema, "inbox_attempt", "last");
}
