/*-------------------------------------------------------------------------
 *
 * topology.h
 *	  Exchanges, queues and bindings, and the namespaces this peer serves.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_TOPOLOGY_H
#define RINQ_PEER_TOPOLOGY_TOPOLOGY_H

#include "postgres.h"

#include "amqp/connection.h"
#include "peer/topology/namespaces.h"

extern void rinq_topology_opened(void);
extern void rinq_topology_connection_lost(void);
extern void rinq_topology_reply(const RinqReply *reply);
extern void rinq_topology_channel_closed(const RinqAmqpChannelClosed *info);
extern void rinq_topology_cancelled(RinqBytes consumer_tag);
extern void rinq_topology_configure(List *listeners);
extern void rinq_topology_declare(RinqNamespace * ns);
extern void rinq_topology_mend(RinqNamespace * ns);
extern void rinq_topology_declare_own(bool again, int first);
extern void rinq_topology_declare_again(RinqNamespace * ns);
extern bool rinq_topology_subscribe(RinqNamespace * ns, uint32 index);
extern void rinq_topology_unsubscribe(RinqNamespace * ns);
extern void rinq_topology_stop_consuming(void);
extern int64 rinq_topology_retry(void);

#endif							/* RINQ_PEER_TOPOLOGY_TOPOLOGY_H */
