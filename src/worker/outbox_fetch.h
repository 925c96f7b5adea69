/*-------------------------------------------------------------------------
 *
 * outbox_fetch.h
 *	  Reading single messages of the outbox again, for another attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_OUTBOX_FETCH_H
#define RINQ_WORKER_OUTBOX_FETCH_H

#include "postgres.h"

#include "worker/outbox_transaction.h"

extern void rinq_fetch_init(void);
extern void rinq_fetch_order(dsa_pointer order);
extern RinqOutboxTurn rinq_fetch_turn(void);
extern void rinq_fetch_forget(void);

#endif							/* RINQ_WORKER_OUTBOX_FETCH_H */
