/*-------------------------------------------------------------------------
 *
 * command_worker.c
 *	  The worker that runs handler functions: one request at a time, each in a
 *	  transaction of its own, in a session that belongs to the handler's role.
 *
 * Executors take requests from the dispatch queue of their database
 * (ipc/slots.h), never talk to the broker, and leave when there has been
 * nothing to do for a while.  However an executor ends, it gives the request
 * it was running back to the peer.  A transaction that failed only for its
 * company, by a serialization failure or a deadlock, is tried again.  What is
 * done with the result is the peer's business; what is called, and how, is
 * handler.c's; how its value or error becomes a result is response.c's; what
 * is written down about requests is inbox.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "backend/commit_queue.h"
#include "backend/request_context.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/slots.h"
#include "ipc/worker.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "protocol/order_key.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/outcome_handler.h"
#include "worker/cleanup.h"
#include "worker/handler.h"
#include "worker/inbox.h"
#include "worker/inbox_due.h"
#include "worker/inbox_failed.h"
#include "worker/inbox_rows.h"
#include "worker/log.h"
#include "worker/notify_bridge.h"
#include "worker/purge.h"
#include "worker/response.h"
#include "worker/time_limit.h"

/* ms without work after which the last statistics are written */
#define STATS_DELAY 500

/* transactions that a request without a deadline gets, and pauses between in ms */
#define MAX_TRIES 10
#define FIRST_PAUSE 5
#define LONGEST_PAUSE 1000

/* kind of advisory locks; those of SQL functions are 1 and 2 */
#define TURN_LOCK 21

static RinqWorkerArgs args;
static RinqDatabase *database;
static RinqSlots *slots;
static RinqExecutorSlot *me;

/* a request is being run, and so this process does not end when it is told to */
static volatile sig_atomic_t busy = false;
static volatile sig_atomic_t end_when_done = false;

/*
 * Handle SIGTERM. The server shuts down, and what runs may be finished within
 * the peer's grace period; or this very process is to end, as the peer finds
 * out, and then the peer signals again when it is time.
 */
static void
terminate_executor(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!busy || pg_atomic_read_u32(&me->end_now) != 0 || database->peer.procno == RINQ_NO_PROC)
		die(RINQ_SIGNAL_ARGS);
	else
	{
		end_when_done = true;
		pg_atomic_write_u32(&me->terminated, 1);

		/* an exchange, since it has a barrier: who sees this sees the other */
		(void) pg_atomic_exchange_u32(&database->executor_terminated, 1);
		rinq_wake_peer(database);
	}
	errno = save_errno;
}

/* Tell whether it is a request whose caller waits for nothing. */
static bool
is_command(const RinqSlot *slot)
{
	return slot->work == RINQ_WORK_REQUEST && !slot->wants_response;
}

/* Tell whether it is a notification whose subscription keeps it when it fails. */
static bool
is_kept_notification(const RinqSlot *slot)
{
	return slot->work == RINQ_WORK_NOTIFICATION && (slot->from_inbox || slot->retry.attempts > 0);
}

/*
 * Give back what this process was running: it ends in the middle of it, and
 * its transaction is already rolled back.  A request whose handler has used up
 * its time, and did not end when it was cancelled, is answered instead, if a
 * caller waits: it would only do the same again.
 */
static void
give_back(int code, Datum arg)
{
	uint32		index = me->request;
	RinqSlot   *slot;

	rinq_purge_leave(database);
	if (me->serial != args.serial || me->state != RINQ_EXECUTOR_BUSY ||
		index == RINQ_NO_SLOT)
		return;
	Assert(index >= slots->num_calls && index < slots->num_slots);
	slot = &slots->slot[index];
	me->request = RINQ_NO_SLOT;
	rinq_slot_clear(slot);
	slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	if (rinq_limit_is_overrun())
	{
		rinq_log_limit(NULL);
		if (slot->wants_response || (slot->work != RINQ_WORK_REQUEST && !is_kept_notification(slot)))
			rinq_result_plainly(slot, rinq_limit_text());
	}
	if (rinq_slot_move(slot, RINQ_SLOT_RUNNING, RINQ_SLOT_DONE))
		rinq_event_put(database, RINQ_EVENT_RESULT, index, slot->serial);
	else
		rinq_slot_free(slots, index);
}

/* run after the process has left the database, for those who wait for that */
static void
executor_gone(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	if (me->serial == args.serial)
	{
		me->state = RINQ_EXECUTOR_FREE;
		me->procno = RINQ_NO_PROC;
		me->pid = 0;
	}
	LWLockRelease(slots->request_lock);
	rinq_worker_left(database);
}

/* take possession of the slot this process was started for */
static bool
attach_executor(void)
{
	bool		wanted;

	database = rinq_worker_attach(&args);
	slots = rinq_slots_of(database);
	if (args.executor < 0 || args.executor >= RINQ_MAX_EXECUTORS)
		elog(ERROR, "rinq executor started with bad arguments");
	me = &database->executors[args.executor];

	/* a command that waits for the database to be empty sees us, or we it */
	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	wanted = database->oid == args.dboid && me->serial == args.serial &&
		me->state == RINQ_EXECUTOR_STARTING && !me->leave &&
		database->ddl_blocks == 0;
	if (wanted)
	{
		me->pid = MyProcPid;
		me->procno = RINQ_MY_PROCNO;
	}
	else if (me->serial == args.serial && me->state == RINQ_EXECUTOR_STARTING)
		me->state = RINQ_EXECUTOR_FREE;
	LWLockRelease(slots->request_lock);
	LWLockRelease(rinq_shared->lock);
	return wanted;
}

/* Raise an error if the peer has found that the handler cannot be run. */
static void
refuse_request(const RinqFields *fields)
{
	RinqBytes	refusal;

	if (fields->kind == RINQ_KIND_RESPONSE)
		return;
	refusal = rinq_get_bytes(fields, rinq_common_fields_of(fields)->refusal);
	if (refusal.data != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the handler cannot be run"),
				 errdetail_log("%s", pnstrdup(refusal.data, refusal.len))));
}

/*
 * Wait until no other request with the same value in its payload is handled,
 * where they are handled in order.  The peer sees to that, but for commands that
 * it knows nothing of but that they are due in the inbox.
 */
static void
take_turn(const RinqFields *fields)
{
	RinqBytes	path;
	uint64		key;
	LOCKTAG		tag;

	if (fields->kind != RINQ_KIND_REQUEST)
		return;
	path = rinq_get_bytes(fields, RINQ_REQUEST_ORDER_BY);
	if (path.len == 0 || RecoveryInProgress())
		return;
	key = rinq_order_key(rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD), path);
	if (key == 0)
		return;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, TURN_LOCK);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Tell whether a delivery, or the peer, may bring something again that is kept
 * here already, and does.
 */
static bool
is_kept_already(const RinqSlot *slot, const RinqFields *fields)
{
	return (is_command(slot) || is_kept_notification(slot)) && !slot->from_inbox && !RecoveryInProgress() &&
		(slot->redelivered || slot->deduplicate) && rinq_inbox_has(slot, fields);
}

/*
 * Have the request handled; true when it was handled before, and this is its
 * response again, or when it is not to be handled here.
 */
static bool
call_handler(RinqSlot *slot, const RinqFields *fields, RinqBytes *payload)
{
	if (slot->work == RINQ_WORK_NOTIFICATION &&
		rinq_get_bytes(fields, RINQ_NOTIFICATION_CHANNEL).data != NULL)
	{
		rinq_notify_bridge(fields);
		*payload = rinq_bytes(NULL, 0);
		return false;
	}
	if (rinq_is_stored_outcome(slot, fields))
	{
		rinq_outcome_handle(fields);
		*payload = rinq_bytes(NULL, 0);
		return false;
	}
	*payload = rinq_bytes("", 0);
	if (slot->from_inbox && !rinq_inbox_claim(fields))
		return true;
	refuse_request(fields);
	take_turn(fields);
	if (is_kept_already(slot, fields))
	{
		/* who wrote it down may not have said when it is due */
		slot->due = rinq_clock_ms();
		return true;
	}
	if (slot->deduplicate && rinq_inbox_was_handled(slot, fields, payload))
		return true;
	*payload = rinq_handler_call(slot->work, fields, slot->handler_owner, slot->deadline,
								 slot->wants_response);
	if (slot->deduplicate)
		rinq_inbox_handled(slot, fields, *payload);
	return false;
}

/*
 * Begin the transaction of a handler.  On a standby, where PostgreSQL has no
 * serializable ones, it has the next lower isolation instead.
 */
static void
begin_handler(void)
{
	StartTransactionCommand();
	if (XactIsoLevel == XACT_SERIALIZABLE && RecoveryInProgress())
		XactIsoLevel = XACT_REPEATABLE_READ;
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Run the handler in a transaction.  The result is in the slot before the
 * commit, so that nothing can fail after it: without room for the result,
 * nothing is committed.  The handler's settings hold until the end, for
 * triggers that fire at the commit.
 */
static void
run_handler(RinqSlot *slot, const RinqFields *fields)
{
	RinqBytes	payload;
	bool		was_handled;

	Assert(!IsTransactionState());
	rinq_handler_entered = false;
	begin_handler();
	rinq_limit_arm(slot);
	was_handled = call_handler(slot, fields, &payload);
	if (!rinq_result_success(slot, payload))
	{
		if (!was_handled)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg_internal(RINQ_NO_ROOM_FOR_RESPONSE)));

		/* an error would be a lie; it comes again when there may be room */
		slot->outcome = RINQ_OUTCOME_GIVEN_BACK;
	}
	PopActiveSnapshot();

	/* what is acknowledged, or not kept any more, does not come again */
	if (slot->work == RINQ_WORK_REQUEST || is_kept_notification(slot))
		rinq_commit_durably();
	CommitTransactionCommand();
	rinq_limit_disarm();
	rinq_limit_end();
	if (slot->deduplicate && !was_handled)
		rinq_purge_count(database, slot->wants_response ? payload.len : 0);
}

/*
 * Take the request out of the slot, whose memory is for others until there is
 * a result.
 */
static void
take_request(RinqSlot *slot, RinqFields *fields)
{
	Assert(slot->work <= RINQ_WORK_NOTIFICATION);
	rinq_slot_read(slot, rinq_work_kind(slot->work), fields);
	(void) rinq_fields_copy(fields);
	rinq_slot_clear(slot);
}

/*
 * Tell whether the transaction was refused to write since it began on a standby,
 * which is none any more.
 */
static bool
was_promoted(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION &&
		TransactionStartedDuringRecovery() && !RecoveryInProgress();
}

/*
 * Tell whether the transaction failed for its company only, or its age, and
 * there is time for another.
 */
static bool
may_retry(const RinqSlot *slot, const ErrorData *error, int tries)
{
	if (error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED && !was_promoted(error))
		return false;
	if (rinq_limit_passed())
		return false;
	if (slot->deadline == 0)
		return tries < MAX_TRIES;
	return rinq_clock_ms() < slot->deadline;
}

/*
 * Wait before a transaction is tried again: longer each time, and not the same
 * time as the transaction that it collided with.
 */
static void
pause_before_retry(int64 end, int tries)
{
	static uint32 wait_event = 0;
	double		longest = rinq_backoff_after(tries + 1, FIRST_PAUSE, LONGEST_PAUSE);
	int64		now = rinq_clock_ms();
	int64		until = now + 1 + (int64) (longest * (0.5 + rinq_random_fraction() / 2));

	until = rinq_clock_earlier(until, end);
	for (; now < until; now = rinq_clock_ms())
	{
		ResetLatch(MyLatch);
		QueryCancelPending = false; /* there is no statement to cancel */
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(until - now, LONGEST_PAUSE),
						 RINQ_WAIT_EVENT(wait_event, "RinqHandlerRetry"));
	}
}

/*
 * Run the handler once; false when its transaction is to be tried again.
 */
static bool
try_request(RinqSlot *slot, const RinqFields *fields, int tries, MemoryContext context)
{
	ErrorData  *volatile error = NULL;
	volatile bool retry = false;
	volatile bool on_standby = false;

	PG_TRY();
	{
		run_handler(slot, fields);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		on_standby = TransactionStartedDuringRecovery();
		retry = may_retry(slot, error, tries);
		if (!retry)
			rinq_log_failed_request(database, slot, error);
		rinq_end_failed_transaction(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (error == NULL)
		return true;
	if (!retry && rinq_inbox_keeps(slot, fields, error))
		rinq_inbox_failed(database, slot, fields, error, on_standby, context);
	else if (!retry && !rinq_inbox_call_again(database, slot, fields, error))
		rinq_result_error(slot, error, context);
	if (!retry && rinq_is_stored_outcome(slot, fields))
		rinq_outcome_failed(slot, fields, error, context);
	FreeErrorData(error);
	return !retry;
}

/* Set what the handler's own messages have in common with its request. */
static void
inherit_request(const RinqFields *fields, int64 deadline)
{
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	static uint64 last_serial = 0;

	Assert(rinq_inherited.trace.data == NULL);
	rinq_inherited.serial = ++last_serial;
	rinq_inherited.trace = rinq_get_bytes(fields, common->trace);
	rinq_inherited.source = rinq_get_bytes(fields, common->source);
	rinq_inherited.span_context = rinq_get_bytes(fields, common->span);
	rinq_inherited.traceparent = rinq_get_bytes(fields, common->traceparent);
	rinq_inherited.tracestate = rinq_get_bytes(fields, common->tracestate);
	rinq_inherited.deadline = deadline;
}

/*
 * Add the request to the context of an error, for the log alone: of an error,
 * the message is all that is sent.
 */
static void
tell_about_request(void *arg)
{
	const RinqFields *fields = arg;
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	char		id[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];
	char		namespace[RINQ_DISPLAY_LEN];
	char		command[RINQ_DISPLAY_LEN];

	if (rinq_get_bytes(fields, common->namespace).data == NULL)
	{
		errcontext("outcome of rinq durable call %s",
				   rinq_text_for_display(rinq_get_bytes(fields, common->id), id));
		return;
	}
	errcontext("rinq request %s to %s::%s, trace id %s",
			   rinq_text_for_display(rinq_get_bytes(fields, common->id), id),
			   rinq_text_for_display(rinq_get_bytes(fields, common->namespace), namespace),
			   rinq_text_for_display(rinq_get_bytes(fields, common->subject), command),
			   rinq_text_for_display(rinq_get_bytes(fields, common->trace), trace));
}

/* show in pg_stat_activity, and in log lines, what this process is at */
static void
show_activity(const RinqFields *fields)
{
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	static char activity[2 * RINQ_DISPLAY_LEN + 16];
	char		namespace[RINQ_DISPLAY_LEN];
	char		command[RINQ_DISPLAY_LEN];

	if (rinq_get_bytes(fields, common->namespace).data == NULL)
		snprintf(activity, sizeof(activity), "rinq: outcome of %s",
				 rinq_text_for_display(rinq_get_bytes(fields, common->id), command));
	else
		snprintf(activity, sizeof(activity), "rinq: %s::%s",
				 rinq_text_for_display(rinq_get_bytes(fields, common->namespace), namespace),
				 rinq_text_for_display(rinq_get_bytes(fields, common->subject), command));
	debug_query_string = activity;
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
}

/* find a result for the request in a slot */
static void
respond_to_request(uint32 index, MemoryContext context)
{
	RinqSlot   *slot = &slots->slot[index];
	RinqFields	fields;
	ErrorContextCallback about;
	int			tries;

	take_request(slot, &fields);
	slot->due = 0;
	if (slot->from_inbox && !rinq_inbox_take(database, index, &fields, context))
		return;
	show_activity(&fields);
	if (slot->work == RINQ_WORK_REQUEST && slot->deadline != 0 &&
		rinq_clock_ms() >= slot->deadline)
	{
		slot->outcome = RINQ_OUTCOME_EXPIRED;
		return;
	}
	rinq_limit_begin(slot);
	inherit_request(&fields, rinq_limit_moment(slot));
	about.callback = tell_about_request;
	about.arg = &fields;
	about.previous = error_context_stack;
	error_context_stack = &about;
	if (rinq_is_stored_outcome(slot, &fields) ? !rinq_outcome_give_up(slot, &fields, context) :
		!rinq_inbox_give_up(database, slot, &fields, context))
	{
		for (tries = 1; !try_request(slot, &fields, tries, context); tries++)
		{
			rinq_cleanup_session();
			MemoryContextSwitchTo(context);
			pause_before_retry(rinq_limit_moment(slot), tries);
		}
	}
	error_context_stack = about.previous;
	rinq_limit_end();
	memset(&rinq_inherited, 0, sizeof(rinq_inherited));
}

/*
 * Handle a request, and get ready for the next one; false when this process
 * cannot have another one.
 */
static bool
run_request(uint32 index, MemoryContext context)
{
	RinqSlot   *slot = &slots->slot[index];
	MemoryContext old = MemoryContextSwitchTo(context);

	Assert(!IsTransactionState() && InterruptHoldoffCount == 0);
	Assert(me->state == RINQ_EXECUTOR_BUSY && me->request == index && slot->owner == RINQ_MY_PROCNO);
	respond_to_request(index, context);
	debug_query_string = NULL;

	/* hand the result over; when the peer is gone, it has no use for it */
	HOLD_INTERRUPTS();
	me->request = RINQ_NO_SLOT;
	if (rinq_slot_move(slot, RINQ_SLOT_RUNNING, RINQ_SLOT_DONE))
		rinq_event_put(database, RINQ_EVENT_RESULT, index, slot->serial);
	else
		rinq_slot_free(slots, index);
	RESUME_INTERRUPTS();

	rinq_cleanup_session();
	MemoryContextSwitchTo(context);
	(void) rinq_purge(database, context);
	pgstat_report_stat(false);	/* by itself at most once a second */
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	return rinq_cleanup_is_complete();
}

/*
 * Tell whether this executor should end now, and is not given work any more.
 */
static bool
may_leave(bool idle_for_long)
{
	bool		leave;

	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	leave = me->leave || database->incarnation != args.incarnation ||
		(idle_for_long && me->state == RINQ_EXECUTOR_IDLE);
	if (leave)
		me->state = RINQ_EXECUTOR_LEAVING;
	LWLockRelease(slots->request_lock);
	return leave;
}

void
rinq_executor_main(Datum arg)
{
	MemoryContext context;
	uint32		wait_event = 0;
	bool		idle_for_long = false;
	bool		stats_pending = false;
	bool		timed_out;

	if (!attach_executor())
	{
		rinq_worker_left(database);
		proc_exit(0);
	}
	on_shmem_exit(executor_gone, (Datum) 0);
	before_shmem_exit(give_back, (Datum) 0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, terminate_executor);
	BackgroundWorkerUnblockSignals();

	rinq_worker_connect(&args, args.role, RINQ_CONNECT_AS_ANY_ROLE);
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	me->ran = true;
	LWLockRelease(slots->request_lock);
	(void) rinq_dsa();			/* attached where an error does no harm */
	rinq_handler_init();
	rinq_limit_init();
	rinq_cleanup_init();
	context = AllocSetContextCreate(TopMemoryContext, "rinq request",
									ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		uint32		index;

		ResetLatch(MyLatch);
		QueryCancelPending = false; /* the cancellation was for a request that
									 * is over */
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			rinq_cleanup_configured();
		}
		if (end_when_done || may_leave(idle_for_long))
			proc_exit(0);

		busy = true;
		index = rinq_request_take(database, me);
		if (index != RINQ_NO_SLOT)
		{
			idle_for_long = false;
			stats_pending = true;
			if (!run_request(index, context))
				proc_exit(0);
			busy = false;
			continue;
		}
		busy = false;
		if (end_when_done || rinq_purge(database, context))
			continue;
		pgstat_report_activity(STATE_IDLE, NULL);
		timed_out = (WaitLatch(MyLatch,
							   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   stats_pending ? STATS_DELAY : rinq_executor_idle_timeout,
							   RINQ_WAIT_EVENT(wait_event, "RinqExecutorMain"))
					 & WL_TIMEOUT) != 0;
		if (timed_out && stats_pending)
		{
			pgstat_report_stat(true);
			stats_pending = false;
		}
		else
			idle_for_long = timed_out;
	}
}
