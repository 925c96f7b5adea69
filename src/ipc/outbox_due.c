/*-------------------------------------------------------------------------
 *
 * ipc/outbox_due.c
 *	  When the outbox worker is to look at messages that wait and at durable
 *	  calls, and to purge.
 *
 * The first is one time of the wall clock, which transactions move to an earlier one
 * when they have committed.  The outbox worker takes it, before the snapshot
 * that it looks with, and puts back what it has found is next: a transaction
 * that the snapshot does not see has moved it again by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "guc.h"
#include "ipc/outbox_due.h"
#include "utils/timestamp.h"

#define KEY_SLACK 60			/* s that a key may stay for after its time,
								 * so that many are forgotten at once */

/*
 * Return when to look; DT_NOBEGIN is now, DT_NOEND never.
 */
TimestampTz
rinq_due(RinqDatabase *db)
{
	return (TimestampTz) pg_atomic_read_u64(&db->outbox_due);
}

/*
 * Begin to look: there is no such time until one is found, or a transaction
 * says so.
 */
TimestampTz
rinq_due_take(RinqDatabase *db)
{
	return (TimestampTz) pg_atomic_exchange_u64(&db->outbox_due, (uint64) DT_NOEND);
}

/*
 * Have messages looked at no later than at a time; true when that is earlier
 * than what was known.
 */
bool
rinq_due_lower(RinqDatabase *db, TimestampTz due)
{
	uint64		old = pg_atomic_read_u64(&db->outbox_due);

	while (due < (TimestampTz) old)
	{
		if (pg_atomic_compare_exchange_u64(&db->outbox_due, &old, (uint64) due))
			return true;
	}
	return false;
}

/*
 * Tell whether messages that are delayed by an interval were made to go by the
 * wall clock since the server's start.
 */
bool
rinq_due_clock_known(RinqDatabase *db)
{
	return pg_atomic_read_u64(&db->outbox_clock) != 0;
}

/*
 * Tell whether the wall clock was stepped since messages that are delayed by an
 * interval were made to go by it; "difference" is that of the clocks now.
 */
bool
rinq_due_clock_stepped(RinqDatabase *db, int64 difference)
{
	int64		known = (int64) pg_atomic_read_u64(&db->outbox_clock);

	return known != 0 && rinq_clock_is_step(difference, known);
}

/*
 * Return when a key is forgotten that is used at a time.
 */
TimestampTz
rinq_key_expiry(TimestampTz used)
{
	return TimestampTzPlusMilliseconds(used, INT64CONST(1000) * ((int64) rinq_key_retention + KEY_SLACK));
}

/*
 * Count messages that wait, or with a negative number, do not any more.
 */
void
rinq_waiting_add(RinqDatabase *db, int64 rows)
{
	uint64		old = pg_atomic_read_u64(&db->outbox_waiting);

	while (!pg_atomic_compare_exchange_u64(&db->outbox_waiting, &old,
										   (uint64) Max((int64) old + rows, 0)))
		;
}

/*
 * Have durable calls looked at no later than at a time, in ms of the wall clock.
 */
void
rinq_call_due_lower(RinqDatabase *db, int64 due)
{
	uint64		old = pg_atomic_read_u64(&db->durable_due);

	Assert(due > 0);
	while ((old == 0 || (uint64) due < old) &&
		   !pg_atomic_compare_exchange_u64(&db->durable_due, &old, (uint64) due))
		;
	rinq_wake_peer(db);
}

/*
 * Have the outbox worker purge no later than at a time, in ms, if no executor has
 * by then.
 */
void
rinq_purge_due_lower(RinqDatabase *db, int64 due)
{
	uint64		old = pg_atomic_read_u64(&db->purge_due);

	while (due < (int64) old)
	{
		if (!pg_atomic_compare_exchange_u64(&db->purge_due, &old, (uint64) due))
			continue;
		rinq_wake_peer(db);
		break;
	}
}
