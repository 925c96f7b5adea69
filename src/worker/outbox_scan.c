/*-------------------------------------------------------------------------
 *
 * outbox_scan.c
 *	  Scans of the outbox: finding all rows, and reading them piece by piece.
 *
 * A scan keeps the places of all rows in one snapshot, and then reads them as
 * the peer takes them, each piece in a transaction of its own.  Durable
 * messages of transactions that are not in that snapshot are handed over by
 * these, or ask for another scan.
 *
 * Rows may be gone when their turn comes, since they were sent meanwhile; or
 * somewhere else, since the tables were rewritten or they were moved.  A scan
 * that has missed any begins again: what the peer has already, it knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "ipc/outbox_depth.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/outbox_scan.h"

#define PIECE_ROWS 4096			/* read in one transaction, if they are small */
#define MAX_AHEAD (4 * RINQ_OUTBOX_PIECE)	/* bytes that the peer has not
											 * sent */

typedef struct Scan
{
	dsa_pointer order;			/* the chunk that asked for it, invalid when
								 * none runs */
	uint32		number;
	uint32		round;
	bool		found;			/* the places were collected */
	bool		told;			/* the peer has the snapshot */
	bool		starved;		/* no memory was free for a whole piece */
	RinqOutboxRowRef *refs;
	Size		count;
	Size		next;
	Oid			files[RINQ_OUTBOX_TABLES];	/* that the places are in */
	int64	   *missed;			/* numbers of rows that were not at their
								 * places */
	Size		num_missed;
	List	   *unfit;			/* RinqOutboxUnfit * */
} Scan;

static Scan scan = {InvalidDsaPointer};
static MemoryContext scan_context;

void
rinq_scan_init(void)
{
	scan_context = AllocSetContextCreate(TopMemoryContext, "rinq outbox scan",
										 ALLOCSET_DEFAULT_SIZES);
}

static void
copy_snapshot_out(Snapshot current)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);
	RinqScanSnapshot *copy =
		MemoryContextAllocZero(TopMemoryContext, offsetof(RinqScanSnapshot, xip) +
							   current->xcnt * sizeof(TransactionId));

	if (current->xmax > XidFromFullTransactionId(next))
		epoch--;
	copy->xmax = FullTransactionIdFromEpochAndXid(epoch, current->xmax);
	copy->count = current->xcnt;
	if (current->xcnt > 0)
		memcpy(copy->xip, current->xip, current->xcnt * sizeof(TransactionId));
	if (rinq_outbox_worker.counted != NULL)
		pfree(rinq_outbox_worker.counted);
	rinq_outbox_worker.counted = copy;
}

/*
 * Take a snapshot and find all rows that it sees, which are counted on the
 * way.  With "direct", transactions hand over again from right before it.
 */
static RinqOutboxRowRef *
find_rows(bool direct, Size *count)
{
	RinqDatabase *db = rinq_outbox_worker.db;
	uint64		before = rinq_depth_begin_count(db);
	RinqOutboxRowRef *refs;

	if (direct)
		(void) rinq_sendqueue_go_direct(rinq_outbox_worker.queue, scan.round);
	rinq_outbox_snapshot();
	rinq_depth_snapshot_taken(db);
	copy_snapshot_out(GetActiveSnapshot());
	refs = rinq_outbox_scan(db, &rinq_outbox_worker.tables, count);
	rinq_depth_counted(db, before, *count, rinq_outbox_worker.counted);
	return refs;
}

/* take rows out that a copy of a database has brought along: they are not this database's to send */
static void
take_foreign(void)
{
	Size		kept = 0;
	Size		i;

	for (i = 0; i < scan.count; i++)
	{
		RinqOutboxUnfit *unfit;

		if (!scan.refs[i].foreign)
		{
			scan.refs[kept++] = scan.refs[i];
			continue;
		}
		unfit = palloc(sizeof(RinqOutboxUnfit));
		unfit->ref = scan.refs[i];
		unfit->reason = "it was written in another database, which this one is a copy of";
		scan.unfit = lappend(scan.unfit, unfit);
	}
	scan.count = kept;
}

static void
reset_scan(void)
{
	MemoryContextReset(scan_context);
	scan.found = false;
	scan.told = false;
	scan.starved = false;
	scan.refs = NULL;
	scan.count = 0;
	scan.next = 0;
	scan.missed = NULL;
	scan.num_missed = 0;
	scan.unfit = NIL;
}

/*
 * Take the peer's order to scan; a scan that runs is given up for it.
 */
void
rinq_scan_order(dsa_pointer order)
{
	Assert(rinq_chunk(order)->kind == RINQ_CHUNK_SCAN);
	rinq_scan_forget();
	scan.order = order;
	scan.number = rinq_chunk(order)->scan;
	scan.round = rinq_chunk(order)->round;
}

/*
 * Give up the scan that runs, if one does.
 */
void
rinq_scan_forget(void)
{
	rinq_chunk_free(scan.order);
	scan.order = InvalidDsaPointer;
	if (scan_context != NULL)
		reset_scan();
}

bool
rinq_scan_runs(void)
{
	return DsaPointerIsValid(scan.order);
}

static RinqOutboxTurn
begin_scan(void)
{
	MemoryContext old;

	if (!rinq_outbox_begin("rinq: reading the outbox", AccessShareLock))
		return RINQ_TURN_LATER;
	reset_scan();
	rinq_outbox_files(&rinq_outbox_worker.tables, scan.files);
	old = MemoryContextSwitchTo(scan_context);
	scan.refs = find_rows(true, &scan.count);
	take_foreign();
	MemoryContextSwitchTo(old);

	/*
	 * Have its commit bring all commits that the snapshot has seen to disk:
	 * rows may have been written by hand, in transactions that were not.
	 */
	(void) GetCurrentTransactionId();
	rinq_outbox_end();
	scan.found = true;
	return RINQ_TURN_DONE;
}

/* remember that a row was not where it was; true when its table was rewritten */
static bool
note_missing(const List *missing)
{
	ListCell   *lc;

	if (missing == NIL)
		return false;
	if (scan.missed == NULL)
		scan.missed = MemoryContextAllocHuge(scan_context, Max(scan.count, 1) * sizeof(int64));
	foreach(lc, missing)
	{
		RinqOutboxRowRef *ref = lfirst(lc);
		Relation	rel = rinq_outbox_worker.tables.rels[ref->item.table];

		if (rel->rd_rel->relfilenode != scan.files[ref->item.table])
			return true;
		Assert(scan.num_missed < scan.count);
		scan.missed[scan.num_missed++] = ref->seq;
	}
	return false;
}

static void
note_unfit(const List *unfit)
{
	MemoryContext old = MemoryContextSwitchTo(scan_context);
	ListCell   *lc;

	foreach(lc, unfit)
	{
		RinqOutboxUnfit *copy = palloc(sizeof(RinqOutboxUnfit));

		*copy = *(RinqOutboxUnfit *) lfirst(lc);
		copy->reason = pstrdup(copy->reason);
		scan.unfit = lappend(scan.unfit, copy);
	}
	MemoryContextSwitchTo(old);
}

/* read the next piece, and hand it over */
static RinqOutboxTurn
read_piece(void)
{
	RinqOutboxRead read = {NIL};
	Size		count = Min(scan.count - scan.next, PIECE_ROWS);
	Size		done;
	Size		missed = scan.num_missed;
	bool		rewritten;

	if (!rinq_outbox_begin("rinq: reading the outbox", AccessShareLock))
		return RINQ_TURN_LATER;
	rinq_outbox_snapshot();
	done = rinq_outbox_read(&rinq_outbox_worker.tables, scan.refs + scan.next, count,
							scan.starved ? 1 : RINQ_OUTBOX_PIECE, &read);
	rewritten = note_missing(read.missing);
	rinq_outbox_end();
	if (rewritten)
	{
		scan.found = false;
		return RINQ_TURN_DONE;
	}
	if (read.messages != NIL && !rinq_outbox_report_messages(RINQ_CHUNK_STORED, &read, scan.number))
	{
		/* one message at a time, until there is memory for more */
		scan.starved = true;
		scan.num_missed = missed;
		return RINQ_TURN_LATER;
	}
	scan.starved = false;
	scan.next += done;
	Assert(scan.next <= scan.count);
	note_unfit(read.unfit);
	return RINQ_TURN_DONE;
}

/*
 * Finish a scan all of whose references were read; it begins again if rows
 * were moved away from theirs.
 */
static RinqOutboxTurn
finish_scan(void)
{
	bool		again;

	Assert(scan.next == scan.count && scan.unfit == NIL);
	if (scan.num_missed > 0)
	{
		if (!rinq_outbox_begin("rinq: reading the outbox", AccessShareLock))
			return RINQ_TURN_LATER;
		rinq_outbox_snapshot();
		again = rinq_outbox_has_any(&rinq_outbox_worker.tables, scan.missed, scan.num_missed);
		rinq_outbox_end();
		scan.num_missed = 0;
		if (again)
		{
			scan.found = false;
			return RINQ_TURN_DONE;
		}
	}
	reset_scan();
	rinq_chunk(scan.order)->scan = scan.number;
	rinq_outbox_report_with(&scan.order, RINQ_CHUNK_SCANNED);
	return RINQ_TURN_DONE;
}

/*
 * Do a turn's work on the scan, if one runs.
 */
RinqOutboxTurn
rinq_scan_turn(void)
{
	if (!rinq_scan_runs())
		return RINQ_TURN_NOTHING;
	if (!scan.found)
		return begin_scan();
	if (!scan.told)
	{
		scan.told = rinq_outbox_report(RINQ_CHUNK_SNAPSHOT, rinq_outbox_worker.counted,
									   offsetof(RinqScanSnapshot, xip) +
									   rinq_outbox_worker.counted->count * sizeof(TransactionId), scan.number);
		return scan.told ? RINQ_TURN_DONE : RINQ_TURN_LATER;
	}
	if (scan.unfit != NIL)
	{
		if (!rinq_outbox_set_unfit_aside(scan.unfit))
			return RINQ_TURN_LATER;
		scan.unfit = NIL;
		return RINQ_TURN_DONE;
	}
	if (scan.next == scan.count)
		return finish_scan();

	/* set before looking, so that the peer does not miss it */
	rinq_outbox_worker.queue->worker_waits = true;
	pg_memory_barrier();
	if (rinq_sendqueue_report_bytes(rinq_outbox_worker.queue) >= MAX_AHEAD)
		return RINQ_TURN_LATER;
	rinq_outbox_worker.queue->worker_waits = false;
	return read_piece();
}

/*
 * Count the rows, and list as many of the oldest as the order has room for.
 * Returns those of them that have no id, RinqOutboxUnfit *: they could not be set
 * aside when a scan found them, and the peer will never ask for them.
 */
List *
rinq_scan_check(dsa_pointer *order)
{
	List	   *nameless = NIL;
	RinqChunk  *chunk = rinq_chunk(*order);
	RinqOutboxItem *items = (RinqOutboxItem *) RINQ_CHUNK_DATA(chunk);
	RinqOutboxRowRef *refs;
	Size		room = chunk->size / sizeof(RinqOutboxItem);
	Size		count;
	Size		i;

	refs = find_rows(false, &count);
	count = rinq_outbox_identify(&rinq_outbox_worker.tables, refs, Min(count, room), &nameless);
	for (i = 0; i < count; i++)
		items[i] = refs[i].item;
	Assert(count <= room);
	chunk->count = (uint32) count;
	return nameless;
}
