/*-------------------------------------------------------------------------
 *
 * network.h
 *	  The connection to the broker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_NETWORK_H
#define RINQ_PEER_NETWORK_H

#include "postgres.h"

#include "peer/sockets.h"

extern void rinq_network_init(void);
extern bool rinq_network_step(void);
extern void rinq_network_flush(void);
extern void rinq_network_reload(void);
extern void rinq_network_stop(void);
extern bool rinq_network_stopped(void);
extern int64 rinq_network_next_deadline(void);
extern void rinq_network_sockets(RinqSockets *sockets);

#endif							/* RINQ_PEER_NETWORK_H */
