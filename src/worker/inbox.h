/*-------------------------------------------------------------------------
 *
 * inbox.h
 *	  What is written down about requests: attempts, those given up, those
 *	  that must not be handled twice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_INBOX_H
#define RINQ_WORKER_INBOX_H

#include "postgres.h"

#include "base/bytes.h"
#include "ipc/slots.h"

extern bool rinq_inbox_give_up(RinqSlot *slot, const RinqFields *fields, MemoryContext context);
extern bool rinq_inbox_was_handled(const RinqSlot *slot, const RinqFields *fields,
								   RinqBytes *payload);
extern void rinq_inbox_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes payload);
extern void rinq_keep_books(void (*work) (void *arg), void *arg, bool durably,
							const char *lock_timeout, MemoryContext context);

#endif							/* RINQ_WORKER_INBOX_H */
