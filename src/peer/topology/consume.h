/*-------------------------------------------------------------------------
 *
 * consume.h
 *	  Consuming: which queues this peer gets messages from.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_CONSUME_H
#define RINQ_PEER_TOPOLOGY_CONSUME_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "peer/topology/namespaces.h"

extern void rinq_consume_start(uint16 channel);
extern void rinq_consume_namespace(RinqNamespace * ns);
extern bool rinq_consume_lost(RinqNamespace * ns);
extern void rinq_consume_retry_later(RinqNamespace * ns);
extern void rinq_consume_want(RinqNamespace * ns);
extern void rinq_consume_closed_connection(void);
extern int64 rinq_consume_retry(void);
extern void rinq_consume_configure(List *listeners);
extern void rinq_consume_stop(void);
extern void rinq_consume_connection_lost(void);

#endif							/* RINQ_PEER_TOPOLOGY_CONSUME_H */
