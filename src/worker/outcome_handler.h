/*-------------------------------------------------------------------------
 *
 * outcome_handler.h
 *	  Running the handler of a durable call, whose outcome is in its row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_OUTCOME_HANDLER_H
#define RINQ_WORKER_OUTCOME_HANDLER_H

#include "postgres.h"

#include "ipc/slots.h"

/*
 * Tell whether the work in a slot is to handle what a row has, and not what is
 * in the slot.
 */
static inline bool
rinq_is_stored_outcome(const RinqSlot *slot, const RinqFields *fields)
{
	return slot->work == RINQ_WORK_RESPONSE && rinq_get_flag(fields, RINQ_RESPONSE_STORED);
}

extern bool rinq_outcome_give_up(RinqSlot *slot, const RinqFields *fields, MemoryContext context);
extern void rinq_outcome_handle(const RinqFields *fields);
extern void rinq_outcome_failed(RinqSlot *slot, const RinqFields *fields,
								const ErrorData *error, MemoryContext context);

#endif							/* RINQ_WORKER_OUTCOME_HANDLER_H */
