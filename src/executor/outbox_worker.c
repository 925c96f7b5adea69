/*-------------------------------------------------------------------------
 *
 * outbox_worker.c
 *	  The worker that reads and removes rows of the outbox for the peer.
 *
 * It does what chunks in its queue tell it, each in a short transaction, and
 * waits outside of transactions; it knows nothing of the broker.  The peer
 * starts it when there is something to do, and it leaves when there has been
 * nothing for a while.  Whatever it had not finished when it ends, the peer
 * asks for again.
 *
 * A scan keeps the places of all rows in one snapshot, and then reads them
 * piece by piece as the peer takes them.  Durable messages that are committed
 * after that snapshot are handed over by their transactions again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "channel.h"
#include "clock.h"
#include "guc.h"
#include "outbox.h"
#include "own_tables.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "request.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker.h"

#define PIECE_BYTES (256 * 1024)	/* of messages, read in one transaction */
#define FIRST_ROTATE_DELAY 100	/* ms between looks at the tables */
#define LAST_ROTATE_DELAY 30000
#define RETRY_DELAY 50			/* ms between looks for room */

static RinqWorkerArgs args;
static RinqDatabase *database;
static RinqSendQueue *queue;
static Oid	schema;
static MemoryContext work_context;	/* reset after each thing done */

/* the scan under way */
static MemoryContext scan_context;
static RinqOutboxPlace *places;
static Size num_places;
static Size next_place;

/* when the tables are looked at again; the delay grows while one is in use */
static bool tidy_wanted;
static int64 next_rotation;
static int	rotate_delay = FIRST_ROTATE_DELAY;

/* runs after the process has left the database, for those who wait for that */
static void
worker_gone(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (database->outbox.pid == MyProcPid)
	{
		database->outbox.state = RINQ_WORKER_NONE;
		database->outbox.procno = RINQ_NO_PROC;
	}
	LWLockRelease(rinq_shared->lock);
	ConditionVariableBroadcast(&database->changed);
	rinq_wake_peer(database);
}

static bool
announce(void)
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

static void
begin(const char *activity)
{
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	/* dropped, or about to be: then there is nothing to do, ever */
	schema = rinq_internal_schema();
	if (!rinq_outbox_exists(schema))
		proc_exit(0);
	MemoryContextSwitchTo(work_context);
}

static void
end(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(work_context);
	pgstat_report_stat(false);
}

/* hands a chunk over; waits for memory if there is none, and leaves with the peer */
static void
put_chunk(RinqChunkKind kind, const void *data, Size size, uint32 count)
{
	static uint32 wait_event = 0;
	dsa_pointer pointer;

	while (!DsaPointerIsValid(pointer = rinq_chunk_alloc(kind, size)))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, RETRY_DELAY,
						 RINQ_WAIT_EVENT(wait_event, "RinqOutboxMemory"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (database->incarnation != args.incarnation)
			proc_exit(0);
	}
	if (size > 0)
		memcpy(RINQ_CHUNK_DATA(rinq_chunk(pointer)), data, size);
	rinq_chunk(pointer)->count = count;
	rinq_chunk(pointer)->has_durable = true;
	if (!rinq_sendqueue_put(database, pointer, args.incarnation))
		proc_exit(0);
}

/* hands over messages, as one chunk */
static void
put_messages(List *messages)
{
	StringInfoData buf;
	ListCell   *lc;

	if (messages == NIL)
		return;
	initStringInfo(&buf);
	foreach(lc, messages)
	{
		RinqOutgoing *message = lfirst(lc);

		appendBinaryStringInfo(&buf, (char *) message, (int) message->length);
	}
	put_chunk(RINQ_CHUNK_STORED, buf.data, (Size) buf.len, (uint32) list_length(messages));
}

static void
put_items(List *items)
{
	Size		size = list_length(items) * sizeof(RinqOutboxItem);
	RinqOutboxItem *array;
	ListCell   *lc;
	int			i = 0;

	if (items == NIL)
		return;
	array = palloc0(size);
	foreach(lc, items)
		array[i++] = *(RinqOutboxItem *) lfirst(lc);
	put_chunk(RINQ_CHUNK_REMOVED, array, size, (uint32) i);
}

/* rows that a copy of a database brought along are nobody's to send */
static void
set_foreign_aside(void)
{
	Size		kept = 0;
	Size		foreign = 0;
	Size		i;
	RinqOutboxFailed *failed;

	for (i = 0; i < num_places; i++)
		foreign += places[i].foreign ? 1 : 0;
	if (foreign == 0)
		return;
	failed = MemoryContextAllocHuge(CurrentMemoryContext, foreign * sizeof(RinqOutboxFailed));
	memset(failed, 0, foreign * sizeof(RinqOutboxFailed));
	foreign = 0;
	for (i = 0; i < num_places; i++)
	{
		if (!places[i].foreign)
		{
			places[kept++] = places[i];
			continue;
		}
		failed[foreign].item = places[i].item;
		strlcpy(failed[foreign].error, "it was written in another database, which this one is a copy of",
				RINQ_LAST_ERROR_LEN);
		foreign++;
	}
	rinq_outbox_set_aside(schema, failed, foreign);
	num_places = kept;
}

/*
 * Tells the peer which transactions the scan sees.  What one of those hands
 * over after this, because it was late, is in the scan already.
 */
static void
put_snapshot(const RinqScanSnapshot *snapshot)
{
	put_chunk(RINQ_CHUNK_SNAPSHOT, snapshot,
			  offsetof(RinqScanSnapshot, xip) + snapshot->count * sizeof(TransactionId), 0);
}

static RinqScanSnapshot *
copy_snapshot(Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);
	RinqScanSnapshot *copy = palloc0(offsetof(RinqScanSnapshot, xip) +
									 snapshot->xcnt * sizeof(TransactionId));

	if (snapshot->xmax > XidFromFullTransactionId(next))
		epoch--;
	copy->xmax = FullTransactionIdFromEpochAndXid(epoch, snapshot->xmax);
	copy->count = snapshot->xcnt;
	if (snapshot->xcnt > 0)
		memcpy(copy->xip, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	return copy;
}

/*
 * Begins a scan.  The order matters: a transaction that is not in the snapshot
 * and does not hand over yet asks for another scan.
 */
static void
begin_scan(void)
{
	RinqScanSnapshot *snapshot;

	places = NULL;
	MemoryContextReset(scan_context);
	begin("rinq: reading the outbox");
	snapshot = copy_snapshot(GetActiveSnapshot());
	MemoryContextSwitchTo(scan_context);
	places = rinq_outbox_scan(schema, &num_places);
	MemoryContextSwitchTo(work_context);
	set_foreign_aside();
	end();
	rinq_sendqueue_go_direct(queue);
	put_snapshot(snapshot);
	next_place = 0;
	pg_atomic_write_u64(&database->outbox_depth, num_places);
}

/* the next piece of the scan; what is not there any more was sent meanwhile */
static void
continue_scan(void)
{
	List	   *messages = NIL;
	List	   *missing = NIL;
	RinqOutboxItem *items;
	Size		count = Min(num_places - next_place, 4096);
	Size		i;

	if (count == 0)
	{
		places = NULL;
		MemoryContextReset(scan_context);
		put_chunk(RINQ_CHUNK_SCANNED, NULL, 0, 0);
		return;
	}
	begin("rinq: reading the outbox");
	items = palloc(count * sizeof(RinqOutboxItem));
	for (i = 0; i < count; i++)
		items[i] = places[next_place + i].item;
	next_place += rinq_outbox_read(schema, items, count, PIECE_BYTES, &messages, &missing);
	end();
	put_messages(messages);
}

static void
count_removed(Size count)
{
	uint64		depth = pg_atomic_read_u64(&database->outbox_depth);

	while (!pg_atomic_compare_exchange_u64(&database->outbox_depth, &depth,
										   depth > count ? depth - count : 0))
		;
}

static void
fetch(RinqOutboxItem *items, Size count)
{
	List	   *messages = NIL;
	List	   *missing = NIL;

	while (count > 0)
	{
		Size		done;

		begin("rinq: reading the outbox");
		done = rinq_outbox_read(schema, items, count, PIECE_BYTES, &messages, &missing);
		end();
		items += done;
		count -= done;
		put_messages(messages);
		messages = NIL;
	}
	put_items(missing);
}

static void
do_chunk(RinqChunk *chunk)
{
	char	   *data = RINQ_CHUNK_DATA(chunk);

	switch (chunk->kind)
	{
		case RINQ_CHUNK_SCAN:
			begin_scan();
			break;
		case RINQ_CHUNK_FETCH:
			fetch((RinqOutboxItem *) data, chunk->count);
			break;
		case RINQ_CHUNK_REMOVE:
			begin("rinq: removing sent messages");
			rinq_outbox_remove(schema, (RinqOutboxItem *) data, chunk->count);
			end();
			tidy_wanted = true;
			count_removed(chunk->count);
			put_chunk(RINQ_CHUNK_REMOVED, data, chunk->count * sizeof(RinqOutboxItem),
					  chunk->count);
			break;
		case RINQ_CHUNK_SET_ASIDE:
			{
				RinqOutboxFailed *failed = (RinqOutboxFailed *) data;
				List	   *items = NIL;
				uint32		i;

				begin("rinq: setting messages aside");
				rinq_outbox_set_aside(schema, failed, chunk->count);
				end();
				count_removed(chunk->count);
				for (i = 0; i < chunk->count; i++)
					items = lappend(items, &failed[i].item);
				put_items(items);
			}
			break;
		default:
			break;
	}
}

static void
rotate(bool idle)
{
	RinqRotation result;

	begin("rinq: tidying the outbox");
	result = rinq_outbox_rotate(database, schema, idle);
	end();
	tidy_wanted = result != RINQ_ROTATION_DONE;
	rotate_delay = result != RINQ_ROTATION_STUCK ? FIRST_ROTATE_DELAY :
		Min(LAST_ROTATE_DELAY, rotate_delay * 2);
	next_rotation = rinq_clock_ms() + rotate_delay;
}

/* takes a private copy of the next chunk, so that an error leaves none behind */
static RinqChunk *
next_chunk(void)
{
	dsa_pointer pointer = rinq_sendqueue_get(queue, &queue->to_outbox);
	RinqChunk  *copy;
	Size		size;

	if (!DsaPointerIsValid(pointer))
		return NULL;
	size = MAXALIGN(sizeof(RinqChunk)) + rinq_chunk(pointer)->size;
	copy = MemoryContextAllocHuge(CurrentMemoryContext, size);
	memcpy(copy, rinq_chunk(pointer), size);
	rinq_chunk_free(pointer);
	return copy;
}

/* one thing to do, if there is one */
static bool
work(void)
{
	RinqChunk  *chunk;
	bool		did = true;

	MemoryContextSwitchTo(work_context);
	chunk = next_chunk();
	if (chunk != NULL)
		do_chunk(chunk);
	else if (places != NULL)
	{
		queue->worker_waits = true;
		pg_memory_barrier();
		did = rinq_sendqueue_bytes(queue) < 4 * PIECE_BYTES;
		if (did)
		{
			queue->worker_waits = false;
			continue_scan();
		}
	}
	else if (tidy_wanted && rinq_clock_ms() >= next_rotation)
		rotate(false);
	else
		did = false;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(work_context);
	return did;
}

void
rinq_outbox_main(Datum arg)
{
	uint32		wait_event = 0;
	int64		idle_since = 0;

	database = rinq_worker_attach(&args);
	on_shmem_exit(worker_gone, (Datum) 0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!announce())
		proc_exit(0);
	idle_since = rinq_clock_ms();
	queue = &rinq_channel_of(database)->send;

	BackgroundWorkerInitializeConnectionByOid(args.dboid, InvalidOid, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_SESSION);

	/* a removal that a standby does not have yet is no reason to wait */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	work_context = AllocSetContextCreate(TopMemoryContext, "rinq outbox", ALLOCSET_DEFAULT_SIZES);
	scan_context = AllocSetContextCreate(TopMemoryContext, "rinq outbox scan",
										 ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int64		timeout = rinq_executor_idle_timeout;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (database->incarnation != args.incarnation || database->ddl_blocks > 0)
			proc_exit(0);
		if (work())
		{
			idle_since = rinq_clock_ms();
			continue;
		}
		if (places == NULL && rinq_clock_ms() - idle_since >= rinq_executor_idle_timeout)
		{
			rotate(true);
			pgstat_report_stat(true);
			proc_exit(0);
		}
		if (places != NULL)
			timeout = RETRY_DELAY;
		else if (tidy_wanted)
			timeout = Min(timeout, Max(1, next_rotation - rinq_clock_ms()));
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) timeout, RINQ_WAIT_EVENT(wait_event, "RinqOutboxMain"));
	}
}
