/*-------------------------------------------------------------------------
 *
 * pending_calls.h
 *	  Calls, and operations on sessions, that wait in their slots: matching
 *	  responses to them, and ending them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_PENDING_CALLS_H
#define RINQ_PEER_COMMAND_PENDING_CALLS_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/bytes.h"
#include "base/ident.h"
#include "ipc/slots.h"

/* gets the response to a question, with its delivery */
typedef void (*RinqResponseHandler) (uint32 index, const RinqDelivery *delivery);

extern void rinq_pending_init(void);
extern void rinq_pending_expect(uint32 index, const RinqMessageId *id, RinqResponseHandler handler);
extern void rinq_pending_forget(uint32 index);
extern bool rinq_pending_finish(uint32 index, RinqOutcome outcome, const RinqFields *result);
extern void rinq_pending_finish_text(uint32 index, RinqOutcome outcome, const char *text);
extern void rinq_pending_response(const RinqDelivery *delivery);
extern bool rinq_pending_any(void);

#endif							/* RINQ_PEER_COMMAND_PENDING_CALLS_H */
