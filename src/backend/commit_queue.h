/*-------------------------------------------------------------------------
 *
 * commit_queue.h
 *	  Messages that a transaction sends, if and when it commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_COMMIT_QUEUE_H
#define RINQ_BACKEND_COMMIT_QUEUE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ipc/sendqueue.h"

/*
 * Have a message sent when the transaction commits: after all that were
 * written before, and not at all when the transaction, or the savepoint it was
 * written after, is rolled back.  Raises an error when there is no room.
 */
extern void rinq_send_at_commit(RinqDatabase *db, const RinqOutbound *message,
								const RinqFields *fields);

/* have the outbox scanned after the commit, for rows that were written by hand */
extern void rinq_send_scan_at_commit(RinqDatabase *db);

/* count messages that wait after the commit, "rows" more or fewer, and have them looked at no later than when the next is due */
extern void rinq_wait_at_commit(RinqDatabase *db, TimestampTz due, int64 rows);

/* have a commit that others are told of on disk first */
extern void rinq_commit_durably(void);

/* durable messages that the transaction has written so far, those that wait included */
extern int64 rinq_transaction_durable(void);

#endif							/* RINQ_BACKEND_COMMIT_QUEUE_H */
