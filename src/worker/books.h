/*-------------------------------------------------------------------------
 *
 * books.h
 *	  What all files share that write down something about requests.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_BOOKS_H
#define RINQ_WORKER_BOOKS_H

#include "postgres.h"

#include "ipc/slots.h"

#define RINQ_BOOKS_LOCK_TIMEOUT "5s"	/* of what is written down before and
										 * after an attempt */

extern Datum rinq_request_digest(const RinqSlot *slot, const RinqFields *fields);
extern bool rinq_keep_books(void (*work) (void *arg), void *arg, bool durably,
							const char *lock_timeout, MemoryContext context);

#endif							/* RINQ_WORKER_BOOKS_H */
