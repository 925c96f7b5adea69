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

extern bool rinq_peer_broker(RinqBroker *broker, char *error, size_t size);

#endif							/* RINQ_PEER_BROKER_H */
