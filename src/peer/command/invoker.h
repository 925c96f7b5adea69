/*-------------------------------------------------------------------------
 *
 * invoker.h
 *	  Calls out: sending requests, and handing out the responses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_INVOKER_H
#define RINQ_PEER_COMMAND_INVOKER_H

#include "postgres.h"

#include "amqp/connection.h"
#include "ipc/slots.h"
#include "peer/topology/namespaces.h"

extern void rinq_invoker_init(void);
extern void rinq_invoker_call(uint32 index, uint32 serial);
extern int64 rinq_invoker_retry(void);
extern void rinq_invoker_abandoned(uint32 index, uint32 serial);
extern void rinq_invoker_declared(RinqNamespace * ns, RinqOutcome outcome,
								  const char *error);
extern void rinq_invoker_declaring(RinqNamespace * ns, int64 deadline, const char *problem);
extern void rinq_invoker_response(const RinqDelivery *delivery);
extern bool rinq_invoker_busy(void);
extern bool rinq_invoker_finish(uint32 index, RinqOutcome outcome, RinqBytes type,
								RinqBytes text, RinqBytes payload);
extern void rinq_invoker_finish_text(uint32 index, RinqOutcome outcome, const char *text);
extern void rinq_invoker_ask(uint32 index, const RinqPeerId *peer, const char *command,
							 RinqBytes body);
extern void rinq_invoker_fail_all(const char *reason, bool also_of_handlers);

#endif							/* RINQ_PEER_COMMAND_INVOKER_H */
