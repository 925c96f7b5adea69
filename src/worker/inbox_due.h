/*-------------------------------------------------------------------------
 *
 * inbox_due.h
 *	  Taking a command or notification that is due for its next attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_INBOX_DUE_H
#define RINQ_WORKER_INBOX_DUE_H

#include "postgres.h"

#include "ipc/slots.h"

extern bool rinq_inbox_take(RinqDatabase *db, uint32 index, RinqFields *fields,
							MemoryContext context);

#endif							/* RINQ_WORKER_INBOX_DUE_H */
