/*-------------------------------------------------------------------------
 *
 * pool.h
 *	  The executors of this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_POOL_H
#define RINQ_PEER_COMMAND_POOL_H

#include "postgres.h"

extern void rinq_pool_init(void);
extern int64 rinq_pool_manage(void);
extern void rinq_pool_end(void);

#endif							/* RINQ_PEER_COMMAND_POOL_H */
