/*-------------------------------------------------------------------------
 *
 * refuse.h
 *	  Requests whose handlers cannot be run, for a reason that is known.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_REFUSE_H
#define RINQ_PEER_COMMAND_REFUSE_H

#include "postgres.h"

#include "peer/command/delivery.h"
#include "peer/topology/namespaces.h"

extern Oid	rinq_refuse_role(const RinqListener *listener);
extern void rinq_refuse_note(RinqNamespace * ns);
extern void rinq_refuse_note_subscriber(RinqSubscriber * subscriber);
extern void rinq_refuse_request(RinqInbound * request);
extern bool rinq_refuse_step(void);

#endif							/* RINQ_PEER_COMMAND_REFUSE_H */
