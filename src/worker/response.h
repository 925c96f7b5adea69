/*-------------------------------------------------------------------------
 *
 * response.h
 *	  How what a handler returns, or the error that ended it, becomes the
 *	  result in a request's slot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_RESPONSE_H
#define RINQ_WORKER_RESPONSE_H

#include "postgres.h"

#include "ipc/slots.h"

/* what is said of a response that found no payload memory in its time */
#define RINQ_NO_ROOM_FOR_RESPONSE "the response does not fit into \"rinq.payload_memory\""

extern void rinq_result_plainly(RinqSlot *slot, const char *ascii);
extern bool rinq_result_success(RinqSlot *slot, RinqBytes payload);
extern bool rinq_result_is_failure(ErrorData *error);
extern bool rinq_result_is_late(const RinqSlot *slot, const ErrorData *error);
extern bool rinq_result_is_over_limit(const RinqSlot *slot, const ErrorData *error);
extern void rinq_result_error(RinqSlot *slot, ErrorData *error, MemoryContext context);

#endif							/* RINQ_WORKER_RESPONSE_H */
