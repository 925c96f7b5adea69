/*-------------------------------------------------------------------------
 *
 * session_requests.h
 *	  What backends ask about sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_OPERATION_SESSION_REQUESTS_H
#define RINQ_PEER_OPERATION_SESSION_REQUESTS_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "peer/topology/namespaces.h"

extern void rinq_operation(uint32 index);
extern void rinq_operations_bound(RinqNamespace * ns, const char *error);

#endif							/* RINQ_PEER_OPERATION_SESSION_REQUESTS_H */
