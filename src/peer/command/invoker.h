/*-------------------------------------------------------------------------
 *
 * invoker.h
 *	  Calls out: sending the requests that backends hand over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_INVOKER_H
#define RINQ_PEER_COMMAND_INVOKER_H

#include "postgres.h"

#include "amqp/connection.h"
#include "ipc/slots.h"
#include "peer/command/pending_calls.h"
#include "peer/topology/namespaces.h"


/* gets what was to be sent, when there may be room for it */
typedef void (*RinqCallHandler) (uint32 index, uint32 serial);

extern bool rinq_invoker_accept(uint32 index, uint32 serial);
extern void rinq_invoker_call(uint32 index);
extern int64 rinq_invoker_retry(RinqCallHandler send);
extern void rinq_invoker_abandoned(uint32 index, uint32 serial);
extern void rinq_invoker_declared(RinqNamespace * ns, RinqOutcome outcome,
								  const char *error);
extern void rinq_invoker_declaring(RinqNamespace * ns, int64 deadline, const char *problem);
extern void rinq_invoker_ask(uint32 index, const RinqPeerId *peer, const char *command,
							 RinqBytes body, RinqResponseHandler handler);
extern void rinq_invoker_fail_all(const char *reason, bool also_of_handlers);

#endif							/* RINQ_PEER_COMMAND_INVOKER_H */
