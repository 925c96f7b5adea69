/*-------------------------------------------------------------------------
 *
 * outbox_watch.c
 *	  Whether what the peer knows of the outbox is right.
 *
 * Rows get to the peer in ways that a superuser can go round: by writing them
 * while triggers do not fire, by restoring them.  So now and then, the outbox
 * worker counts the rows and lists the oldest, and one that is not known here,
 * and was not the last time, is a reason to scan.
 *
 * An outbox worker that ends before it has given back the space of deleted rows
 * is followed by another one, although there is no other work for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/outbox_due.h"
#include "peer/process.h"
#include "peer/sending/outbox_link.h"
#include "peer/sending/outbox_watch.h"
#include "peer/sending/sent.h"

#define CHECK_ROWS 1024			/* of the oldest rows, listed */
#define SECOND_LOOK 1000		/* ms until a row that is not known is looked
								 * for again */
#define IDLE_CHECKS 10			/* intervals between checks while nothing
								 * happens */
#define TIDY_AGAIN 5000			/* ms from the end of an outbox worker to the
								 * next, which goes on giving space back */

#define RELOAD_DELAY 1000		/* ms until all processes have new settings */
#define PURGE_AGAIN 120000		/* ms until another order to purge, unless the
								 * outbox worker says when the next is due */

static int64 last_check;
static uint64 last_seen_sent;	/* a counter, to tell whether something has
								 * happened */
static uint64 last_seen_depth;
static bool under_way;			/* the outbox worker was told to check */

static int64 worker_lost_at;

static bool suspected;			/* a row was not known the last time */
static RinqMessageId suspect;	/* which */

/* Tell whether anything has happened since the last check, or is in the outbox. */
static bool
is_active(void)
{
	uint64		sent = pg_atomic_read_u64(&rinq_peer.db->counters[RINQ_MESSAGES_SENT]);
	uint64		depth = pg_atomic_read_u64(&rinq_peer.db->outbox_depth);

	return sent != last_seen_sent || depth != last_seen_depth || depth > 0 || rinq_sent_any();
}

static int64
next_check(void)
{
	int64		interval = (int64) rinq_outbox_check_interval * 1000;

	if (suspected || rinq_peer.slots->send.miscounted)
		return last_check + SECOND_LOOK;
	return last_check + (is_active() ? interval : IDLE_CHECKS * interval);
}

/*
 * Have space given back that the last outbox worker has left, whether or not there
 * is a connection.  Returns when to look again, or 0.
 */
int64
rinq_outbox_watch_space(void)
{
	int64		due = worker_lost_at + TIDY_AGAIN;

	if (!rinq_peer.slots->send.untidy || rinq_peer.stopping)
		return 0;
	if (rinq_peer.now < due)
		return due;
	return rinq_outbox_link_up() ? 0 : rinq_peer.now + SECOND_LOOK;
}

/*
 * Have the outbox worker delete what was recorded of requests long ago, when no
 * executor has: in a database that is quiet there is none.  Returns when to look
 * again, or 0.
 */
int64
rinq_outbox_watch_records(void)
{
	pg_atomic_uint64 *due = &rinq_peer.db->purge_due;
	int64		now = rinq_peer.now;

	if (pg_atomic_read_u64(due) == PG_INT64_MAX || !rinq_peer.ready || !rinq_outbox_is_ours())
		return 0;
	if (now < (int64) pg_atomic_read_u64(due))
		return (int64) pg_atomic_read_u64(due);
	if (!rinq_outbox_link_up())
		return now + SECOND_LOOK;

	/* before the order, whose outcome sets it to another time */
	pg_atomic_write_u64(due, now + PURGE_AGAIN);
	if (!rinq_outbox_tell(RINQ_CHUNK_PURGE, NULL, 0, 0))
		pg_atomic_write_u64(due, now + SECOND_LOOK);
	return (int64) pg_atomic_read_u64(due);
}

/*
 * Note that settings have changed, among them how long records are kept.
 */
void
rinq_outbox_watch_reload(void)
{
	rinq_purge_due_lower(rinq_peer.db, rinq_peer.now + RELOAD_DELAY);
}

/*
 * Have the outbox checked when that is due, nothing else is on its way, and it
 * is not scanned.
 * Returns when to look again, or 0.
 */
int64
rinq_outbox_watch(bool idle, bool scans)
{
	int64		due;

	if (last_check == 0)
		last_check = rinq_peer.now;
	if (!rinq_peer.ready || under_way || !rinq_outbox_is_ours())
		return 0;
	if (scans)
	{
		last_check = rinq_peer.now;
		return 0;
	}
	due = next_check();
	if (rinq_peer.now < due)
		return due;
	if (!idle)
		return rinq_peer.now + SECOND_LOOK;
	if (!rinq_outbox_link_up() || !rinq_outbox_tell_check(CHECK_ROWS))
		return rinq_peer.now + SECOND_LOOK;
	last_check = rinq_peer.now;
	last_seen_sent = pg_atomic_read_u64(&rinq_peer.db->counters[RINQ_MESSAGES_SENT]);
	under_way = true;
	return 0;
}

/*
 * Note that the outbox worker has ended, and may not have checked.
 */
void
rinq_outbox_watch_worker_lost(void)
{
	under_way = false;
	worker_lost_at = rinq_peer.now;
}

/*
 * Compare the oldest rows, as the outbox worker has listed them, with what is
 * known here.  One that is unknown may be on its way, and then it is known
 * when it is looked for again.
 */
void
rinq_outbox_listed(const RinqOutboxItem *items, uint32 count)
{
	bool		again = false;
	bool		found = false;
	RinqMessageId unknown;
	uint32		i;

	under_way = false;
	last_seen_depth = pg_atomic_read_u64(&rinq_peer.db->outbox_depth);
	for (i = 0; i < count; i++)
	{
		if (rinq_sent_see(&items[i]))
			continue;
		again |= suspected && rinq_message_id_equal(&items[i].id, &suspect);
		if (!found)
			unknown = items[i].id;
		found = true;
	}
	if (again)
	{
		ereport(LOG,
				(errmsg("rinq peer %s reads the outbox again, which has messages that it was not told of",
						rinq_peer.id_text)));
		(void) rinq_sendqueue_leave_direct(&rinq_peer.slots->send);
	}
	suspected = found && !again;
	if (suspected)
		suspect = unknown;
}
