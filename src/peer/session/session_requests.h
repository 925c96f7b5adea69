/*-------------------------------------------------------------------------
 *
 * session_requests.h
 *	  What backends ask about sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SESSION_SESSION_REQUESTS_H
#define RINQ_PEER_SESSION_SESSION_REQUESTS_H

#include "postgres.h"

#include "nodes/pg_list.h"

extern void rinq_operation(uint32 index);
extern void rinq_operation_bound(const RinqWaiter * waiting, const char *error);

#endif							/* RINQ_PEER_SESSION_SESSION_REQUESTS_H */
