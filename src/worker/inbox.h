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

extern bool rinq_inbox_give_up(RinqDatabase *db, RinqSlot *slot, RinqFields *fields,
							   MemoryContext context);
extern bool rinq_inbox_was_handled(const RinqSlot *slot, const RinqFields *fields,
								   RinqBytes *payload);
extern void rinq_inbox_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes payload);

#endif							/* RINQ_WORKER_INBOX_H */
