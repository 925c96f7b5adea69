/*-------------------------------------------------------------------------
 *
 * pool.c
 *	  The executors of this database: starting them when requests wait,
 *	  noticing their end, making room for those of another role.
 *
 * An executor belongs to one role.  The pool grows while the oldest request
 * of a role has waited for longer than a handler usually runs, up to
 * rinq.command_workers in all; executors leave by themselves when idle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include <signal.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "peer/command/dispatch.h"
#include "peer/command/pool.h"
#include "peer/command/request_slots.h"
#include "peer/process.h"
#include "utils/memutils.h"

#define OVERTIME 5000			/* ms past its deadline a handler is put up
								 * with */
#define TERMINATION_DELAY 50	/* ms until this process has its own signal,
								 * if it gets one */
#define OVERTIME_CHECK 1000		/* ms */
#define GROW_AFTER 2			/* ms a request waits before the pool grows */
#define FIRST_RETRY_DELAY 100	/* ms */
#define LAST_RETRY_DELAY 5000	/* ms */
#define GIVE_UP_DELAY 1000		/* ms between tries after which what no caller
								 * waits for is dropped */
#define YIELD_CHECK 100			/* ms between looks at whether others still
								 * need room */
#define YIELD_WAIT 500			/* ms that others have to take a place that
								 * was left for them: they try twice */
#define MAX_ROLES 64			/* looked at in one turn */

/* a role whose executors fail to start; InvalidOid: none can be started */
typedef struct Failing
{
	Oid			role;
	int64		retry_at;
	int			delay;			/* 0: the entry is free */
} Failing;

static BackgroundWorkerHandle *handles[RINQ_MAX_EXECUTORS];

/* the executors as they were when they were read last; they go on meanwhile */
static RinqExecutorSlot seen[RINQ_MAX_EXECUTORS];

static Failing failing[MAX_ROLES];
static bool told_no_workers;
static int64 last_reap;
static int64 yield_after;		/* no further executor leaves for others
								 * before */

void
rinq_pool_init(void)
{
	memset(handles, 0, sizeof(handles));
	memset(failing, 0, sizeof(failing));
	told_no_workers = false;
	yield_after = 0;
}

static void
read_executors(void)
{
	LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
	memcpy(seen, rinq_peer.db->executors, sizeof(seen));
	LWLockRelease(rinq_peer.slots->request_lock);
}

/*
 * Tell an executor to end, if it is the one that was seen.  It has to take the lock
 * to end, so that the signal cannot reach another process.
 */
static void
end_executor(int index)
{
	RinqExecutorSlot *executor;

	Assert(index >= 0 && index < RINQ_MAX_EXECUTORS);
	executor = &rinq_peer.db->executors[index];
	LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
	if (executor->serial == seen[index].serial && executor->state == RINQ_EXECUTOR_BUSY)
	{
		Assert(executor->pid > 0);
		pg_atomic_write_u32(&executor->end_now, 1);
		kill(executor->pid, SIGTERM);
	}
	LWLockRelease(rinq_peer.slots->request_lock);
}

static Failing *
find_failing(Oid role)
{
	int			i;

	for (i = 0; i < MAX_ROLES; i++)
	{
		if (failing[i].delay > 0 && failing[i].role == role)
			return &failing[i];
	}
	return NULL;
}

/*
 * Postpone the next start of an executor after one that failed, for longer
 * each time.
 */
static void
postpone_executor_start(Oid role)
{
	Failing    *entry = find_failing(role);
	int			i;

	for (i = 0; entry == NULL && i < MAX_ROLES; i++)
	{
		if (failing[i].delay == 0)
			entry = &failing[i];
	}
	if (entry == NULL)
		entry = &failing[0];
	entry->role = role;
	entry->delay = rinq_backoff_next(entry->delay, FIRST_RETRY_DELAY, LAST_RETRY_DELAY);
	entry->retry_at = rinq_peer.now + entry->delay;
	if (OidIsValid(role) && entry->delay >= GIVE_UP_DELAY)
		rinq_dispatch_role_failed(role);
}

static void
start_worked(Oid role)
{
	Failing    *entry = find_failing(role);

	Assert(entry == NULL || entry->role == role);
	if (entry != NULL)
		entry->delay = 0;
}

/* Return when executors of this role may be started again; 0 is now. */
static int64
not_before(Oid role)
{
	Failing    *any = find_failing(InvalidOid);
	Failing    *this_role = find_failing(role);
	int64		at = 0;

	if (any != NULL)
		at = any->retry_at;
	if (this_role != NULL)
		at = Max(at, this_role->retry_at);
	return at > rinq_peer.now ? at : 0;
}

/*
 * Notice executors that have ended; one that ended before it got to run
 * could not say so itself.
 */
static void
reap_executors(void)
{
	RinqDatabase *db = rinq_peer.db;
	bool		failed = false;
	int			i;

	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		pid_t		pid;
		bool		ran;
		bool		left;
		Oid			role;

		if (handles[i] == NULL || GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
		if (db->executors[i].state != RINQ_EXECUTOR_FREE)
			db->executors[i].state = RINQ_EXECUTOR_FREE;
		ran = db->executors[i].ran;
		left = db->executors[i].leave;
		role = db->executors[i].role;
		LWLockRelease(rinq_peer.slots->request_lock);
		if (left)
			yield_after = rinq_peer.now + YIELD_WAIT;
		if (ran)
			start_worked(role);
		else if (!left)
		{
			postpone_executor_start(role);
			failed = true;
		}
	}
	if (failed)
	{
		rinq_peer_ask_for_reading();
		ConditionVariableBroadcast(&db->changed);
	}
}

/* start an executor in a free place of the pool */
static bool
start_executor(Oid role, int index)
{
	RinqExecutorSlot *executor;
	RinqWorkerArgs args = rinq_peer.args;
	MemoryContext old;
	bool		blocked;
	bool		ok;

	Assert(index >= 0 && index < RINQ_MAX_EXECUTORS && handles[index] == NULL);
	executor = &rinq_peer.db->executors[index];

	/* never into a database that a command wants to be empty */
	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	blocked = rinq_peer.db->oid != rinq_peer.args.dboid || rinq_peer.db->ddl_blocks > 0;
	if (!blocked)
	{
		LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
		Assert(executor->state == RINQ_EXECUTOR_FREE);
		executor->state = RINQ_EXECUTOR_STARTING;
		executor->role = role;
		executor->serial++;
		executor->leave = false;
		pg_atomic_write_u32(&executor->terminated, 0);
		pg_atomic_write_u32(&executor->end_now, 0);
		executor->ran = false;
		executor->request = RINQ_NO_SLOT;
		executor->pid = 0;
		executor->procno = RINQ_NO_PROC;
		LWLockRelease(rinq_peer.slots->request_lock);
	}
	LWLockRelease(rinq_shared->lock);
	if (blocked)
		return true;			/* not now, and no fault: its end wakes us */

	args.role = role;
	args.executor = index;
	args.serial = executor->serial;
	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = rinq_start_worker("rinq executor", "rinq_executor_main", &args, &handles[index]);
	MemoryContextSwitchTo(old);
	if (ok)
		return true;

	LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
	executor->state = RINQ_EXECUTOR_FREE;
	LWLockRelease(rinq_peer.slots->request_lock);
	handles[index] = NULL;
	return false;
}

static bool
is_executor_leaving(const RinqExecutorSlot *executor)
{
	return executor->leave || executor->state == RINQ_EXECUTOR_LEAVING;
}

/* Count the executors of a role that are there or coming, as seen. */
static int
count_of_role(Oid role)
{
	int			count = 0;
	int			i;

	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
		count += seen[i].state != RINQ_EXECUTOR_FREE && seen[i].role == role;
	return count;
}

/*
 * Choose an executor of another role that makes room: an idle one, else one of the
 * role that has the most, if that has more than this role would have.  -1 when there
 * is none, or one is on its way out already.
 */
static int
choose_victim(Oid role)
{
	int			mine = count_of_role(role);
	int			most = mine == 0 ? 0 : mine + 1;
	int			victim = -1;
	bool		idle = false;
	int			i;

	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		const RinqExecutorSlot *executor = &seen[i];

		if (executor->state == RINQ_EXECUTOR_FREE || executor->role == role)
			continue;
		if (is_executor_leaving(executor))
			return -1;
		if (executor->state == RINQ_EXECUTOR_IDLE)
		{
			victim = i;
			idle = true;
		}
		else if (!idle && count_of_role(executor->role) > most)
		{
			victim = i;
			most = count_of_role(executor->role);
		}
	}
	return victim;
}

/* ask an executor of another role to make room */
static void
make_room_for_role(Oid role)
{
	int			victim = choose_victim(role);
	RinqExecutorSlot *executor;
	int			procno = RINQ_NO_PROC;

	if (victim < 0)
		return;
	executor = &rinq_peer.db->executors[victim];
	LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
	if (executor->serial == seen[victim].serial && executor->state != RINQ_EXECUTOR_FREE)
	{
		executor->leave = true;
		procno = executor->procno;
	}
	LWLockRelease(rinq_peer.slots->request_lock);
	rinq_peer_wake_later(procno);
}

/*
 * Have an executor leave for a worker that cannot be started otherwise, one
 * after another: an idle one if possible, else one that is busy, as soon as
 * its handler has ended.  The next leaves when the place of the one before has
 * not been enough.  "keep" are left in any case.
 */
static void
yield_one(int keep)
{
	RinqDatabase *db = rinq_peer.db;
	int			victim = -1;
	int			procno = RINQ_NO_PROC;
	int			count = 0;
	bool		leaving = false;
	int			i;

	if (rinq_peer.now < yield_after)
		return;
	LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		RinqExecutorSlot *executor = &db->executors[i];

		if (executor->state == RINQ_EXECUTOR_LEAVING || (executor->leave && handles[i] != NULL))
			leaving = true;
		if (executor->state == RINQ_EXECUTOR_FREE)
			continue;
		count++;
		if (victim < 0 || executor->state == RINQ_EXECUTOR_IDLE)
			victim = i;
	}
	if (victim >= 0 && !leaving && count > keep)
	{
		db->executors[victim].leave = true;
		procno = db->executors[victim].procno;
	}
	LWLockRelease(rinq_peer.slots->request_lock);
	rinq_peer_wake_later(procno);
}

/*
 * Make room where the server has no background workers left.  Returns whether
 * this pool may grow.
 */
static bool
yield_executors(int64 *next)
{
	bool		to_any = rinq_workers_are_short(RINQ_SHORT_OF_ANY);

	if (!to_any && !rinq_workers_are_short(RINQ_SHORT_OF_EXECUTORS))
		return true;
	yield_one(to_any ? 0 : 1);
	*next = rinq_clock_earlier(*next, rinq_peer.now + YIELD_CHECK);
	return !to_any;
}

/*
 * Ask for room for a database without any executor, of its own outbox worker
 * too: it does not wait for the others' work to end.
 */
static void
ask_for_the_only_one(int total)
{
	if (total > 0)
		return;
	rinq_workers_short(RINQ_SHORT_OF_EXECUTORS);
	rinq_peer.db->outbox_yields = true;
	rinq_wake_proc(rinq_peer.db->outbox.procno);
}

/*
 * Tell whether the requests of this role will be taken soon.  When they have
 * waited for long, an idle executor is woken: it may have found nothing that
 * it was allowed to take then.
 */
static bool
is_role_served(const RinqDemand * demand, int *total, int *index)
{
	int			of_role = 0;
	bool		coming = false;
	bool		fresh = rinq_peer.now - demand->oldest < GROW_AFTER;
	int			idle = RINQ_NO_PROC;
	int			i;

	*total = 0;
	*index = -1;
	for (i = RINQ_MAX_EXECUTORS - 1; i >= 0; i--)
	{
		const RinqExecutorSlot *executor = &seen[i];

		if (executor->state == RINQ_EXECUTOR_FREE)
		{
			/* one that could not connect tells why to wait, once it is reaped */
			if (handles[i] == NULL)
				*index = i;
			else if (executor->role == demand->role && !executor->ran && !executor->leave)
				coming = true;
			continue;
		}
		(*total)++;
		if (executor->role != demand->role || is_executor_leaving(executor))
			continue;
		of_role++;
		if (executor->state == RINQ_EXECUTOR_IDLE)
			idle = executor->procno;
		if (executor->state != RINQ_EXECUTOR_BUSY)
			coming = true;
	}
	if (!fresh)
		rinq_peer_wake_later(idle);
	return coming || (of_role > 0 && fresh);
}

/* Return when the handler of a request in a slot has to have ended; 0 is never. */
static int64
find_end_of_time(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];

	return rinq_clock_earlier(slot->deadline, (int64) pg_atomic_read_u64(&slot->limit));
}

/*
 * End executors whose handler goes on long after its deadline or its listener's
 * limit, because it caught the cancellation.  Returns when to look again, or 0.
 */
static int64
end_overtime(void)
{
	static int64 next_check = 0;
	int			i;

	if (!rinq_request_slots_busy())
		return 0;
	if (rinq_peer.now < next_check)
		return next_check;
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		int64		deadline = 0;

		if (seen[i].state == RINQ_EXECUTOR_BUSY && seen[i].request < rinq_peer.slots->num_slots)
			deadline = find_end_of_time(seen[i].request);
		if (deadline != 0 && rinq_peer.now - OVERTIME > deadline)
			end_executor(i);
	}
	next_check = rinq_peer.now + OVERTIME_CHECK;
	return next_check;
}

/*
 * End executors that were terminated while they were busy.  When the
 * server shuts down, that comes to this process too, and they may finish; when
 * it does not come, only they were meant.  Returns when to look again, or 0.
 */
static int64
end_terminated(void)
{
	static int64 since = 0;
	int			i;

	if (pg_atomic_read_u32(&rinq_peer.db->executor_terminated) == 0)
		return 0;
	if (since == 0)
		since = rinq_peer.now;
	if (rinq_peer.now - since < TERMINATION_DELAY)
		return since + TERMINATION_DELAY;
	since = 0;
	(void) pg_atomic_exchange_u32(&rinq_peer.db->executor_terminated, 0);
	read_executors();
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		if (seen[i].state == RINQ_EXECUTOR_BUSY &&
			pg_atomic_read_u32(&seen[i].terminated) != 0)
			end_executor(i);
	}
	return 0;
}

/*
 * Start executors where requests wait for them.  Returns when to look again,
 * or 0.
 */
int64
rinq_pool_manage(void)
{
	RinqDemand	demand[MAX_ROLES];
	int			count;
	int			i;
	int64		next;

	if (rinq_peer.now != last_reap)
		reap_executors();
	last_reap = rinq_peer.now;
	read_executors();
	next = rinq_clock_earlier(end_overtime(), end_terminated());
	if (!yield_executors(&next))
		return next;
	count = rinq_request_slots_demand(demand, MAX_ROLES);
	for (i = 0; i < count; i++)
	{
		int64		wait_until = not_before(demand[i].role);
		int			total;
		int			index;

		if (wait_until != 0)
		{
			next = rinq_clock_earlier(next, wait_until);
			continue;
		}
		if (is_role_served(&demand[i], &total, &index))
		{
			next = rinq_clock_earlier(next, rinq_peer.now + GROW_AFTER);
			continue;
		}
		if (total >= rinq_command_workers)
		{
			make_room_for_role(demand[i].role);
			read_executors();
			continue;
		}
		if (index < 0)
			continue;			/* an ended one is yet to be reaped */
		if (total > 0 && rinq_workers_are_short(RINQ_SHORT_OF_EXECUTORS))
			continue;			/* the place is another database's */
		if (start_executor(demand[i].role, index))
		{
			start_worked(InvalidOid);
			read_executors();
			continue;
		}
		postpone_executor_start(InvalidOid);
		ask_for_the_only_one(total);
		if (!told_no_workers)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("rinq cannot start an executor for database \"%s\"",
							NameStr(rinq_peer.db->name)),
					 errdetail("Requests wait until one of the running executors is free."),
					 errhint("Increase \"max_worker_processes\".")));
		told_no_workers = true;
		return rinq_clock_earlier(next, not_before(InvalidOid));
	}
	return next;
}

/*
 * End all executors, because this peer ends: idle ones leave, and handlers
 * that still run are rolled back, since the broker is going to give their
 * requests to another peer.
 */
void
rinq_pool_end(void)
{
	int			i;

	read_executors();
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		RinqExecutorSlot *executor = &rinq_peer.db->executors[i];
		int			procno = RINQ_NO_PROC;

		if (seen[i].state == RINQ_EXECUTOR_FREE)
			continue;
		if (seen[i].state == RINQ_EXECUTOR_BUSY)
			end_executor(i);
		LWLockAcquire(rinq_peer.slots->request_lock, LW_EXCLUSIVE);
		if (executor->state != RINQ_EXECUTOR_FREE)
		{
			executor->leave = true;
			pg_atomic_write_u32(&executor->end_now, 1);
			procno = executor->procno;
		}
		LWLockRelease(rinq_peer.slots->request_lock);
		rinq_wake_proc(procno);
	}
}
