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
extern void rinq_topology_another_broker(void);
extern void rinq_topology_reply(const RinqReply *reply);
extern void rinq_topology_channel_closed(const RinqAmqpChannelClosed *info);
extern void rinq_topology_cancelled(RinqBytes consumer_tag);
extern bool rinq_topology_subscribe(RinqNamespace * ns, uint32 index);
extern void rinq_topology_unsubscribe(RinqNamespace * ns);

#endif							/* RINQ_PEER_TOPOLOGY_TOPOLOGY_H */
