/*-------------------------------------------------------------------------
 *
 * ipc/startup.h
 *	  Making the extension's shared memory when the server starts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_STARTUP_H
#define RINQ_STARTUP_H

#include "postgres.h"

extern void rinq_shared_init(void);

#endif							/* RINQ_STARTUP_H */
