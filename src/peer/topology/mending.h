/*-------------------------------------------------------------------------
 *
 * mending.h
 *	  Declaring everything again now and then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_MENDING_H
#define RINQ_PEER_TOPOLOGY_MENDING_H

#include "postgres.h"

#include "amqp/connection.h"
#include "peer/topology/namespaces.h"

extern void rinq_mending_opened(void);
extern void rinq_mending_soon(void);
extern void rinq_mend_namespace(RinqNamespace * ns);
extern void rinq_mending_refused(const RinqAmqpChannelClosed *info, RinqNamespace * ns);
extern int64 rinq_mending_step(void);

#endif							/* RINQ_PEER_TOPOLOGY_MENDING_H */
