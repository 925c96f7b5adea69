/*-------------------------------------------------------------------------
 *
 * purge.c
 *	  Deleting what was written down about requests, by age and by size.
 *
 * Executors do it between requests, one at a time in each database, in pieces
 * that the next request does not have to wait for long.  While a piece was not
 * the last one, the next follows after the next request, or at once when there
 * is none, so that deleting is faster than any writing.  When there are no
 * requests, and what is kept becomes too old, the peer has the outbox worker do
 * it: each purge says when that will be.
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
#include "ipc/outbox_due.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/purge.h"

#define INTERVAL 60000			/* ms between purges, unless what is kept is
								 * younger */
#define PIECE 2000				/* rows dealt with at a time */
#define MORE_DELAY 100			/* ms between pieces, without executors */
#define RETRY_DELAY 10000		/* ms after a purge that has failed */
#define TELL_INTERVAL 600000	/* ms between log entries about limits */
#define COUNT_INTERVAL 600000	/* ms between counts, while a limit is reached */
#define LOCK_TIMEOUT "100ms"	/* no process waits for this, and it must not
								 * wait for any */

typedef struct Purge
{
	RinqDatabase *db;
	bool		ordered;		/* by the peer */
	bool		more;			/* there is more to do */
	bool		done;			/* no error was raised, and no lock missing */
	TimestampTz next;			/* when what is left is too old; DT_NOEND:
								 * there is none */
} Purge;

/* tables that rows are deleted from */
static const char *const purged_tables[] = {
	"inbox_handled", "inbox_attempt", "inbox_dead_letter", "stored_notification"
};

static bool written;			/* this process has recorded something since
								 * the last purge */

/*
 * Note that this process records something, which will be too old some time.
 */
void
rinq_purge_written(void)
{
	written = true;
}

/*
 * Count a request that was handled, and what is kept of its response.
 */
void
rinq_purge_count(RinqDatabase *db, Size response)
{
	pg_atomic_fetch_add_u64(&db->handled_rows, 1);
	pg_atomic_fetch_add_u64(&db->handled_bytes, response);
	rinq_purge_written();
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
	int			shortest = Min(rinq_dedup_retention, rinq_notification_retention);

	if (rinq_dead_letter_retention > 0)
		shortest = Min(shortest, rinq_dead_letter_retention);
	return Min(INTERVAL, INT64CONST(1000) * shortest);
}

/*
 * Have what was recorded looked at by the outbox worker soon, unless an executor
 * does before.  It is committed, so that a purge that begins from now on sees it.
 */
static void
expect_purge(RinqDatabase *db)
{
	if (written)
		rinq_purge_due_lower(db, rinq_clock_ms() + 2 * purge_interval());
	written = false;
}

/*
 * Tell whether there is something to do, or may be, since the peer has ordered it.
 * The process that is told so first does it.
 */
static bool
is_purge_due(RinqDatabase *db, bool ordered)
{
	int64		now = rinq_clock_ms();
	int64		interval = purge_interval();
	uint32		nobody = 0;

	if (now < db->purge_not_before || RecoveryInProgress())
		return false;
	if (!ordered && !db->purge_more && now - (int64) pg_atomic_read_u64(&db->last_purge) < interval &&
		(!db->handled_counted || !limit_reached(db)))
		return false;
	if (!pg_atomic_compare_exchange_u32(&db->purger, &nobody, (uint32) MyProcPid))
		return false;
	if (!ordered)
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

/* Note when the oldest row of a table is too old; one of the future counts as new. */
static void
note_oldest(Purge *purge, Oid schema, const char *name, const char *column, int64 kept)
{
	RinqOwnTable table;
	bool		isnull;
	Datum		oldest;

	rinq_own_table_open(&table, schema, name);
	(void) rinq_own_table_execute(psprintf("SELECT pg_catalog.min(%s) FROM %s", column, table.name), 0, NULL, NULL, NULL);
	Assert(SPI_processed == 1);
	oldest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		purge->next = Min(purge->next,
						  TimestampTzPlusMilliseconds(Min(DatumGetTimestampTz(oldest), GetCurrentTimestamp()), kept));
	rinq_own_table_close(&table);
}

/*
 * Delete a piece of the rows of a table that are older than a number of seconds.
 * Returns how many those were, and the bytes in their payloads.
 */
static int64
delete_expired(Purge *purge, Oid schema, const char *name, const char *column, const char *size,
			   int retention, int64 *bytes)
{
	int64		kept = INT64CONST(1000) * retention;
	int64		rows = delete_oldest(schema, name, column, size,
									 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -kept), PIECE, bytes);

	purge->more |= rows >= PIECE;
	note_oldest(purge, schema, name, column, kept);
	return rows;
}

static void
delete_old(Purge *purge, Oid schema)
{
	int64		rows;
	int64		bytes;

	rows = delete_expired(purge, schema, "inbox_handled", "handled", "pg_catalog.octet_length(payload)",
						  rinq_dedup_retention, &bytes);
	subtract_from_counter(&purge->db->handled_rows, rows);
	subtract_from_counter(&purge->db->handled_bytes, bytes);
	(void) delete_expired(purge, schema, "inbox_attempt", "last", "0", rinq_dedup_retention, &bytes);
	(void) delete_expired(purge, schema, "stored_notification", "stored", "0", rinq_notification_retention, &bytes);
	if (rinq_dead_letter_retention > 0)
		(void) delete_expired(purge, schema, "inbox_dead_letter", "recorded", "0", rinq_dead_letter_retention, &bytes);
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

/*
 * Lock all tables, and what says what they are to look like; false when that would
 * have to wait, which the outbox worker does for no other process.
 */
static bool
lock_purged_tables(Oid schema)
{
	Oid			manifest = get_relname_relid("manifest", schema);
	int			i;

	if (!rinq_try_lock_extension() || !OidIsValid(manifest) ||
		!ConditionalLockRelationOid(manifest, AccessShareLock))
		return false;
	for (i = 0; i < (int) lengthof(purged_tables); i++)
	{
		Oid			relid = get_relname_relid(purged_tables[i], schema);

		if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
	}
	return true;
}

static void
delete_piece(void *arg)
{
	Purge	   *purge = arg;
	Oid			schema = rinq_internal_schema();

	if (!OidIsValid(schema) || !lock_purged_tables(schema))
		return;
	if (must_count(purge->db, file_of(schema, "inbox_handled")))
		count_all(purge->db, schema);
	delete_old(purge, schema);
	delete_excess_rows(purge, schema);
	drop_excess_responses(purge, schema);
	purge->done = true;
}

/* Set when the outbox worker has to purge, after a purge. */
static void
set_purge_due(const Purge *purge)
{
	int64		now = rinq_clock_ms();
	int64		left = (purge->next - GetCurrentTimestamp()) / 1000;

	if (!purge->done)
		rinq_purge_due_lower(purge->db, now + RETRY_DELAY);
	else if (purge->more)
		rinq_purge_due_lower(purge->db, now + (purge->ordered ? MORE_DELAY : 2 * purge_interval()));
	else if (purge->next != DT_NOEND)
		rinq_purge_due_lower(purge->db, now + Max(left, purge_interval()) + purge_interval());
}

/* Let others purge, if this process does. */
static bool
leave_purge(RinqDatabase *db)
{
	uint32		me = (uint32) MyProcPid;

	return pg_atomic_compare_exchange_u32(&db->purger, &me, 0);
}

/* Delete a piece of what is too old or too much, as the process that purges. */
static void
purge_piece(RinqDatabase *db, bool ordered, MemoryContext context)
{
	Purge		purge = {db, ordered, false, false, DT_NOEND};

	/* what is recorded from here on may not be seen */
	pg_atomic_write_u64(&db->purge_due, PG_INT64_MAX);
	(void) rinq_keep_books(delete_piece, &purge, false, LOCK_TIMEOUT, context);
	db->purge_more = purge.done && purge.more;
	db->purge_not_before = purge.done ? 0 : rinq_clock_ms() + RETRY_DELAY;
	set_purge_due(&purge);
	(void) leave_purge(db);
}

/*
 * Delete a piece of what is too old or too much, if it is time; true when
 * there is more to delete.
 */
bool
rinq_purge(RinqDatabase *db, MemoryContext context)
{
	expect_purge(db);
	if (!is_purge_due(db, false))
		return false;
	purge_piece(db, false, context);
	return db->purge_more;
}

/*
 * Do so in the outbox worker, since the peer has ordered it.
 */
void
rinq_purge_ordered(RinqDatabase *db, MemoryContext context)
{
	if (is_purge_due(db, true))
		purge_piece(db, true, context);
}

/*
 * Leave it to others, since this process ends: when it was in the middle of a
 * purge, it is not known when the next is due.
 */
void
rinq_purge_leave(RinqDatabase *db)
{
	written |= leave_purge(db);
	expect_purge(db);
}
