/*-------------------------------------------------------------------------
 *
 * session_cache.h
 *	  Sessions of other peers: asking their owners, and what is known of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_OPERATION_SESSION_CACHE_H
#define RINQ_PEER_OPERATION_SESSION_CACHE_H

#include "postgres.h"

#include "amqp/connection.h"

extern void rinq_session_cache_init(void);
extern void rinq_session_cache_operation(uint32 index);
extern int64 rinq_session_cache_prune(void);

#endif							/* RINQ_PEER_OPERATION_SESSION_CACHE_H */
