/*-------------------------------------------------------------------------
 *
 * purge.c
 *	  Deleting what was written down about requests, by age and by size.
 *
 * Executors do it between requests, one at a time in each database, in pieces
 * that the next request does not have to wait for long.  While a piece was not
 * the last one, the next follows after the next request, or at once when there
 * is none, so that deleting is faster than any writing.
 *
 * How many requests are remembered, and how large their responses are together,
 * is counted roughly in shared memory: by who handles requests, and who deletes.
 * After the server's start it is found out from the table, and again when that
 * was truncated, or some time has passed since, before anything is deleted that
 * is not old.  Beyond the limit
 * for their size, the oldest responses go, and it is still remembered that the
 * requests were handled; beyond the limit for their number, the oldest ones are
 * forgotten.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/purge.h"

#define INTERVAL 60000			/* ms between purges, unless what is kept is
								 * younger */
#define PIECE 2000				/* rows dealt with at a time */
#define RETRY_DELAY 10000		/* ms after a purge that has failed */
#define TELL_INTERVAL 600000	/* ms between log entries about limits */
#define COUNT_INTERVAL 600000	/* ms between counts, while a limit is reached */
#define LOCK_TIMEOUT "100ms"	/* no process waits for this, and it must not
								 * wait for any */

typedef struct Purge
{
	RinqDatabase *db;
	bool		more;			/* there is more to do */
	bool		done;			/* no error was raised */
} Purge;

/*
 * Count a request that was handled, and what is kept of its response.
 */
void
rinq_purge_count(RinqDatabase *db, Size response)
{
	pg_atomic_fetch_add_u64(&db->handled_rows, 1);
	pg_atomic_fetch_add_u64(&db->handled_bytes, response);
}

static void
subtract_from_counter(pg_atomic_uint64 *counter, int64 amount)
{
	uint64		value = pg_atomic_read_u64(counter);

	while (!pg_atomic_compare_exchange_u64(counter, &value,
										   value > (uint64) amount ? value - (uint64) amount : 0))
		;
}

static uint64
max_bytes(void)
{
	return (uint64) rinq_dedup_max_size * 1024 * 1024;
}

/* Return the rows beyond the limit, or bytes. */
static int64
excess_of_counter(pg_atomic_uint64 *counter, uint64 limit)
{
	uint64		value = pg_atomic_read_u64(counter);

	return value > limit ? (int64) (value - limit) : 0;
}

/* Tell whether more is remembered than may be, as far as is known. */
static bool
limit_reached(RinqDatabase *db)
{
	return excess_of_counter(&db->handled_rows, (uint64) rinq_dedup_max_requests) > 0 ||
		excess_of_counter(&db->handled_bytes, max_bytes()) > 0;
}

/* Return the ms between purges: what is kept for less than a minute is deleted soon, too. */
static int64
purge_interval(void)
{
	int			shortest = rinq_dedup_retention;

	if (rinq_dead_letter_retention > 0)
		shortest = Min(shortest, rinq_dead_letter_retention);
	return Min(INTERVAL, INT64CONST(1000) * shortest);
}

/*
 * Tell whether there is something to do.  The process that is told so first
 * does it.
 */
static bool
is_purge_due(RinqDatabase *db)
{
	int64		now = rinq_clock_ms();
	int64		interval = purge_interval();
	uint32		nobody = 0;

	if (now < db->purge_not_before || RecoveryInProgress())
		return false;
	if (!db->purge_more && now - (int64) pg_atomic_read_u64(&db->last_purge) < interval &&
		(!db->handled_counted || !limit_reached(db)))
		return false;
	if (!pg_atomic_compare_exchange_u32(&db->purger, &nobody, (uint32) MyProcPid))
		return false;
	pg_atomic_write_u64(&db->last_purge, (uint64) now);
	return true;
}

/*
 * Return the two numbers that a statement has returned, or a number and a
 * time; NULL is 0.
 */
static void
returned_numbers(int64 *first, int64 *second)
{
	bool		isnull;

	Assert(SPI_processed == 1);
	*first = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*second = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
}

/* find out how much is remembered; what is added meanwhile may count twice */
static void
count_all(RinqDatabase *db, Oid schema)
{
	RinqOwnTable table;
	int64		rows;
	int64		bytes;

	pg_atomic_write_u64(&db->handled_rows, 0);
	pg_atomic_write_u64(&db->handled_bytes, 0);
	rinq_own_table_open(&table, schema, "inbox_handled");
	(void) rinq_own_table_execute(psprintf("SELECT pg_catalog.count(*), COALESCE(pg_catalog.sum("
										   "pg_catalog.octet_length(payload)), 0)::pg_catalog.int8"
										   " FROM %s", table.name), 0, NULL, NULL, NULL);
	returned_numbers(&rows, &bytes);
	rinq_own_table_close(&table);
	pg_atomic_fetch_add_u64(&db->handled_rows, rows);
	pg_atomic_fetch_add_u64(&db->handled_bytes, bytes);
	db->handled_counted = true;
	db->handled_counted_at = rinq_clock_ms();
}

/*
 * Return the file that a table is in, which is another one when it was
 * rewritten.
 */
static Oid
file_of(Oid schema, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(get_relname_relid(name, schema)));
	Oid			file = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		file = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	return file;
}

/* Tell whether what is known may be wrong. */
static bool
must_count(RinqDatabase *db, Oid file)
{
	bool		rewritten = db->handled_file != file;

	db->handled_file = file;
	return !db->handled_counted || rewritten ||
		(limit_reached(db) && rinq_clock_ms() - db->handled_counted_at >= COUNT_INTERVAL);
}

/*
 * Delete the oldest rows of a table, at most "limit", if they are older than a
 * time.  Returns how many those were, and the bytes in their payloads.
 */
static int64
delete_oldest(Oid schema, const char *name, const char *column, const char *size,
			  TimestampTz before, int64 count, int64 *bytes)
{
	RinqOwnTable table;
	Oid			types[2] = {TIMESTAMPTZOID, INT8OID};
	Datum		values[2];
	int64		rows;

	rinq_own_table_open(&table, schema, name);
	values[0] = TimestampTzGetDatum(before);
	values[1] = Int64GetDatum(count);
	(void) rinq_own_table_execute(psprintf("WITH d AS (DELETE FROM %s WHERE ctid OPERATOR(pg_catalog.=)"
										   " ANY (ARRAY(SELECT ctid FROM %s"
										   " WHERE %s OPERATOR(pg_catalog.<) $1"
										   " ORDER BY %s LIMIT $2 FOR UPDATE SKIP LOCKED))"
										   " RETURNING %s AS size)"
										   " SELECT pg_catalog.count(*), COALESCE(pg_catalog.sum(d.size), 0)"
										   "::pg_catalog.int8 FROM d",
										   table.name, table.name, column, column, size),
								  2, types, values, NULL);
	returned_numbers(&rows, bytes);
	rinq_own_table_close(&table);
	return rows;
}

/* Delete requests that were set aside long ago, if there is a limit for that. */
static void
delete_old_dead_letters(Purge *purge, Oid schema)
{
	int64		bytes;

	if (rinq_dead_letter_retention == 0)
		return;
	purge->more |= delete_oldest(schema, "inbox_dead_letter", "recorded", "0",
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 -INT64CONST(1000) * rinq_dead_letter_retention),
								 PIECE, &bytes) >= PIECE;
}

static void
delete_old(Purge *purge, Oid schema)
{
	TimestampTz before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 -INT64CONST(1000) * rinq_dedup_retention);
	int64		rows;
	int64		bytes;

	rows = delete_oldest(schema, "inbox_handled", "handled", "pg_catalog.octet_length(payload)",
						 before, PIECE, &bytes);
	subtract_from_counter(&purge->db->handled_rows, rows);
	subtract_from_counter(&purge->db->handled_bytes, bytes);
	purge->more |= rows >= PIECE;
	rows = delete_oldest(schema, "inbox_attempt", "last", "0", before, PIECE, &bytes);
	purge->more |= rows >= PIECE;
	delete_old_dead_letters(purge, schema);
}

/* Log that a limit takes something away that was meant to stay for longer. */
static void
log_purge(RinqDatabase *db, const char *what, const char *setting)
{
	int64		now = rinq_clock_ms();
	uint64		last = pg_atomic_read_u64(&db->purge_told);

	if ((last != 0 && now - (int64) last < TELL_INTERVAL) ||
		!pg_atomic_compare_exchange_u64(&db->purge_told, &last, (uint64) now))
		return;
	ereport(LOG,
			(errmsg("rinq forgets %s before \"rinq.dedup_retention\" has passed", what),
			 errhint("Increase \"%s\", or decrease \"rinq.dedup_retention\".", setting)));
}

static void
delete_excess_rows(Purge *purge, Oid schema)
{
	int64		wanted = excess_of_counter(&purge->db->handled_rows, (uint64) rinq_dedup_max_requests);
	int64		rows;
	int64		bytes;

	if (wanted == 0)
		return;
	log_purge(purge->db, "requests that were handled", "rinq.dedup_max_requests");
	rows = delete_oldest(schema, "inbox_handled", "handled", "pg_catalog.octet_length(payload)",
						 DT_NOEND, Min(wanted, PIECE), &bytes);
	subtract_from_counter(&purge->db->handled_rows, rows);
	subtract_from_counter(&purge->db->handled_bytes, bytes);

	/* another session has deleted from the table */
	if (rows < Min(wanted, PIECE))
		purge->db->handled_counted = false;
	purge->more |= wanted > rows && rows > 0;
}

/*
 * Drop the oldest responses, until the others are within the limit.  Where this
 * has got to is remembered, since the index has no idea which rows have one.
 */
static void
drop_excess_responses(Purge *purge, Oid schema)
{
	int64		wanted = excess_of_counter(&purge->db->handled_bytes, max_bytes());
	RinqOwnTable table;
	Oid			types[3] = {TIMESTAMPTZOID, INT8OID, INT8OID};
	Datum		values[3];
	int64		bytes;
	int64		last;

	if (wanted == 0)
		return;
	log_purge(purge->db, "responses of requests that were handled", "rinq.dedup_max_size");
	rinq_own_table_open(&table, schema, "inbox_handled");
	values[0] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&purge->db->responses_dropped_to));
	values[1] = Int64GetDatum(PIECE);
	values[2] = Int64GetDatum(wanted);
	(void) rinq_own_table_execute(psprintf("WITH o AS MATERIALIZED (SELECT r.tid, r.size, r.handled,"
										   " pg_catalog.sum(r.size) OVER (ORDER BY r.handled"
										   " ROWS UNBOUNDED PRECEDING) AS running FROM (SELECT ctid AS tid,"
										   " pg_catalog.octet_length(payload) AS size, handled FROM %s"
										   " WHERE handled OPERATOR(pg_catalog.>=) $1 AND payload IS NOT NULL"
										   " ORDER BY handled LIMIT $2 FOR UPDATE SKIP LOCKED) r),"
										   " e AS MATERIALIZED (SELECT o.tid, o.size, o.handled FROM o WHERE"
										   " (o.running OPERATOR(pg_catalog.-) o.size) OPERATOR(pg_catalog.<) $3),"
										   " u AS (UPDATE %s SET payload = NULL, is_payload_dropped = true"
										   " WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT e.tid FROM e)))"
										   " SELECT COALESCE(pg_catalog.sum(e.size), 0)::pg_catalog.int8,"
										   " pg_catalog.max(e.handled) FROM e",
										   table.name, table.name),
								  3, types, values, NULL);
	returned_numbers(&bytes, &last);
	rinq_own_table_close(&table);
	subtract_from_counter(&purge->db->handled_bytes, bytes);
	if (bytes == 0)
	{
		/*
		 * another session has deleted from the table, or the clock was set
		 * back
		 */
		purge->db->handled_counted = false;
		pg_atomic_write_u64(&purge->db->responses_dropped_to, 0);
		return;
	}
	pg_atomic_write_u64(&purge->db->responses_dropped_to, (uint64) last);
	purge->more |= wanted > bytes;
}

static void
delete_piece(void *arg)
{
	Purge	   *purge = arg;
	Oid			schema = rinq_internal_schema();

	if (must_count(purge->db, file_of(schema, "inbox_handled")))
		count_all(purge->db, schema);
	delete_old(purge, schema);
	delete_excess_rows(purge, schema);
	drop_excess_responses(purge, schema);
	purge->done = true;
}

/*
 * Delete a piece of what is too old or too much, if it is time; true when
 * there is more to delete.
 */
bool
rinq_purge(RinqDatabase *db, MemoryContext context)
{
	Purge		purge = {db, false, false};

	if (!is_purge_due(db))
		return false;
	(void) rinq_keep_books(delete_piece, &purge, false, LOCK_TIMEOUT, context);
	db->purge_more = purge.done && purge.more;
	db->purge_not_before = purge.done ? 0 : rinq_clock_ms() + RETRY_DELAY;
	rinq_purge_leave(db);
	return db->purge_more;
}

/*
 * Let others purge, if this process does, or ends while it does.
 */
void
rinq_purge_leave(RinqDatabase *db)
{
	uint32		me = (uint32) MyProcPid;

	(void) pg_atomic_compare_exchange_u32(&db->purger, &me, 0);
}
