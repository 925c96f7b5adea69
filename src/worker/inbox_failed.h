/*-------------------------------------------------------------------------
 *
 * inbox_failed.h
 *	  What becomes of requests and notifications that have failed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_INBOX_FAILED_H
#define RINQ_WORKER_INBOX_FAILED_H

#include "postgres.h"

#include "ipc/slots.h"
#include "worker/inbox_rows.h"

/* attempts at what was taken from the inbox, since it was put there */
extern int	rinq_inbox_tries;

extern bool rinq_inbox_keeps(const RinqSlot *slot, const RinqFields *fields, const ErrorData *error);
extern void rinq_inbox_failed(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
							  ErrorData *error, bool on_standby, MemoryContext context);
extern void rinq_inbox_set_aside(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
								 MemoryContext context);
extern bool rinq_inbox_call_again(RinqDatabase *db, RinqSlot *slot, const RinqFields *fields,
								  ErrorData *error);

extern int	rinq_inbox_attempts_allowed(const RinqSlot *slot, bool asked_for);
extern void rinq_inbox_tell(RinqDatabase *db, const RinqInboxFailure * failure, bool log);

#endif							/* RINQ_WORKER_INBOX_FAILED_H */
