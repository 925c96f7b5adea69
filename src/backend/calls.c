/*-------------------------------------------------------------------------
 *
 * backend/calls.c
 *	  A backend's side of calls: waiting for a connected peer, handing it a
 *	  call, waiting for the result.
 *
 * All waiting is done on the process's latch, and ends with the deadline, a
 * cancellation, or the peer.  No lock is held meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/bus_access.h"
#include "backend/calls.h"
#include "backend/identity.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "base/request_end.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "nodes/bitmapset.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"

/* ms after which a waiting backend looks around without having been woken */
#define RECHECK 1000

/* the number by which the peer knows this backend; 0 until it has one */
static uint32 my_client = 0;

/*
 * Numbers of the database entries (ipc/shared.h) in which this process may have
 * calls.  More than one when the database has stopped being served, and has
 * another entry since; the first one may be another database's by now, but
 * its channel still has this process's calls.
 */
static Bitmapset *used_entries = NULL;

/* take note of an entry before there is anything in it */
static void
use_entry(RinqDatabase *db)
{
	int			number = (int) (db - rinq_shared->databases);
	MemoryContext old;

	Assert(number >= 0 && number < rinq_shared->num_databases);
	if (bms_is_member(number, used_entries))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	used_entries = bms_add_member(used_entries, number);
	MemoryContextSwitchTo(old);
}

/*
 * Release the calls of a process that is terminated while it waits for them.
 */
static void
release_calls_at_exit(RinqDatabase *db)
{
	RinqSlots  *slots = rinq_slots_of(db);
	uint32		i;

	for (i = 0; i < slots->num_calls; i++)
	{
		RinqSlot   *slot = &slots->slot[i];
		RinqSlotState state = rinq_slot_state(slot);

		if (slot->owner == RINQ_MY_PROCNO && slot->client == my_client &&
			state != RINQ_SLOT_FREE && state != RINQ_SLOT_ABANDONED)
		{
			uint32		serial = slot->serial;

			/* not one that the peer takes back in this moment */
			if (!slot->async ||
				pg_atomic_compare_exchange_u32(&slot->claim, &serial, RINQ_CLAIMED_BY_OWNER) ||
				serial == RINQ_CLAIMED_BY_OWNER)
				rinq_call_release(db, i);
		}
	}
}

/*
 * End what the peer knows of this process: its session.  The next message, if
 * there is one, is of another client.
 */
static void
end_client(void)
{
	RinqDatabase *db = rinq_session_leave();

	if (db != NULL && db->peer.procno != RINQ_NO_PROC)
		rinq_event_put(db, RINQ_EVENT_CLIENT_GONE, my_client, 0);
	if (db != NULL)
		my_client = 0;
}

static void
client_gone(int code, Datum arg)
{
	int			number = -1;

	while ((number = bms_next_member(used_entries, number)) >= 0)
		release_calls_at_exit(&rinq_shared->databases[number]);
	end_client();
}

/*
 * Return the number by which the peer knows this process.
 */
uint32
rinq_client_number(void)
{
	static bool registered = false;

	if (!registered)
	{
		before_shmem_exit(client_gone, (Datum) 0);
		registered = true;
	}
	if (my_client == 0)
	{
		rinq_at_request_end(end_client);
		my_client = pg_atomic_fetch_add_u32(&rinq_shared->next_client, 1);
		if (my_client == 0)		/* 0 is none */
			my_client = pg_atomic_fetch_add_u32(&rinq_shared->next_client, 1);
	}
	return my_client;
}

/* raise the error for a peer that does not run because its database is a copy */
static void
raise_suspended(RinqDatabase *db)
{
	RinqIdentities identities;
	const char *reason;

	if (db == NULL)
		return;
	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	identities = db->identities;
	LWLockRelease(rinq_shared->lock);
	reason = rinq_identity_reason(&identities);
	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rinq peer of this database is suspended"),
				 errdetail_internal("%s", reason),
				 errhint("%s", rinq_identity_hint(&identities))));
}

static void
raise_not_running(RinqDatabase *db)
{
	if (db != NULL && db->stopped)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rinq peer of this database was stopped"),
				 errhint("Use rinq_start().")));
	raise_suspended(db);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the rinq peer of this database is not running"),
			 errhint("Look at the view rinq_peer, at the settings \"rinq.databases\" and \"rinq.max_databases\", and at the server log.")));
}

/*
 * Raise the error for a peer that is not on the network now.
 */
void
rinq_raise_not_connected(const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("the rinq peer has no connection to the broker"),
			 reason[0] != '\0' ? errdetail_internal("%s", reason) : 0,
			 errhint("Look at the view rinq_peer.")));
}

/*
 * Return this database's entry when its peer runs, connected or not; else NULL.
 */
RinqDatabase *
rinq_find_peer(void)
{
	RinqDatabase *db = rinq_my_database();

	return db != NULL && db->peer.state == RINQ_WORKER_RUNNING ? db : NULL;
}

/*
 * Return the peer's database; none is an error.
 */
RinqDatabase *
rinq_require_peer(void)
{
	RinqDatabase *db = rinq_find_peer();

	if (db == NULL)
		raise_not_running(rinq_my_database());
	return db;
}

/*
 * Tell whether this server is a standby on which no peers run.
 */
static bool
is_unserved_standby(void)
{
	return !rinq_standby && RecoveryInProgress();
}

/*
 * Tell whether a peer could still come up by itself.  The launcher may not
 * have looked yet at this database, or be about to start its peer.
 */
static bool
may_come_up(RinqDatabase *db)
{
	if (is_unserved_standby())
		return false;
	if (db == NULL)
		return !rinq_shared->scanned;
	return db->presence != RINQ_ABSENT && db->start_delay == 0 && !db->stopped &&
		(db->identities.suspended == RINQ_NOT_SUSPENDED ||
		 db->identities.suspended == RINQ_SUSPENDED_UNDECIDED);
}

/* Tell whether a database stays without a peer, however long one waits. */
static bool
stays_away(RinqDatabase *db)
{
	if (db == NULL)
		return rinq_shared->scanned && !rinq_shared->rescan;
	return db->presence == RINQ_ABSENT || db->stopped ||
		(db->identities.suspended != RINQ_NOT_SUSPENDED &&
		 db->identities.suspended != RINQ_SUSPENDED_UNDECIDED);
}

/*
 * Return this database's entry, which may have a peer sooner or later; NULL when
 * the launcher has not seen the database yet.  One that has to be told to run is
 * an error, and so is a standby without peers.
 */
RinqDatabase *
rinq_require_coming_peer(void)
{
	RinqDatabase *db = rinq_my_database();

	if (is_unserved_standby())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rinq peer of this database is not running"),
				 errdetail("This server is a standby; peers run when it has been promoted."),
				 errhint("Set \"rinq.standby\" to have peers on a standby, too.")));
	if (stays_away(db))
		raise_not_running(db);
	return db;
}

/*
 * Return this database's entry, whether or not a peer runs; waits for it right
 * after the server's start, when the launcher has not seen the database yet.
 */
RinqDatabase *
rinq_require_database(void)
{
	static uint32 wait_event = 0;
	int64		deadline = rinq_clock_ms() + rinq_default_timeout;
	RinqDatabase *db;

	while (((db = rinq_my_database()) == NULL || db->presence == RINQ_ABSENT) &&
		   may_come_up(db) && rinq_clock_ms() < deadline)
		(void) ConditionVariableTimedSleep(&rinq_shared->scan_done, RECHECK / 10,
										   RINQ_WAIT_EVENT(wait_event, "RinqConnection"));
	ConditionVariableCancelSleep();
	if (db == NULL || db->presence == RINQ_ABSENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq does not serve this database"),
				 errhint("Look at the settings \"rinq.databases\" and \"rinq.max_databases\", and at the server log.")));
	return db;
}

/*
 * Return this database's entry when its peer is connected, to a role that may
 * use the bus.  A peer that is starting, or connecting for the first time, is
 * waited for; one that has failed to connect is not, since it is not known how
 * long that will last.
 */
RinqDatabase *
rinq_require_connection(int64 deadline)
{
	static uint32 wait_event = 0;
	RinqDatabase *db;
	RinqStatus	status;

	rinq_require_preloaded();
	rinq_check_bus_access(GetUserId());
	for (;;)
	{
		ConditionVariable *changed;
		int64		left;

		db = rinq_my_database();
		memset(&status, 0, sizeof(status));
		if (db != NULL)
		{
			SpinLockAcquire(&db->mutex);
			status = db->status;
			SpinLockRelease(&db->mutex);
			if (status.net == RINQ_NET_CONNECTED)
				break;
		}
		left = deadline - rinq_clock_ms();
		if ((status.net == RINQ_NET_STOPPED && !may_come_up(db)) ||
			status.net == RINQ_NET_DISCONNECTED || status.ever_failed || left <= 0)
		{
			ConditionVariableCancelSleep();
			if (status.net == RINQ_NET_STOPPED)
				raise_not_running(db);
			rinq_raise_not_connected(status.last_error);
		}
		changed = db != NULL ? &db->changed : &rinq_shared->scan_done;
		(void) ConditionVariableTimedSleep(changed, (long) Min(left, RECHECK / 10),
										   RINQ_WAIT_EVENT(wait_event, "RinqConnection"));
	}
	ConditionVariableCancelSleep();
	return db;
}

/*
 * Take a slot for something that is asked of the peer; RINQ_NO_SLOT when all
 * are taken.
 */
static uint32
try_new_slot(RinqDatabase *db, RinqOperation op, int64 deadline)
{
	RinqSlots  *slots = rinq_slots_of(db);
	uint32		client = rinq_client_number();
	uint32		incarnation = db->incarnation;
	uint32		index;
	bool		connected;
	RinqSlot   *slot;

	/* what may raise an error comes before there is a slot to lose */
	use_entry(db);
	(void) rinq_dsa();

	/*
	 * the incarnation was read first: it is not that of another database's
	 * peer
	 */
	if (db->oid != MyDatabaseId)
		raise_not_running(NULL);
	index = rinq_slot_alloc_call(slots);
	SpinLockAcquire(&db->mutex);
	connected = db->status.net == RINQ_NET_CONNECTED;
	SpinLockRelease(&db->mutex);
	if (index == RINQ_NO_SLOT)
		return index;
	slot = &slots->slot[index];
	slot->op = op;
	slot->client = client;

	/* a peer that ended before it was looked at ends the wait at once */
	slot->incarnation = connected ? incarnation : incarnation - 1;
	slot->async = false;
	slot->uncorrelated = false;
	slot->in_handler = rinq_inherited.trace.data != NULL;
	slot->deadline = deadline;
	slot->queued_at = rinq_clock_ms();
	return index;
}

/*
 * Take a slot for something that is asked of the peer; having none is an
 * error.
 */
static uint32
new_slot(RinqDatabase *db, RinqOperation op, int64 deadline)
{
	uint32		index = try_new_slot(db, op, deadline);

	if (index == RINQ_NO_SLOT)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many calls are in flight"),
				 errdetail("The setting \"rinq.max_calls\" allows %d for each database.",
						   rinq_max_calls)));
	return index;
}

/* hand a slot to the peer; it is freed when there is no memory for the payload */
static bool
try_submit(RinqDatabase *db, uint32 index, const RinqFields *fields)
{
	RinqSlots  *slots = rinq_slots_of(db);
	RinqSlot   *slot = &slots->slot[index];

	Assert(index < slots->num_calls && rinq_slot_state(slot) == RINQ_SLOT_FILLING);
	if (!rinq_slot_write(slot, fields))
	{
		rinq_slot_free(slots, index);
		return false;
	}
	HOLD_INTERRUPTS();
	rinq_slot_set_state(slot, RINQ_SLOT_QUEUED);
	rinq_event_put(db, RINQ_EVENT_CALL, index, slot->serial);
	RESUME_INTERRUPTS();
	return true;
}

/*
 * Fill a slot and hand it to the peer; having no memory for that is an error.
 */
static void
submit_call(RinqDatabase *db, uint32 index, const RinqFields *fields)
{
	if (!try_submit(db, index, fields))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("payload does not fit into the payload memory"),
				 errdetail("The setting \"rinq.payload_memory\" allows %d MB for all messages together.",
						   rinq_payload_memory)));
}

/*
 * Number a call, with an id that was allocated before, or one of this process's
 * session; having no number left for it is an error, which frees the slot.
 */
static void
number_call(RinqDatabase *db, uint32 index, const RinqMessageId *id)
{
	RinqSlots  *slots = rinq_slots_of(db);
	RinqSlot   *slot = &slots->slot[index];

	if (id != NULL)
	{
		slot->id = *id;
		return;
	}
	PG_TRY();
	{
		(void) rinq_session_allocate_id(db, slot->client, &slot->id);
	}
	PG_CATCH();
	{
		rinq_slot_free(slots, index);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Hand a call to the peer, with a message id that was allocated before, or
 * else one of this process's session.  Returns its slot, which the caller has
 * to release whatever happens; if it is "async", only after having claimed it
 * (backend/async_calls.h).
 */
uint32
rinq_call_submit(RinqDatabase *db, const RinqFields *fields, int64 deadline, bool async,
				 const RinqMessageId *id)
{
	uint32		index = new_slot(db, RINQ_OP_CALL, deadline);

	rinq_slots_of(db)->slot[index].async = async;
	number_call(db, index, id);
	submit_call(db, index, fields);
	return index;
}

/*
 * Hand a call to the peer as rinq_call_submit does, unless there is no slot or
 * no payload memory for it now: then return RINQ_NO_SLOT.
 */
uint32
rinq_call_try_submit(RinqDatabase *db, const RinqFields *fields, int64 deadline,
					 const RinqMessageId *id)
{
	uint32		index = try_new_slot(db, RINQ_OP_CALL, deadline);

	if (index == RINQ_NO_SLOT)
		return index;
	number_call(db, index, id);
	return try_submit(db, index, fields) ? index : RINQ_NO_SLOT;
}

/*
 * Hand over a call whose response goes to the handler of its session: it is
 * answered as soon as the request was sent.
 */
uint32
rinq_call_submit_uncorrelated(RinqDatabase *db, const RinqFields *fields, int64 deadline,
							  const RinqMessageId *id)
{
	uint32		index = new_slot(db, RINQ_OP_CALL, deadline);
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];

	slot->uncorrelated = true;
	slot->id = *id;
	submit_call(db, index, fields);
	return index;
}

/*
 * Hand an operation on a session to the peer, at the reference's revision, or
 * the "current" one.  "role" is who asks; "privilege_checked" may use any session.
 */
uint32
rinq_operation_submit(RinqDatabase *db, RinqOperation op, const RinqRef *ref, bool current,
					  Oid role, bool privilege_checked, const RinqFields *fields,
					  int64 deadline)
{
	uint32		index = new_slot(db, op, deadline);
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];

	slot->ref = *ref;
	slot->current = current;
	slot->asker = role;
	slot->privilege_checked = privilege_checked;
	submit_call(db, index, fields);
	return index;
}

/*
 * Sleep until a time comes, or something may have happened to a call: a
 * process that waits has to look before.  Errors are those of interrupts.
 */
void
rinq_call_sleep(int64 until)
{
	static uint32 wait_event = 0;
	int64		left = Max(until - rinq_clock_ms(), 1);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 (long) Min(left, RECHECK),
					 RINQ_WAIT_EVENT(wait_event, "RinqCallResponse"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Tell whether rinq_call_wait would return at once.
 */
bool
rinq_call_ended(RinqDatabase *db, uint32 index)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];

	return rinq_slot_state(slot) == RINQ_SLOT_DONE ||
		slot->deadline <= rinq_clock_ms() || db->incarnation != slot->incarnation;
}

/*
 * Wait until a call is answered or its deadline has passed, which is then
 * the result's outcome.
 */
void
rinq_call_wait(RinqDatabase *db, uint32 index, RinqResult *result)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];

	Assert(slot->deadline > 0);
	result->outcome = RINQ_OUTCOME_NONE;
	rinq_fields_init(&result->fields, rinq_result_kind(slot->op));
	while (rinq_slot_state(slot) != RINQ_SLOT_DONE)
	{
		if (slot->deadline <= rinq_clock_ms())
		{
			result->outcome = RINQ_OUTCOME_EXPIRED;
			return;
		}
		if (db->incarnation != slot->incarnation)
		{
			result->outcome = RINQ_OUTCOME_CONNECTION_LOST;
			return;
		}
		rinq_call_sleep(slot->deadline);
	}
	rinq_call_read_result(db, index, result);
}

/*
 * Find the result of a call that has one.
 */
void
rinq_call_read_result(RinqDatabase *db, uint32 index, RinqResult *result)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];

	Assert(rinq_slot_state(slot) == RINQ_SLOT_DONE && slot->owner == RINQ_MY_PROCNO);
	result->outcome = slot->outcome;
	rinq_slot_read(slot, rinq_result_kind(slot->op), &result->fields);
}

/*
 * Leave a call's slot to the peer; false when it was answered meanwhile, and
 * is still the caller's.
 */
bool
rinq_call_abandon(RinqDatabase *db, uint32 index)
{
	RinqSlot   *slot = &rinq_slots_of(db)->slot[index];
	uint32		serial = slot->serial;
	bool		abandoned;

	Assert(index < rinq_slots_of(db)->num_calls && slot->owner == RINQ_MY_PROCNO);
	HOLD_INTERRUPTS();
	abandoned = rinq_slot_move(slot, RINQ_SLOT_QUEUED, RINQ_SLOT_ABANDONED);
	if (abandoned)
		rinq_event_put(db, RINQ_EVENT_ABANDONED, index, serial);
	RESUME_INTERRUPTS();
	return abandoned;
}

/*
 * Give a call's slot back: free it when it is answered, leave it to the
 * peer when not.
 */
void
rinq_call_release(RinqDatabase *db, uint32 index)
{
	HOLD_INTERRUPTS();
	if (!rinq_call_abandon(db, index))
		rinq_slot_free(rinq_slots_of(db), index);
	RESUME_INTERRUPTS();
}
