/*-------------------------------------------------------------------------
 *
 * outbox_scan.h
 *	  Scans of the outbox: finding all rows, and reading them piece by piece.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_OUTBOX_SCAN_H
#define RINQ_WORKER_OUTBOX_SCAN_H

#include "postgres.h"

#include "worker/outbox_transaction.h"

extern void rinq_scan_init(void);
extern void rinq_scan_order(dsa_pointer order);
extern RinqOutboxTurn rinq_scan_turn(void);
extern bool rinq_scan_runs(void);
extern List *rinq_scan_check(dsa_pointer *order);
extern void rinq_scan_forget(void);

#endif							/* RINQ_WORKER_OUTBOX_SCAN_H */
