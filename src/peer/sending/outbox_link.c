/*-------------------------------------------------------------------------
 *
 * outbox_link.c
 *	  The peer's link to the outbox worker: having one, telling it what to do,
 *	  and noticing that it has ended.
 *
 * What it is told, and what becomes of that when it ends, is the business of
 * sent.c and intake.c; the worker itself is worker/outbox_worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "peer/process.h"
#include "peer/sending/outbox_link.h"
#include "utils/memutils.h"

#define COMPLAIN_INTERVAL 60000 /* ms between log entries about not getting
								 * one */
#define START_RETRY 250			/* ms between attempts to start the worker */

static BackgroundWorkerHandle *worker;
static int64 start_after;
static int64 complained_at;
static uint32 losses;			/* workers that have ended */

/*
 * Have executors make room for a worker that could not be started; it is tried
 * again.
 */
static void
worker_start_failed(void)
{
	worker = NULL;
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	rinq_peer.db->outbox.state = RINQ_WORKER_NONE;
	LWLockRelease(rinq_shared->lock);
	rinq_workers_short(RINQ_SHORT_OF_ANY);
	if (complained_at != 0 && rinq_peer.now - complained_at < COMPLAIN_INTERVAL)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("rinq cannot start a background worker to read and clear the outbox of database \"%s\"",
					NameStr(rinq_peer.db->name)),
			 errdetail("It is tried again; executors make room for it as their handlers end."),
			 errhint("Increase \"max_worker_processes\".")));
	complained_at = rinq_peer.now;
}

/*
 * Tell whether this server sends what is in the outbox: a standby leaves that to
 * the primary, until it is promoted.
 */
bool
rinq_outbox_is_ours(void)
{
	return !RecoveryInProgress();
}

/*
 * Tell whether the worker is there, or on its way; starts it if not.
 */
bool
rinq_outbox_link_up(void)
{
	RinqWorkerArgs args = rinq_peer.args;
	MemoryContext old;
	bool		blocked;

	/*
	 * if it has ended since, that is noticed in the next step, with what it
	 * was told
	 */
	if (worker != NULL)
		return true;
	Assert(rinq_outbox_is_ours());
	if (rinq_peer.stopping || rinq_peer.now < start_after)
		return false;
	start_after = rinq_peer.now + START_RETRY;
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	blocked = rinq_peer.db->oid != rinq_peer.args.dboid || rinq_peer.db->ddl_blocks > 0 ||
		rinq_peer.db->outbox.state == RINQ_WORKER_RUNNING;
	if (!blocked)
	{
		rinq_peer.db->outbox.state = RINQ_WORKER_STARTING;
		rinq_peer.db->outbox.pid = 0;
		rinq_peer.db->outbox.procno = RINQ_NO_PROC;
		rinq_peer.db->outbox_yields = false;
	}
	LWLockRelease(rinq_shared->lock);
	if (blocked)
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (rinq_start_worker("rinq outbox", "rinq_outbox_main", &args, &worker))
		rinq_workers_short(RINQ_NOT_SHORT);
	else
		worker_start_failed();
	MemoryContextSwitchTo(old);
	return worker != NULL;
}

/*
 * Tell whether the worker has ended since this was asked last.  Then what it
 * was told and has not taken is dropped: what was told to it has to be told to
 * the next one.
 */
bool
rinq_outbox_link_lost(void)
{
	pid_t		pid;

	if (worker == NULL || GetBackgroundWorkerPid(worker, &pid) != BGWH_STOPPED)
		return false;
	pfree(worker);
	worker = NULL;
	losses++;

	/* one that did not get to run could not say so itself */
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (rinq_peer.db->oid == rinq_peer.args.dboid &&
		rinq_peer.db->outbox.state == RINQ_WORKER_STARTING)
		rinq_peer.db->outbox.state = RINQ_WORKER_NONE;
	LWLockRelease(rinq_shared->lock);
	rinq_peer.slots->send.starved = false;
	rinq_sendqueue_drop_orders(&rinq_peer.slots->send);
	return true;
}

/*
 * Count the workers that have ended, and done no more of what they were told.
 */
uint32
rinq_outbox_link_losses(void)
{
	return losses;
}

/*
 * Tell the worker something about "count" things, in "size" bytes of data;
 * false when it could not be told, because there is no room.
 */
bool
rinq_outbox_tell(RinqChunkKind kind, const void *data, Size size, uint32 count)
{
	dsa_pointer pointer = rinq_chunk_alloc(kind, size);

	if (!DsaPointerIsValid(pointer))
		return false;
	if (size > 0)
		memcpy(RINQ_CHUNK_DATA(rinq_chunk(pointer)), data, size);
	rinq_chunk(pointer)->count = count;
	rinq_sendqueue_order(rinq_peer.db, pointer);
	return true;
}

/*
 * Tell it to scan, for a round.
 */
bool
rinq_outbox_tell_scan(uint32 number, uint32 round)
{
	dsa_pointer pointer = rinq_chunk_alloc(RINQ_CHUNK_SCAN, 0);

	if (!DsaPointerIsValid(pointer))
		return false;
	rinq_chunk(pointer)->scan = number;
	rinq_chunk(pointer)->round = round;
	rinq_sendqueue_order(rinq_peer.db, pointer);
	return true;
}

/*
 * Tell the worker to count, and to list up to "room" rows.
 */
bool
rinq_outbox_tell_check(uint32 rows)
{
	dsa_pointer pointer = rinq_chunk_alloc(RINQ_CHUNK_CHECK, rows * sizeof(RinqOutboxItem));

	if (!DsaPointerIsValid(pointer))
		return false;
	rinq_sendqueue_order(rinq_peer.db, pointer);
	return true;
}
