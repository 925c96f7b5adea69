/*-------------------------------------------------------------------------
 *
 * outbox_worker.h
 *	  The parts of the outbox worker, and what they ask of each other.
 *
 *	outbox_worker.c	the process: its loop, its orders, tidying up
 *	outbox_scan.c	scans: finding all rows, and reading them piece by piece
 *	outbox_fetch.c	reading single messages again
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_WORKER_H
#define RINQ_OUTBOX_WORKER_H

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
} RinqOutboxWorker;

extern RinqOutboxWorker rinq_outbox_worker;

/* outbox_worker.c */
extern bool rinq_outbox_begin(const char *activity, LOCKMODE mode);
extern void rinq_outbox_snapshot(void);
extern void rinq_outbox_end(void);
extern bool rinq_outbox_report(RinqChunkKind kind, const void *data, Size size, uint32 scan);
extern bool rinq_outbox_report_messages(RinqChunkKind kind, const RinqOutboxRead *read,
										uint32 scan);
extern void rinq_outbox_report_with(dsa_pointer *order, RinqChunkKind kind);
extern bool rinq_outbox_set_unfit_aside(List *unfit);

extern RinqOutboxRowRef *rinq_outbox_row_refs(MemoryContext context, const RinqOutboxItem *items,
											  Size count);

/* outbox_fetch.c */
extern void rinq_fetch_init(void);
extern void rinq_fetch_order(dsa_pointer order);
extern RinqOutboxTurn rinq_fetch_turn(void);
extern void rinq_fetch_forget(void);

/* outbox_scan.c */
extern void rinq_scan_init(void);
extern void rinq_scan_order(dsa_pointer order);
extern RinqOutboxTurn rinq_scan_turn(void);
extern bool rinq_scan_runs(void);
extern List *rinq_scan_check(dsa_pointer *order);
extern void rinq_scan_settle(void);
extern void rinq_scan_forget(void);

#endif							/* RINQ_OUTBOX_WORKER_H */
