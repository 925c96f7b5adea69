/*-------------------------------------------------------------------------
 *
 * declare.h
 *	  Declaring the queues of namespaces.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_DECLARE_H
#define RINQ_PEER_TOPOLOGY_DECLARE_H

#include "postgres.h"

#include "peer/topology/namespaces.h"

#define RINQ_DECLARE_PATIENCE 3000	/* ms after which calls do not wait any
									 * longer */

extern uint16 rinq_declare_last_consumer(void);
extern uint16 rinq_declare_mending_channel(void);
extern bool rinq_is_declare_channel(uint16 channel);
extern void rinq_declare_replied(uint16 channel);
extern void rinq_declare_namespace(RinqNamespace * ns);
extern void rinq_declare_end(RinqNamespace * ns, RinqNamespaceState state);
extern RinqNamespace * rinq_declare_oldest(uint16 channel);
extern void rinq_declare_elsewhere(uint16 channel, bool oldest_stays);
extern const char *rinq_declare_problem(const RinqNamespace * ns, int patience);
extern int64 rinq_declare_step(void);
extern void rinq_declare_connection_lost(void);

#endif							/* RINQ_PEER_TOPOLOGY_DECLARE_H */
