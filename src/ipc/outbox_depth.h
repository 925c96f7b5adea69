/*-------------------------------------------------------------------------
 *
 * ipc/outbox_depth.h
 *	  How many rows the outbox has, without counting them each time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_DEPTH_H
#define RINQ_OUTBOX_DEPTH_H

#include "postgres.h"

#include "ipc/sendqueue.h"

extern void rinq_depth_added(RinqDatabase *db, Size rows);
extern void rinq_depth_removed(RinqDatabase *db, Size rows);
extern uint64 rinq_depth_begin_count(RinqDatabase *db);
extern void rinq_depth_snapshot_taken(RinqDatabase *db);
extern void rinq_depth_counted(RinqDatabase *db, uint64 before, Size rows,
							   const RinqScanSnapshot *snapshot);
extern void rinq_depth_settle(RinqDatabase *db, const RinqScanSnapshot *snapshot);
extern bool rinq_scan_sees(const RinqScanSnapshot *snapshot, FullTransactionId xid);

#endif							/* RINQ_OUTBOX_DEPTH_H */
