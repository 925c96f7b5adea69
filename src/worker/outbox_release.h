/*-------------------------------------------------------------------------
 *
 * outbox_release.h
 *	  Moving messages that wait into the outbox, when they may be sent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_OUTBOX_RELEASE_H
#define RINQ_WORKER_OUTBOX_RELEASE_H

#include "postgres.h"

#include "worker/outbox_transaction.h"

extern void rinq_release_init(void);
extern void rinq_release_order(dsa_pointer order);
extern RinqOutboxTurn rinq_release_turn(void);
extern void rinq_release_removed(const RinqMessageId *id);
extern bool rinq_release_pending(void);
extern void rinq_release_forget(void);

#endif							/* RINQ_WORKER_OUTBOX_RELEASE_H */
