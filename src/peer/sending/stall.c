/*-------------------------------------------------------------------------
 *
 * stall.c
 *	  Whether messages that are to be sent move; and saying so when they do not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "peer/process.h"
#include "peer/sending/stall.h"

#define STALL 5000				/* ms without a message that moves, and there
								 * are some */

/*
 * Since when messages wait of which none has moved; 0 when none waits.  There may
 * be no turn between the last message and the next one, hours later.
 */
static int64 still_since;
static bool told_of_stall;

/*
 * Note that a message was sent, confirmed, or removed.
 */
void
rinq_outbox_moved(void)
{
	if (still_since != 0)
		still_since = rinq_peer.now;
}

/*
 * Messages wait for this reason, or do not when it is NULL: when none has moved
 * for a while, says so.  Returns when to look again, or 0.
 */
int64
rinq_outbox_look_for_stall(const char *reason)
{
	bool		stalled;
	int64		next;

	if (reason == NULL)
		still_since = 0;
	else if (still_since == 0)
		still_since = rinq_peer.now;
	stalled = still_since != 0 && rinq_peer.now - still_since >= STALL;
	next = reason == NULL || stalled ? 0 : still_since + STALL;
	if (stalled == told_of_stall)
		return next;
	told_of_stall = stalled;
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.outbox.waits_for, stalled ? reason : "",
			sizeof(rinq_peer.db->status.outbox.waits_for));
	SpinLockRelease(&rinq_peer.db->mutex);
	if (stalled)
		ereport(LOG,
				(errmsg("rinq peer %s has messages that have not moved for %d s: %s",
						rinq_peer.id_text, STALL / 1000, reason)));
	return next;
}
