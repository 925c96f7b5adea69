/*-------------------------------------------------------------------------
 *
 * inbox_waiting.h
 *	  Commands that have failed: kept until their next attempt, or set aside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_INBOX_WAITING_H
#define RINQ_WORKER_INBOX_WAITING_H

#include "postgres.h"

#include "ipc/slots.h"

/* what happens to a command that an error has ended */
extern void rinq_waiting_failed(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
								ErrorData *error, bool on_standby, MemoryContext context);
extern void rinq_waiting_give_up(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
								 MemoryContext context);

extern bool rinq_call_again(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
							ErrorData *error);

/* another attempt */
extern bool rinq_waiting_take(RinqDatabase *db, uint32 index, RinqFields *fields,
							  MemoryContext context);
extern bool rinq_waiting_claim(const RinqFields *fields);

extern bool rinq_waiting_has(const RinqSlot *slot, const RinqFields *fields);

#endif							/* RINQ_WORKER_INBOX_WAITING_H */
