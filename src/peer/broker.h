/*-------------------------------------------------------------------------
 *
 * broker.h
 *	  Which broker the peer is to connect to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_BROKER_H
#define RINQ_PEER_BROKER_H

#include "postgres.h"

#include "base/broker.h"
#include "ipc/listener_config.h"

extern bool rinq_peer_broker_configure(RinqServerConfig *config);
extern const char *rinq_peer_broker_server(void);
extern const char *rinq_peer_broker_problem(void);
extern bool rinq_peer_broker(RinqBroker *broker, char *error, size_t size);

#endif							/* RINQ_PEER_BROKER_H */
