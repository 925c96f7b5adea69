/*-------------------------------------------------------------------------
 *
 * outbox_worker.c
 *	  The worker that reads and removes rows of the outbox for the peer.
 *
 * It does what chunks in its queue tell it, each in a short transaction, and
 * waits outside of transactions; it knows nothing of the broker.  The peer
 * starts it when there is something to do, and it leaves when there has been
 * nothing for a while, and no space is left to give back.  Whatever it had not
 * finished when it ends, the peer asks for again.
 *
 * It waits for no other process: what it cannot do now, because a table is
 * locked or no memory is free for a report, it tries again a little later, and
 * does other things meanwhile.  Answers that need no more room than the order
 * go back in its chunk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "ipc/slots.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "worker/durable_responses.h"
#include "worker/outbox_fetch.h"
#include "worker/outbox_release.h"
#include "worker/outbox_scan.h"
#include "worker/outbox_transaction.h"
#include "worker/purge.h"

#define FIRST_ROTATE_DELAY 100	/* ms between looks at the tables */
#define FILLED_ROTATE_DELAY 1000	/* at most, while messages are on their
									 * way */
#define LAST_ROTATE_DELAY 5000	/* at most, while one is in use */
#define IDLE_MOMENT 2000		/* ms without an order: a moment to give back
								 * what little is left */
#define RETRY_DELAY 50			/* ms until something is tried again */

#define database (rinq_outbox_worker.db)
#define queue (rinq_outbox_worker.queue)
#define args (rinq_outbox_worker.args)

/* the order that is carried out */
static dsa_pointer current = InvalidDsaPointer;

/* orders about durable calls, which neither wait for the outbox nor hold it up */
static RinqChunkList call_orders = {InvalidDsaPointer, InvalidDsaPointer};

/* when the tables are looked at again: the delay grows while one cannot be truncated */
static int64 next_rotation;
static int	rotate_delay = FIRST_ROTATE_DELAY;
static int64 idle_since;		/* no order was carried out */

/* run after the process has left the database, for those who wait for that */
static void
worker_gone(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (database->outbox.pid == MyProcPid)
	{
		if (code != 0 || rinq_release_pending())
			pg_atomic_write_u64(&database->outbox_mended_at, 0);
		database->outbox.state = RINQ_WORKER_NONE;
		database->outbox.procno = RINQ_NO_PROC;
	}
	LWLockRelease(rinq_shared->lock);
	rinq_worker_left(database);
}

static bool
announce_outbox_worker(void)
{
	bool		wanted;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	wanted = database->oid == args.dboid &&
		database->outbox.state == RINQ_WORKER_STARTING &&
		database->incarnation == args.incarnation && database->ddl_blocks == 0;
	if (database->oid == args.dboid && database->outbox.state == RINQ_WORKER_STARTING)
	{
		database->outbox.pid = MyProcPid;
		database->outbox.procno = RINQ_MY_PROCNO;
		if (wanted)
			database->outbox.state = RINQ_WORKER_RUNNING;
	}
	LWLockRelease(rinq_shared->lock);
	return wanted;
}

/*
 * Forget what this process was told and has not done, since an error or a
 * signal ends it; so that it uses no memory.
 */
static void
forget_orders(int code, Datum arg)
{
	rinq_chunk_free(current);
	current = InvalidDsaPointer;
	rinq_purge_leave(database);
	rinq_chunk_free(call_orders.first);
	call_orders.first = call_orders.last = InvalidDsaPointer;
	rinq_fetch_forget();
	rinq_release_forget();
	rinq_scan_forget();
}

/* ---------------- space ---------------- */

static RinqRotation
rotate_outbox_tables(bool idle)
{
	RinqRotation result;

	if (!rinq_outbox_begin("rinq: tidying the outbox", AccessShareLock))
		return RINQ_ROTATION_BLOCKED;
	rinq_outbox_snapshot();
	result = rinq_outbox_rotate(database, rinq_outbox_worker.schema,
								&rinq_outbox_worker.tables, idle);
	rinq_outbox_end();
	return result;
}

/* Return when the tables are looked at again, if rows were deleted. */
static int64
next_tidy_time(void)
{
	if (rinq_outbox_worker.rotation_wanted)
		return next_rotation;
	return Max(next_rotation, idle_since + Min(IDLE_MOMENT, rinq_executor_idle_timeout));
}

/*
 * Give space back, as far as the tables are not in use.  At an idle moment that is
 * all there is but a little, and then it is done with until rows are deleted
 * again.
 */
static void
tidy_outbox(void)
{
	bool		idle = database->outbox_yields ||
		rinq_clock_ms() >= idle_since + Min(IDLE_MOMENT, rinq_executor_idle_timeout);
	RinqRotation result;

	MemoryContextSwitchTo(rinq_outbox_worker.context);
	result = rotate_outbox_tables(idle);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(rinq_outbox_worker.context);
	if (idle && result != RINQ_ROTATION_BLOCKED)
	{
		rinq_outbox_worker.rotation_wanted = false;
		rinq_outbox_worker.tidy_wanted = false;
		queue->untidy = false;
	}
	else if (result == RINQ_ROTATION_DONE)
		rinq_outbox_worker.rotation_wanted = false;
	if (result == RINQ_ROTATION_DONE)
		rotate_delay = FIRST_ROTATE_DELAY;
	else
		rotate_delay = Min(rotate_delay * 2,
						   result == RINQ_ROTATION_FILLED ? FILLED_ROTATE_DELAY : LAST_ROTATE_DELAY);
	next_rotation = rinq_clock_ms() + rotate_delay;
}

/*
 * Give space back while there are orders, too: a stream without a pause would
 * else fill the disk.  But not during a scan, which begins again when a table that
 * it has rows of was truncated.
 */
static void
tidy_between_orders(void)
{
	if (rinq_outbox_worker.rotation_wanted && !rinq_scan_runs() && rinq_clock_ms() >= next_rotation)
		tidy_outbox();
}

/*
 * Say whether this process, which has nothing else to do, may leave: not before
 * the space is given back, unless another process needs its place.
 */
static bool
may_worker_leave(void)
{
	if (database->outbox_yields)
	{
		if (rinq_outbox_worker.tidy_wanted)
			tidy_outbox();
		return true;
	}
	if (rinq_outbox_worker.tidy_wanted && rinq_clock_ms() >= next_tidy_time())
		tidy_outbox();
	return !rinq_outbox_worker.tidy_wanted && !rinq_release_pending() &&
		rinq_clock_ms() >= idle_since + rinq_executor_idle_timeout;
}

/* ---------------- orders ---------------- */

/* Delete a piece of what was recorded long ago; the peer learns when to have the next deleted. */
static void
purge_records(void)
{
	pgstat_report_activity(STATE_RUNNING, "rinq: deleting old records");
	rinq_purge_ordered(database, rinq_outbox_worker.context);
	pgstat_report_stat(false);
}

/* remove rows; what is not there, or was removed, is reported, and so is what is left */
static bool
remove_rows(RinqChunk *chunk)
{
	RinqOutboxItem *items = rinq_chunk_items(chunk, sizeof(RinqOutboxItem));
	RinqOutboxRowRef *refs;
	Size		removed = 0;
	uint32		i;

	if (!rinq_outbox_begin("rinq: removing sent messages", RowExclusiveLock))
		return false;
	rinq_outbox_snapshot();
	refs = rinq_outbox_row_refs(rinq_outbox_worker.context, items, chunk->count);
	rinq_outbox_remove(&rinq_outbox_worker.tables, refs, chunk->count);
	rinq_outbox_end();
	for (i = 0; i < chunk->count; i++)
	{
		items[i] = refs[i].item;
		items[i].postponed = refs[i].found;
		removed += refs[i].found ? 0 : 1;
		if (!refs[i].found)
			rinq_release_removed(&items[i].id);
	}
	rinq_outbox_removed(removed);
	return true;
}

/* set rows aside that the broker did not take; the same goes for them */
static bool
set_failed_aside(RinqChunk *chunk)
{
	RinqOutboxFailed *failed = rinq_chunk_items(chunk, sizeof(RinqOutboxFailed));
	RinqOutboxItem *items = (RinqOutboxItem *) failed;
	Size		moved = 0;
	uint32		i;

	if (!rinq_outbox_begin("rinq: setting messages aside", RowExclusiveLock))
		return false;
	rinq_outbox_snapshot();
	for (i = 0; i < chunk->count; i++)
	{
		RinqOutboxRowRef ref;

		memset(&ref, 0, sizeof(ref));
		ref.item = failed[i].item;
		ref.item.postponed =
			!rinq_outbox_set_aside(&rinq_outbox_worker.tables, rinq_outbox_worker.schema, &ref,
								   failed[i].attempts, failed[i].error);
		if (!ref.item.postponed)
		{
			moved++;
			rinq_outbox_log_aside(failed[i].attempts, failed[i].error);
		}

		/* an item is smaller than what it takes the place of */
		items[i] = ref.item;
	}
	rinq_outbox_end();
	rinq_outbox_removed(moved);
	return true;
}

static bool
check_scan(dsa_pointer *order)
{
	List	   *nameless;

	if (!rinq_outbox_begin("rinq: counting messages", AccessShareLock))
		return false;
	nameless = rinq_scan_check(order);
	rinq_outbox_end();
	if (nameless != NIL)
		(void) rinq_outbox_set_unfit_aside(nameless);
	return true;
}

/* Carry an order about durable calls out; false when that has to wait. */
static bool
carry_out_about_calls(dsa_pointer order)
{
	switch (rinq_chunk(order)->kind)
	{
		case RINQ_CHUNK_RESPONSES:
			return rinq_durable_store_responses(order);
		case RINQ_CHUNK_CALLS_LOOK:
			return rinq_durable_look_at_calls(order);
		case RINQ_CHUNK_SOURCE:
			return rinq_durable_source_read(order);
		default:
			Assert(rinq_chunk(order)->kind == RINQ_CHUNK_NEW_MAILBOX);
			return rinq_mailbox_renew(order);
	}
}

/* End an order about durable calls that was carried out: what is answered in its chunk is. */
static void
end_call_order(void)
{
	dsa_pointer order = rinq_chunks_take(&call_orders);

	if (rinq_chunk(order)->kind == RINQ_CHUNK_RESPONSES)
		rinq_outbox_report_with(&order, RINQ_CHUNK_RESPONSES_STORED);
	else if (rinq_chunk(order)->kind == RINQ_CHUNK_CALLS_LOOK)
		rinq_outbox_report_with(&order, RINQ_CHUNK_CALLS_DUE);
	else
		rinq_chunk_free(order);
}

/*
 * Do the first of what there is to do about durable calls; what has to wait goes
 * behind the others.  Only answers are waited for: a look before them could end
 * their calls for the lack of one.
 */
static RinqOutboxTurn
run_call_turn(void)
{
	if (!DsaPointerIsValid(call_orders.first))
		return RINQ_TURN_NOTHING;
	if (carry_out_about_calls(call_orders.first))
	{
		end_call_order();
		return RINQ_TURN_DONE;
	}
	if (rinq_chunk(call_orders.first)->kind != RINQ_CHUNK_RESPONSES)
		rinq_chunks_add(&call_orders, rinq_chunks_take(&call_orders));
	return RINQ_TURN_LATER;
}

/* carry the current order out; false when that has to wait */
static bool
carry_out(void)
{
	RinqChunk  *chunk = rinq_chunk(current);

	switch (chunk->kind)
	{
		case RINQ_CHUNK_SCAN:
			rinq_scan_order(current);
			current = InvalidDsaPointer;
			break;
		case RINQ_CHUNK_FETCH:
			rinq_fetch_order(current);
			current = InvalidDsaPointer;
			break;
		case RINQ_CHUNK_LOOK:
			rinq_release_order(current);
			current = InvalidDsaPointer;
			break;
		case RINQ_CHUNK_REMOVE:
			if (!remove_rows(chunk))
				return false;
			rinq_outbox_report_with(&current, RINQ_CHUNK_REMOVED);
			break;
		case RINQ_CHUNK_SET_ASIDE:
			if (!set_failed_aside(chunk))
				return false;
			rinq_outbox_report_with(&current, RINQ_CHUNK_REMOVED);
			break;
		case RINQ_CHUNK_CHECK:
			if (!check_scan(&current))
				return false;
			rinq_outbox_report_with(&current, RINQ_CHUNK_LISTED);
			break;
		case RINQ_CHUNK_PURGE:
			rinq_chunk_free(current);
			current = InvalidDsaPointer;
			purge_records();
			break;
		case RINQ_CHUNK_RESPONSES:
		case RINQ_CHUNK_CALLS_LOOK:
		case RINQ_CHUNK_SOURCE:
		case RINQ_CHUNK_NEW_MAILBOX:
			rinq_chunks_add(&call_orders, current);
			current = InvalidDsaPointer;
			break;
		default:
			Assert(false);
			break;
	}
	return true;
}

/* Go on with a scan, or with messages that wait: one after the other when both have something to do. */
static RinqOutboxTurn
scan_or_release(void)
{
	static bool release_first = false;
	RinqOutboxTurn first;
	RinqOutboxTurn second;

	release_first = !release_first;
	first = release_first ? rinq_release_turn() : rinq_scan_turn();
	if (first == RINQ_TURN_DONE)
		return first;
	second = release_first ? rinq_scan_turn() : rinq_release_turn();
	return second == RINQ_TURN_NOTHING ? first : second;
}

/* Do one thing, if there is one that can be done. */
static RinqOutboxTurn
run_outbox_turn(void)
{
	RinqOutboxTurn turn;
	RinqOutboxTurn other;

	if (!DsaPointerIsValid(current))
		current = rinq_sendqueue_get(queue, RINQ_SEND_LIST_ORDERS);
	if (DsaPointerIsValid(current))
		return carry_out() ? RINQ_TURN_DONE : RINQ_TURN_LATER;
	turn = rinq_fetch_turn();
	if (turn == RINQ_TURN_DONE)
		return turn;
	other = scan_or_release();
	if (other != RINQ_TURN_NOTHING)
		return other;
	return turn;
}

/* Do one thing of a kind. */
static RinqOutboxTurn
do_turn_of(RinqOutboxTurn (*run_turn) (void))
{
	RinqOutboxTurn turn;

	MemoryContextSwitchTo(rinq_outbox_worker.context);
	turn = run_turn();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(rinq_outbox_worker.context);
	rinq_outbox_settle();
	return turn;
}

/* Do one thing of each kind that there is to do. */
static RinqOutboxTurn
do_turn(void)
{
	RinqOutboxTurn first = do_turn_of(run_outbox_turn);
	RinqOutboxTurn second = do_turn_of(run_call_turn);

	if (first == RINQ_TURN_DONE || second == RINQ_TURN_DONE)
		return RINQ_TURN_DONE;
	return first == RINQ_TURN_LATER ? first : second;
}

static void
init_outbox_worker(void)
{
	database = rinq_worker_attach(&args);
	on_shmem_exit(worker_gone, (Datum) 0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, PG_SIG_IGN);	/* nothing here is a user's statement */
	BackgroundWorkerUnblockSignals();
	if (!announce_outbox_worker())
		proc_exit(0);
	queue = &rinq_slots_of(database)->send;
	rinq_worker_connect_to_own_tables(&args);
	before_shmem_exit(forget_orders, (Datum) 0);
	rinq_outbox_worker.context = AllocSetContextCreate(TopMemoryContext, "rinq outbox",
													   ALLOCSET_DEFAULT_SIZES);
	rinq_scan_init();
	rinq_fetch_init();
	rinq_release_init();
}

/* Return the ms until the next look, if nothing happens before. */
static int64
ms_until_next_turn(RinqOutboxTurn turn)
{
	int64		now = rinq_clock_ms();

	if (turn == RINQ_TURN_LATER)
		return RETRY_DELAY;
	if (rinq_outbox_worker.tidy_wanted)
		return Max(1, next_tidy_time() - now);

	/*
	 * what is pending then is for the peer's next order, which wakes this
	 * process
	 */
	if (rinq_release_pending())
		return rinq_executor_idle_timeout;
	return Max(1, idle_since + rinq_executor_idle_timeout - now);
}

void
rinq_outbox_main(Datum arg)
{
	uint32		wait_event = 0;

	init_outbox_worker();
	rinq_outbox_want_tidying();
	idle_since = rinq_clock_ms();
	for (;;)
	{
		RinqOutboxTurn turn;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (database->incarnation != args.incarnation || database->ddl_blocks > 0)
			proc_exit(0);
		turn = do_turn();
		if (turn != RINQ_TURN_NOTHING)
		{
			idle_since = rinq_clock_ms();
			tidy_between_orders();
		}
		if (turn == RINQ_TURN_DONE)
			continue;
		if (turn == RINQ_TURN_NOTHING && may_worker_leave())
		{
			pgstat_report_stat(true);
			proc_exit(0);
		}
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) ms_until_next_turn(turn), RINQ_WAIT_EVENT(wait_event, "RinqOutboxMain"));
	}
}
