/*-------------------------------------------------------------------------
 *
 * ipc/outbox_depth.c
 *	  How many rows the outbox has, without counting them each time.
 *
 * Transactions add theirs once they have committed, the outbox worker
 * subtracts what it removes, and now and then counts the rows that a snapshot
 * sees.  That snapshot may or may not see a transaction that is about to
 * commit when it is taken, and has not added its rows, or about one that
 * commits just then: such a transaction leaves its id here, and the worker,
 * who has the snapshot, adds the rows if that does not see them.  When too
 * many do, the rows are counted again.
 *
 * A process that changes anything here holds the lock of the queue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "ipc/outbox_depth.h"

/*
 * Tell whether a transaction was over when the snapshot was taken.
 */
bool
rinq_scan_sees(const RinqScanSnapshot *snapshot, FullTransactionId xid)
{
	uint32		i;

	if (!FullTransactionIdPrecedes(xid, snapshot->xmax))
		return false;
	Assert(snapshot->count == 0 || FullTransactionIdIsValid(snapshot->xmax));
	for (i = 0; i < snapshot->count; i++)
	{
		if (snapshot->xip[i] == XidFromFullTransactionId(xid))
			return false;
	}
	return true;
}

/*
 * Count rows that the outbox worker has added itself, in a transaction that is
 * over; it counts in no other one meanwhile.
 */
void
rinq_depth_added(RinqDatabase *db, Size rows)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	pg_atomic_fetch_add_u64(&db->outbox_depth, rows);
	LWLockRelease(queue->lock);
}

/*
 * Rows were removed.
 */
void
rinq_depth_removed(RinqDatabase *db, Size rows)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	uint64		depth;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	depth = pg_atomic_read_u64(&db->outbox_depth);
	pg_atomic_write_u64(&db->outbox_depth, depth > rows ? depth - rows : 0);
	LWLockRelease(queue->lock);
}

/*
 * Begin to count the rows, in a snapshot that is taken after this, and so sees
 * all transactions that were in doubt.  Returns how many rows there seemed to
 * be.
 */
uint64
rinq_depth_begin_count(RinqDatabase *db)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	uint64		depth;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	queue->counting++;
	queue->num_doubts = 0;
	queue->miscounted = false;
	queue->count_begins = true;
	depth = pg_atomic_read_u64(&db->outbox_depth);
	LWLockRelease(queue->lock);
	return depth;
}

/*
 * Note that the snapshot is taken: it sees none of the transactions that begin
 * to pack from now on; those that have begun before are in doubt.
 */
void
rinq_depth_snapshot_taken(RinqDatabase *db)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	Assert(queue->count_begins);
	queue->counting++;
	queue->count_begins = false;
	LWLockRelease(queue->lock);
}

/*
 * Correct the number of rows after they were counted: "before" is what there
 * seemed to be then.
 */
void
rinq_depth_counted(RinqDatabase *db, uint64 before, Size rows,
				   const RinqScanSnapshot *snapshot)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	uint64		depth;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	depth = pg_atomic_read_u64(&db->outbox_depth) + rows;
	pg_atomic_write_u64(&db->outbox_depth, depth > before ? depth - before : 0);
	LWLockRelease(queue->lock);
	rinq_depth_settle(db, snapshot);
}

/*
 * Add the rows of transactions in doubt that the last count did not see.
 */
void
rinq_depth_settle(RinqDatabase *db, const RinqScanSnapshot *snapshot)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	uint32		i;

	if (*(volatile uint32 *) &queue->num_doubts == 0)
		return;
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	for (i = 0; i < queue->num_doubts; i++)
	{
		if (!rinq_scan_sees(snapshot, queue->doubts[i].xid))
			pg_atomic_fetch_add_u64(&db->outbox_depth, queue->doubts[i].rows);
	}
	queue->num_doubts = 0;
	LWLockRelease(queue->lock);
}
