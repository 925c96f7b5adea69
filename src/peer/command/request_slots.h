/*-------------------------------------------------------------------------
 *
 * request_slots.h
 *	  The slots for executors, and what is in them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_REQUEST_SLOTS_H
#define RINQ_PEER_COMMAND_REQUEST_SLOTS_H

#include "postgres.h"

#include "peer/command/delivery.h"
#include "peer/process.h"

/* what waits for executors of a role */
typedef struct RinqDemand
{
	Oid			role;
	int64		oldest;			/* when its oldest request came into the
								 * dispatch queue */
} RinqDemand;

/* what is in each slot of the channel, NULL for nothing */
extern RinqInbound * *rinq_in_slot;

/* Return the first of the slots for requests; those before are for calls. */
static inline uint32
rinq_first_request_slot(void)
{
	return rinq_peer.slots->num_calls;
}

extern void rinq_request_slots_init(void);
extern uint32 rinq_find_free_slot(void);
extern void rinq_use_slot(uint32 index, RinqInbound * request);
extern void rinq_empty_slot(uint32 index, RinqLane * lane);
extern RinqInbound * rinq_leave_slot(uint32 index);
extern bool rinq_is_in_executor(const RinqInbound * request);
extern bool rinq_request_slots_busy(void);
extern int	rinq_request_slots_demand(RinqDemand * demand, int max);

#endif							/* RINQ_PEER_COMMAND_REQUEST_SLOTS_H */
