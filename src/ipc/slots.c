/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Messages between the processes of one database: slots, the peer's inbox
 *	  and the dispatch queue that executors take their work from.
 *
 * Nothing here waits: the spinlocks guard a few words each, the dispatch queue
 * has a lock of its own, and large payloads are copied without any lock held.
 * Who may touch a slot, and when, is described in ipc/slots.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "guc.h"
#include "ipc/slots.h"
#include "port/pg_bitutils.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* slots for requests on their way to executors; more wait in the peer */
#define NUM_REQUEST_SLOTS 256

/*
 * Entries that a slot can have in the inbox at a time: it is called, fails with
 * the connection before the peer has read that, and is used again; twice, when
 * the peer is told to connect elsewhere in the same turn; and abandoned.
 */
#define ENTRIES_PER_SLOT 4

/*
 * Return the kind of the fields of some work.
 */
RinqKind
rinq_work_kind(RinqWork work)
{
	switch (work)
	{
		case RINQ_WORK_REQUEST:
			return RINQ_KIND_REQUEST;
		case RINQ_WORK_RESPONSE:
			return RINQ_KIND_RESPONSE;
		case RINQ_WORK_NOTIFICATION:
			return RINQ_KIND_NOTIFICATION;
	}
	elog(ERROR, "corrupt message in rinq's shared memory");
}

/*
 * Return the numbers that the fields common to all kinds of work have in these.
 */
const RinqCommonFields *
rinq_common_fields_of(const RinqFields *fields)
{
	static const RinqCommonFields request = {
		RINQ_REQUEST_HANDLER, RINQ_REQUEST_ID, RINQ_REQUEST_SOURCE,
		RINQ_REQUEST_NAMESPACE, RINQ_REQUEST_COMMAND, RINQ_REQUEST_PAYLOAD,
		RINQ_REQUEST_TRACE, RINQ_REQUEST_SPAN, RINQ_REQUEST_TRACEPARENT,
		RINQ_REQUEST_TRACESTATE, RINQ_REQUEST_ATTEMPT, RINQ_REQUEST_FIRST_RECEIVED,
		RINQ_REQUEST_REFUSAL, RINQ_REQUEST_DIGEST
	};
	static const RinqCommonFields response = {
		RINQ_RESPONSE_HANDLER, RINQ_RESPONSE_ID, RINQ_RESPONSE_SOURCE,
		RINQ_RESPONSE_NAMESPACE, RINQ_RESPONSE_COMMAND, RINQ_RESPONSE_PAYLOAD,
		RINQ_RESPONSE_TRACE, RINQ_RESPONSE_SPAN, RINQ_RESPONSE_TRACEPARENT,
		RINQ_RESPONSE_TRACESTATE, -1, -1, -1, -1
	};
	static const RinqCommonFields notification = {
		RINQ_NOTIFICATION_HANDLER, RINQ_NOTIFICATION_ID, RINQ_NOTIFICATION_SOURCE,
		RINQ_NOTIFICATION_NAMESPACE, RINQ_NOTIFICATION_TYPE, RINQ_NOTIFICATION_PAYLOAD,
		RINQ_NOTIFICATION_TRACE, RINQ_NOTIFICATION_SPAN, RINQ_NOTIFICATION_TRACEPARENT,
		RINQ_NOTIFICATION_TRACESTATE, RINQ_NOTIFICATION_ATTEMPT, RINQ_NOTIFICATION_FIRST_RECEIVED,
		RINQ_NOTIFICATION_REFUSAL, RINQ_NOTIFICATION_DIGEST
	};

	Assert(fields->kind == RINQ_KIND_REQUEST || fields->kind == RINQ_KIND_RESPONSE ||
		   fields->kind == RINQ_KIND_NOTIFICATION);
	return fields->kind == RINQ_KIND_REQUEST ? &request :
		fields->kind == RINQ_KIND_RESPONSE ? &response : &notification;
}

static uint32
num_slots(void)
{
	return (uint32) rinq_max_calls + NUM_REQUEST_SLOTS;
}

/*
 * Return the entries of the inbox: for all slots, and for the sessions of all
 * backends, made and ended twice.
 */
static uint32
event_size(void)
{
	return pg_nextpower2_32(ENTRIES_PER_SLOT * num_slots() + 4 * (uint32) MaxBackends);
}

Size
rinq_slots_size(void)
{
	Size		size;

	size = offsetof(RinqSlots, slot);
	size = add_size(size, mul_size(num_slots(), sizeof(RinqSlot)));
	size = add_size(MAXALIGN(size),
					mul_size(event_size(), sizeof(RinqEvent)));
	return MAXALIGN(size);
}

void
rinq_slots_init(RinqSlots *slots, LWLock *queue_lock, LWLock *request_lock)
{
	uint32		i;

	SpinLockInit(&slots->free_lock);
	slots->request_lock = request_lock;
	SpinLockInit(&slots->event_lock);
	slots->num_calls = (uint32) rinq_max_calls;
	slots->num_slots = num_slots();
	slots->event_size = event_size();
	slots->event_offset = MAXALIGN(offsetof(RinqSlots, slot) +
								   slots->num_slots * sizeof(RinqSlot));
	slots->event_head = 0;
	slots->event_tail = 0;
	slots->inbox_missed = false;
	rinq_sendqueue_init(&slots->send, queue_lock);
	slots->first_request = RINQ_NO_SLOT;
	slots->last_request = RINQ_NO_SLOT;
	slots->num_requests = 0;

	slots->first_free = 0;
	for (i = 0; i < slots->num_slots; i++)
	{
		RinqSlot   *slot = &slots->slot[i];

		pg_atomic_init_u32(&slot->state, RINQ_SLOT_FREE);
		pg_atomic_init_u32(&slot->claim, RINQ_CLAIMED_BY_PEER);
		pg_atomic_init_u64(&slot->limit, 0);
		slot->serial = 0;
		slot->large = InvalidDsaPointer;
		slot->length = 0;
		slot->owner = RINQ_NO_PROC;
		slot->next = (i + 1 < slots->num_calls) ? i + 1 : RINQ_NO_SLOT;
	}
}

/*
 * Take a free slot for a call, or return RINQ_NO_SLOT.
 */
uint32
rinq_slot_alloc_call(RinqSlots *slots)
{
	uint32		index;
	RinqSlot   *slot;

	SpinLockAcquire(&slots->free_lock);
	index = slots->first_free;
	if (index != RINQ_NO_SLOT)
		slots->first_free = slots->slot[index].next;
	SpinLockRelease(&slots->free_lock);
	if (index == RINQ_NO_SLOT)
		return RINQ_NO_SLOT;

	Assert(index < slots->num_calls);
	slot = &slots->slot[index];
	do
	{
		slot->serial++;
	} while (slot->serial == RINQ_CLAIMED_BY_PEER || slot->serial == RINQ_CLAIMED_BY_OWNER);
	slot->owner = RINQ_MY_PROCNO;
	slot->async = false;
	pg_atomic_write_u32(&slot->claim, slot->serial);
	slot->outcome = RINQ_OUTCOME_NONE;
	slot->length = 0;
	rinq_slot_set_state(slot, RINQ_SLOT_FILLING);
	return index;
}

/*
 * Free a slot with all it holds.  Slots of requests belong to the peer, which
 * keeps its own list of the free ones; they are only marked.
 */
void
rinq_slot_free(RinqSlots *slots, uint32 index)
{
	RinqSlot   *slot = &slots->slot[index];

	Assert(index < slots->num_slots);
	rinq_slot_clear(slot);
	slot->owner = RINQ_NO_PROC;
	rinq_slot_set_state(slot, RINQ_SLOT_FREE);
	if (index >= slots->num_calls)
		return;

	SpinLockAcquire(&slots->free_lock);
	slot->next = slots->first_free;
	slots->first_free = index;
	SpinLockRelease(&slots->free_lock);
}

/*
 * Release the fields of a slot, which stays in use.
 */
void
rinq_slot_clear(RinqSlot *slot)
{
	if (DsaPointerIsValid(slot->large))
	{
		dsa_pointer large = slot->large;

		slot->large = InvalidDsaPointer;
		dsa_free(rinq_dsa(), large);
	}
	slot->length = 0;
}

/*
 * Pack fields into a slot in place of those it has.
 *
 * Returns false, and leaves the slot empty, when the payload area is full.
 * The fields must not point into this slot.
 */
bool
rinq_slot_write(RinqSlot *slot, const RinqFields *fields)
{
	Size		size = rinq_fields_size(fields);
	char	   *packed = slot->data;

	Assert(rinq_slot_state(slot) != RINQ_SLOT_DONE);
	rinq_slot_clear(slot);
	if (size > MaxAllocSize)
		return false;
	if (size > RINQ_SLOT_INLINE)
	{
		slot->large = dsa_allocate_extended(rinq_dsa(), size,
											DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
		if (!DsaPointerIsValid(slot->large))
			return false;
		packed = dsa_get_address(rinq_dsa(), slot->large);
	}
	rinq_fields_write(fields, packed);
	slot->length = (uint32) size;
	return true;
}

/*
 * Find the fields of a slot, which are of this kind, or none.  They point into
 * shared memory and are valid until the slot is written, cleared or freed.
 */
void
rinq_slot_read(RinqSlot *slot, RinqKind kind, RinqFields *fields)
{
	RinqBytes	packed = rinq_bytes(slot->data, slot->length);

	Assert(rinq_slot_state(slot) != RINQ_SLOT_FREE);
	if (DsaPointerIsValid(slot->large))
		packed.data = dsa_get_address(rinq_dsa(), slot->large);
	else if (slot->length > RINQ_SLOT_INLINE)
		elog(ERROR, "corrupt message in rinq's shared memory");
	if (slot->length == 0)
		rinq_fields_init(fields, kind);
	else if (!rinq_fields_read(fields, kind, &packed) || packed.len > 0)
		elog(ERROR, "corrupt message in rinq's shared memory");
}

/*
 * Move a slot from one state to the next, which hands it to another process;
 * false when it was in another state, because the other side gave up.
 */
bool
rinq_slot_move(RinqSlot *slot, RinqSlotState from, RinqSlotState to)
{
	uint32		expected = from;

	Assert(rinq_slot_may_move(from, to));
	return pg_atomic_compare_exchange_u32(&slot->state, &expected, to);
}

static RinqEvent *
inbox_entry(RinqSlots *slots, uint64 position)
{
	RinqEvent  *ring = (RinqEvent *) ((char *) slots + slots->event_offset);

	return &ring[position & (slots->event_size - 1)];
}

/*
 * Tell the peer something, and wake it.
 */
void
rinq_event_put(RinqDatabase *db, RinqEventKind kind, uint32 value, uint32 serial)
{
	RinqSlots  *slots = rinq_slots_of(db);
	bool		of_process = kind == RINQ_EVENT_CLIENT_GONE || kind == RINQ_EVENT_SESSION;
	uint64		limit = slots->event_size;
	bool		full;

	if (of_process)
		limit -= ENTRIES_PER_SLOT * slots->num_slots;

	SpinLockAcquire(&slots->event_lock);
	full = slots->event_head - slots->event_tail >= limit;
	if (!full)
	{
		RinqEvent  *entry = inbox_entry(slots, slots->event_head);

		entry->kind = kind;
		entry->value = value;
		entry->serial = serial;
		slots->event_head++;
	}
	else
		slots->inbox_missed = true;
	SpinLockRelease(&slots->event_lock);
	Assert(of_process || !full);
	if (full)
		rinq_count(db, RINQ_EVENTS_MISSED);
	rinq_wake_peer(db);
}

bool
rinq_event_get(RinqSlots *slots, RinqEvent *entry)
{
	bool		found;

	SpinLockAcquire(&slots->event_lock);
	found = slots->event_head != slots->event_tail;
	if (found)
	{
		*entry = *inbox_entry(slots, slots->event_tail);
		slots->event_tail++;
	}
	SpinLockRelease(&slots->event_lock);
	return found;
}

/*
 * Tell whether there was no room for something since this was asked last.  To
 * be asked when the inbox is empty; then everything has to be looked at.
 */
bool
rinq_inbox_missed(RinqSlots *slots)
{
	bool		missed;

	/* mostly nothing was, which costs no lock to see */
	if (!*(volatile bool *) &slots->inbox_missed)
		return false;
	SpinLockAcquire(&slots->event_lock);
	missed = slots->inbox_missed;
	slots->inbox_missed = false;
	SpinLockRelease(&slots->event_lock);
	return missed;
}

/*
 * Add a request to the dispatch queue.  Returns the procno of an idle executor
 * of its role to wake, lowest number first since its caches are the warmest,
 * or RINQ_NO_PROC.
 */
int
rinq_request_put(RinqDatabase *db, uint32 index)
{
	RinqSlots  *slots = rinq_slots_of(db);
	RinqSlot   *slot = &slots->slot[index];
	int			wake = RINQ_NO_PROC;
	int			i;

	Assert(index >= slots->num_calls && index < slots->num_slots);
	slot->next = RINQ_NO_SLOT;
	rinq_slot_set_state(slot, RINQ_SLOT_QUEUED);

	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	if (slots->last_request == RINQ_NO_SLOT)
		slots->first_request = index;
	else
		slots->slot[slots->last_request].next = index;
	slots->last_request = index;
	slots->num_requests++;
	Assert(slots->num_requests <= slots->num_slots - slots->num_calls);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		RinqExecutorSlot *executor = &db->executors[i];

		if (executor->state == RINQ_EXECUTOR_IDLE && executor->role == slot->role)
		{
			executor->state = RINQ_EXECUTOR_WOKEN;
			wake = executor->procno;
			break;
		}
	}
	LWLockRelease(slots->request_lock);
	return wake;
}

/*
 * Unlink a request from the dispatch queue; the caller holds the request lock.
 */
static void
unlink_request(RinqSlots *slots, uint32 index, uint32 previous)
{
	RinqSlot   *slot = &slots->slot[index];

	Assert(LWLockHeldByMeInMode(slots->request_lock, LW_EXCLUSIVE));
	Assert(slots->num_requests > 0);
	if (previous == RINQ_NO_SLOT)
		slots->first_request = slot->next;
	else
		slots->slot[previous].next = slot->next;
	if (slots->last_request == index)
		slots->last_request = previous;
	slot->next = RINQ_NO_SLOT;
	slots->num_requests--;
}

/*
 * Return how many responses and notifications run at a time: they leave one
 * executor to requests, which a caller waits for, unless there is no other.
 */
int
rinq_unattended_limit(void)
{
	return Max(1, rinq_command_workers - 1);
}

/*
 * Tell whether other executors may start work that no caller waits for.  The
 * caller holds the request lock.
 */
static bool
may_run_unattended(RinqDatabase *db, const RinqExecutorSlot *me)
{
	RinqSlots  *slots = rinq_slots_of(db);
	int			count = 0;
	int			i;

	Assert(LWLockHeldByMe(slots->request_lock));
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		const RinqExecutorSlot *executor = &db->executors[i];

		/*
		 * the owner of the slot clears it without the lock, so it is read but
		 * once
		 */
		uint32		request = *(volatile const uint32 *) &executor->request;

		if (executor != me && executor->state == RINQ_EXECUTOR_BUSY &&
			request < slots->num_slots && slots->slot[request].work != RINQ_WORK_REQUEST)
			count++;
	}
	return count < rinq_unattended_limit();
}

/*
 * Take the oldest request for the executor's role that may run now, and mark the
 * executor busy; or mark it idle and return RINQ_NO_SLOT.
 */
uint32
rinq_request_take(RinqDatabase *db, RinqExecutorSlot *me)
{
	RinqSlots  *slots = rinq_slots_of(db);
	uint32		previous = RINQ_NO_SLOT;
	uint32		index;
	bool		unattended;

	Assert(me >= db->executors && me < db->executors + RINQ_MAX_EXECUTORS);
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	unattended = may_run_unattended(db, me);
	for (index = slots->first_request; index != RINQ_NO_SLOT;
		 previous = index, index = slots->slot[index].next)
	{
		if (slots->slot[index].role == me->role &&
			(unattended || slots->slot[index].work == RINQ_WORK_REQUEST))
			break;
	}
	if (index != RINQ_NO_SLOT)
	{
		unlink_request(slots, index, previous);
		slots->slot[index].owner = me->procno;
		rinq_slot_set_state(&slots->slot[index], RINQ_SLOT_RUNNING);
		me->state = RINQ_EXECUTOR_BUSY;
	}
	else
		me->state = RINQ_EXECUTOR_IDLE;
	me->request = index;
	LWLockRelease(slots->request_lock);
	return index;
}

/*
 * Take a request out of the dispatch queue again; false when an executor has
 * it.
 */
bool
rinq_request_remove(RinqDatabase *db, uint32 index)
{
	RinqSlots  *slots = rinq_slots_of(db);
	uint32		previous = RINQ_NO_SLOT;
	uint32		i;
	bool		found = false;

	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	for (i = slots->first_request; i != RINQ_NO_SLOT;
		 previous = i, i = slots->slot[i].next)
	{
		if (i == index)
		{
			unlink_request(slots, i, previous);
			found = true;
			break;
		}
	}
	LWLockRelease(slots->request_lock);
	return found;
}

/*
 * End everything that waits for the peer: called when it ends, and again
 * when the next one starts, for what came in between.
 */
void
rinq_slots_peer_gone(RinqDatabase *db)
{
	RinqSlots  *slots = rinq_slots_of(db);
	uint32		i;

	SpinLockAcquire(&slots->event_lock);
	slots->event_tail = slots->event_head;
	SpinLockRelease(&slots->event_lock);

	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	slots->first_request = RINQ_NO_SLOT;
	slots->last_request = RINQ_NO_SLOT;
	slots->num_requests = 0;
	LWLockRelease(slots->request_lock);

	rinq_sendqueue_reset(db);
	for (i = 0; i < slots->num_slots; i++)
	{
		RinqSlot   *slot = &slots->slot[i];
		RinqSlotState state = rinq_slot_state(slot);

		if (i < slots->num_calls)
		{
			if (state == RINQ_SLOT_QUEUED)
			{
				rinq_slot_clear(slot);
				slot->outcome = RINQ_OUTCOME_CONNECTION_LOST;
				if (rinq_slot_move(slot, RINQ_SLOT_QUEUED, RINQ_SLOT_DONE))
					rinq_wake_proc(slot->owner);
				else
					rinq_slot_free(slots, i);
			}
			else if (state == RINQ_SLOT_ABANDONED)
				rinq_slot_free(slots, i);
		}
		else if (state == RINQ_SLOT_RUNNING)
		{
			/* if the executor is done in this moment, the slot is ours */
			if (!rinq_slot_move(slot, RINQ_SLOT_RUNNING, RINQ_SLOT_ABANDONED))
				rinq_slot_free(slots, i);
		}
		else if (state != RINQ_SLOT_FREE && state != RINQ_SLOT_ABANDONED)
			rinq_slot_free(slots, i);
	}
}

/*
 * Free the places of workers that a peer which has ended has registered, or was
 * about to, and that did not get to run.  One that comes after all sees that it
 * is not expected, and leaves.
 */
void
rinq_forget_unattached(RinqDatabase *db)
{
	RinqSlots  *slots = rinq_slots_of(db);
	int			i;

	Assert(LWLockHeldByMeInMode(rinq_shared->lock, LW_EXCLUSIVE));
	if (db->outbox.state == RINQ_WORKER_STARTING && db->outbox.pid == 0)
		db->outbox.state = RINQ_WORKER_NONE;
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		RinqExecutorSlot *executor = &db->executors[i];

		if (executor->state == RINQ_EXECUTOR_STARTING && executor->pid == 0)
		{
			executor->serial++;
			executor->state = RINQ_EXECUTOR_FREE;
		}
	}
	LWLockRelease(slots->request_lock);
}

/*
 * Tell whether neither an executor nor the reader is connected to the
 * database, or about to be.
 */
bool
rinq_database_is_left(RinqDatabase *db)
{
	RinqSlots  *slots = rinq_slots_of(db);
	bool		left = db->reader.state == RINQ_WORKER_NONE && db->outbox.state == RINQ_WORKER_NONE;
	int			i;

	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		if (db->executors[i].state != RINQ_EXECUTOR_FREE)
			left = false;
	}
	LWLockRelease(slots->request_lock);
	return left;
}
