/*-------------------------------------------------------------------------
 *
 * cleanup.h
 *	  What a request leaves behind in the process that has handled it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CLEANUP_H
#define RINQ_CLEANUP_H

#include "postgres.h"

extern void rinq_cleanup_init(void);
extern void rinq_cleanup_configured(void);
extern void rinq_cleanup_session(void);
extern bool rinq_cleanup_is_complete(void);
extern void rinq_end_failed_transaction(MemoryContext context);

#endif							/* RINQ_CLEANUP_H */
