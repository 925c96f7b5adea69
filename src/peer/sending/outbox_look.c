/*-------------------------------------------------------------------------
 *
 * outbox_look.c
 *	  Having messages that wait sent when their time has come.
 *
 * All that the peer knows of them is when the next is due, on the wall clock.
 * Then the outbox worker looks which may be sent, moves them into the outbox,
 * and hands them over; until then, no process has anything to do with them.
 * They stay where they are while there is no connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "ipc/outbox_due.h"
#include "peer/process.h"
#include "peer/sending/outbox_link.h"
#include "peer/sending/outbox_look.h"
#include "utils/timestamp.h"

static bool under_way;			/* the outbox worker was told to look */

void
rinq_outbox_look_init(void)
{
	under_way = false;
	pg_atomic_write_u64(&rinq_peer.db->outbox_mended_at, 0);
	(void) rinq_due_lower(rinq_peer.db, DT_NOBEGIN);
}

/*
 * Have the outbox worker look when that is due.  Returns when to look again, or
 * 0.
 */
int64
rinq_outbox_look_when_due(void)
{
	TimestampTz due = rinq_due(rinq_peer.db);
	TimestampTz now;

	if (due == DT_NOEND || under_way || !rinq_peer.ready || !rinq_outbox_is_ours())
		return 0;
	now = GetCurrentTimestamp();
	if (due > now && !rinq_due_clock_stepped(rinq_peer.db, rinq_clock_difference()))
		return rinq_peer.now + Min((due - now) / 1000 + 1, RINQ_CLOCK_CHECK);
	if (!rinq_outbox_link_up() || !rinq_outbox_tell(RINQ_CHUNK_LOOK, NULL, 0, 0))
		return rinq_peer.now + RINQ_SENDER_RETRY;
	under_way = true;
	return 0;
}

/*
 * Note that the outbox worker has looked at all that are due.
 */
void
rinq_outbox_looked(void)
{
	under_way = false;
}

/*
 * Note that the outbox worker has ended.  While it was looking, it may have moved
 * messages that it has not handed over, which a scan finds.
 */
void
rinq_outbox_look_worker_lost(void)
{
	if (!under_way)
		return;
	under_way = false;
	(void) rinq_due_lower(rinq_peer.db, DT_NOBEGIN);
	(void) rinq_sendqueue_leave_direct(&rinq_peer.slots->send);
}
