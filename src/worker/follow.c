/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  Keeping up with the primary, for the launcher of a standby.
 *
 * Nothing on a standby tells this process what is committed.  So it looks now
 * and then whether anything was replayed, and if so has everything read again;
 * and several times a second whether the standby was promoted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "ipc/slots.h"
#include "ipc/worker.h"
#include "worker/follow.h"

#define PROMOTION_CHECK 250		/* ms between looks whether a standby was
								 * promoted */
#define FOLLOW_INTERVAL 5000	/* ms between looks at what was replayed */
#define FIRST_ABSENT FOLLOW_INTERVAL	/* ms between looks for the extension
										 * where it was not; doubles, up to */
#define LAST_ABSENT 60000

static int64 next_follow;
static XLogRecPtr followed_to;

/* the same of databases that were without the extension */
static int64 next_absent;
static int	absent_pause;
static XLogRecPtr absent_looked_to;

/*
 * Begin to follow, if this server is a standby.
 */
void
rinq_follow_begin(void)
{
	rinq_shared->following = RecoveryInProgress();
	next_follow = rinq_clock_ms() + FOLLOW_INTERVAL;
}

/*
 * Tell whether this server is a standby, as far as the launcher has noticed.
 */
bool
rinq_is_following(void)
{
	return rinq_shared->following;
}

/*
 * Look for databases again, and have what is served read again, also what is being
 * read for the first time; with "recheck", also look for the extension where it was
 * not.
 */
void
rinq_look_again(bool recheck)
{
	int			i;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	rinq_shared->rescan = true;
	if (recheck)
		rinq_shared->recheck = true;
	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];

		if (OidIsValid(db->oid) && db->presence != RINQ_ABSENT)
			db->read_wanted++;
	}
	LWLockRelease(rinq_shared->lock);
}

/*
 * Have all read again that is served, when the standby has been promoted: from
 * now on all listeners count, and the outbox is this server's.
 */
static void
note_promotion(void)
{
	int			i;

	ereport(LOG, (errmsg("rinq peers go on as those of a primary server")));
	rinq_look_again(true);

	/* only now, so that no session takes what was read before for the newest */
	rinq_shared->following = false;
	for (i = 0; i < rinq_shared->num_databases; i++)
		rinq_wake_peer(&rinq_shared->databases[i]);
}

/*
 * Tell whether it is time to look for the extension where it was not.  What was
 * replayed since the last time may be long ago, and all that there is.
 */
static bool
is_absent_due(XLogRecPtr replayed)
{
	if (next_absent > rinq_clock_ms() || replayed == absent_looked_to)
		return false;
	absent_looked_to = replayed;
	absent_pause = rinq_backoff_next(absent_pause, FIRST_ABSENT, LAST_ABSENT);
	next_absent = rinq_clock_ms() + absent_pause;
	return true;
}

/*
 * Find out what a standby has replayed: databases, the extension, listeners.
 */
static void
look_at_replayed(void)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	bool		absent = is_absent_due(replayed);

	next_follow = rinq_clock_ms() + FOLLOW_INTERVAL;
	if (replayed == followed_to && !absent)
		return;
	followed_to = replayed;
	rinq_look_again(absent);
}

/*
 * Keep up with the primary while this server is a standby.  Returns how long the
 * launcher may sleep at most, -1 for as long as it likes.
 */
long
rinq_follow_primary(void)
{
	if (!rinq_shared->following)
		return -1L;
	if (!RecoveryInProgress())
	{
		note_promotion();
		return -1L;
	}
	if (next_follow <= rinq_clock_ms())
		look_at_replayed();
	return PROMOTION_CHECK;
}
