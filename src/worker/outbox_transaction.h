/*-------------------------------------------------------------------------
 *
 * outbox_transaction.h
 *	  What the parts of the outbox worker share: its state, transactions on the
 *	  tables, reports to the peer, counting what was removed, and setting
 *	  messages aside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_OUTBOX_TRANSACTION_H
#define RINQ_WORKER_OUTBOX_TRANSACTION_H

#include "postgres.h"

#include "backend/outbox.h"
#include "ipc/worker.h"

#define RINQ_OUTBOX_PIECE (256 * 1024)	/* bytes of messages, read in one
										 * transaction */

/* what a turn of work came to */
typedef enum RinqOutboxTurn
{
	RINQ_TURN_NOTHING,			/* there was nothing to do */
	RINQ_TURN_DONE,				/* something was done */
	RINQ_TURN_LATER				/* there is something to do, which cannot be
								 * done now */
} RinqOutboxTurn;

typedef struct RinqOutboxWorker
{
	RinqWorkerArgs args;
	RinqDatabase *db;
	RinqSendQueue *queue;
	MemoryContext context;		/* reset after each turn */

	/* of the transaction at hand */
	Oid			schema;
	RinqOutboxTables tables;

	RinqScanSnapshot *counted;	/* what the last count of the rows saw */

	/*
	 * whether rows were deleted since the tables were found in order, and
	 * since that was seen to at an idle moment
	 */
	bool		rotation_wanted;
	bool		tidy_wanted;
} RinqOutboxWorker;

extern RinqOutboxWorker rinq_outbox_worker;

extern bool rinq_outbox_begin(const char *activity, LOCKMODE mode);
extern void rinq_outbox_snapshot(void);
extern void rinq_outbox_end(void);
extern bool rinq_outbox_report(RinqChunkKind kind, const void *data, Size size, uint32 scan);
extern bool rinq_outbox_report_messages(RinqChunkKind kind, const RinqOutboxRead *read,
										uint32 scan);
extern void rinq_outbox_report_with(dsa_pointer *order, RinqChunkKind kind);
extern void rinq_outbox_want_tidying(void);
extern void rinq_outbox_settle(void);
extern void rinq_outbox_removed(Size rows);
extern void rinq_outbox_log_aside(int attempts, const char *reason);
extern bool rinq_outbox_set_unfit_aside(List *unfit);

extern RinqOutboxRowRef *rinq_outbox_row_refs(MemoryContext context, const RinqOutboxItem *items,
											  Size count);

#endif							/* RINQ_WORKER_OUTBOX_TRANSACTION_H */
