/*-------------------------------------------------------------------------
 *
 * request_slots.c
 *	  The slots for executors, and what is in them.
 *
 * What is put into a slot, and what becomes of it, is dispatch.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/command/lanes.h"
#include "peer/command/request_slots.h"
#include "utils/memutils.h"

RinqInbound **rinq_in_slot;
static int	num_in_slots;

/*
 * Begin with no request in any slot.
 */
void
rinq_request_slots_init(void)
{
	Assert(RINQ_IN_PEER() && rinq_in_slot == NULL);
	rinq_in_slot = MemoryContextAllocZero(TopMemoryContext,
										  rinq_peer.slots->num_slots * sizeof(RinqInbound *));
	rinq_lanes_init(rinq_peer.slots->num_slots - rinq_first_request_slot());
}

/*
 * Return a slot that nothing is in; RINQ_NO_SLOT when there is none.
 */
uint32
rinq_find_free_slot(void)
{
	static uint32 hint = 0;
	uint32		count = rinq_peer.slots->num_slots - rinq_first_request_slot();
	uint32		i;

	for (i = 0; i < count; i++)
	{
		uint32		index = rinq_first_request_slot() + (hint + i) % count;
		RinqSlot   *slot = &rinq_peer.slots->slot[index];

		if (rinq_in_slot[index] == NULL &&
			rinq_slot_state(slot) == RINQ_SLOT_FREE)
		{
			hint = index - rinq_first_request_slot() + 1;
			return index;
		}
	}
	return RINQ_NO_SLOT;
}

/*
 * Note that a request is in a slot.
 */
void
rinq_use_slot(uint32 index, RinqInbound * request)
{
	Assert(rinq_in_slot[index] == NULL);
	rinq_in_slot[index] = request;
	num_in_slots++;
	Assert(num_in_slots <= (int) (rinq_peer.slots->num_slots - rinq_first_request_slot()));
}

/*
 * Empty a slot, of whose request no more may be left than its lane.
 */
void
rinq_empty_slot(uint32 index, RinqLane * lane)
{
	Assert(num_in_slots > 0 && lane != NULL);
	rinq_in_slot[index] = NULL;
	num_in_slots--;
	rinq_slot_free(rinq_peer.slots, index);
	rinq_lanes_ended(lane);
}

/*
 * Take a request out of its slot; the caller has to end it.
 */
RinqInbound *
rinq_leave_slot(uint32 index)
{
	RinqInbound *request = rinq_in_slot[index];

	Assert(request != NULL);
	rinq_empty_slot(index, request->lane);
	request->lane = NULL;
	return request;
}

/*
 * Tell whether an executor has taken a request.
 */
bool
rinq_is_in_executor(const RinqInbound * request)
{
	uint32		i;

	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		if (rinq_in_slot[i] == request)
			return rinq_slot_state(&rinq_peer.slots->slot[i]) != RINQ_SLOT_QUEUED;
	}
	return false;
}

/*
 * Tell whether requests are in the dispatch queue, or running.
 */
bool
rinq_request_slots_busy(void)
{
	return num_in_slots > 0;
}

/*
 * Find the roles for which something is in the dispatch queue that an executor
 * could take now.  Returns their number, at most "max".
 */
int
rinq_request_slots_demand(RinqDemand * demand, int max)
{
	int			unattended = 0;
	int			count = 0;
	uint32		i;

	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		if (rinq_in_slot[i] != NULL && rinq_in_slot[i]->work != RINQ_WORK_REQUEST &&
			rinq_slot_state(&rinq_peer.slots->slot[i]) == RINQ_SLOT_RUNNING)
			unattended++;
	}
	for (i = rinq_first_request_slot(); i < rinq_peer.slots->num_slots; i++)
	{
		RinqSlot   *slot = &rinq_peer.slots->slot[i];
		int			j;

		if (rinq_in_slot[i] == NULL || rinq_slot_state(slot) != RINQ_SLOT_QUEUED ||
			(rinq_in_slot[i]->work != RINQ_WORK_REQUEST && unattended >= rinq_unattended_limit()))
			continue;
		for (j = 0; j < count && demand[j].role != slot->role; j++)
			;
		if (j == max)
			continue;
		if (j == count)
		{
			demand[count].role = slot->role;
			demand[count++].oldest = slot->queued_at;
		}
		else
			demand[j].oldest = Min(demand[j].oldest, slot->queued_at);
	}
	return count;
}
