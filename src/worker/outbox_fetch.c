/*-------------------------------------------------------------------------
 *
 * outbox_fetch.c
 *	  Reading single messages of the outbox again, for another attempt.
 *
 * An order names some rows.  Those that are found go to the peer; the others,
 * because they are not there any more or cannot be sent as they are, are
 * reported when the order is done.  Rows that were moved are searched for in the
 * snapshot that they are read in, so that it does not matter how often they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "ipc/slots.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/outbox_fetch.h"

typedef struct Fetch
{
	dsa_pointer order;			/* that is carried out; invalid for none */
	RinqOutboxRowRef *refs;
	Size		count;
	Size		next;
	uint32		gone;			/* items of the report, at the beginning of
								 * the order's chunk */
	bool		starved;		/* no memory was free for a whole piece */
} Fetch;

static Fetch fetch = {InvalidDsaPointer};
static RinqChunkList orders = {InvalidDsaPointer, InvalidDsaPointer};
static MemoryContext fetch_context;

void
rinq_fetch_init(void)
{
	fetch_context = AllocSetContextCreate(TopMemoryContext, "rinq outbox fetch",
										  ALLOCSET_DEFAULT_SIZES);
}

/*
 * Take the peer's order to fetch some rows.
 */
void
rinq_fetch_order(dsa_pointer order)
{
	rinq_chunks_add(&orders, order);
}

/*
 * Give up what is left to do.
 */
void
rinq_fetch_forget(void)
{
	rinq_chunk_free(fetch.order);
	fetch.order = InvalidDsaPointer;
	rinq_chunk_free(orders.first);
	orders.first = InvalidDsaPointer;
	orders.last = InvalidDsaPointer;
}

static RinqOutboxItem *
report_items(void)
{
	return rinq_chunk_items(rinq_chunk(fetch.order), sizeof(RinqOutboxItem));
}

static void
start_fetch(void)
{
	MemoryContextReset(fetch_context);
	memset(&fetch, 0, sizeof(fetch));
	fetch.order = rinq_chunks_take(&orders);
	if (!DsaPointerIsValid(fetch.order))
		return;
	fetch.count = rinq_chunk(fetch.order)->count;
	fetch.refs = rinq_outbox_row_refs(fetch_context, report_items(), fetch.count);
}

/*
 * Report a row that was not found, or was set aside, or is postponed; the
 * references were copied, so that their items can be written over.
 */
static void
note_gone(const RinqOutboxItem *item, bool postponed)
{
	RinqOutboxItem *report = &report_items()[fetch.gone++];

	Assert(fetch.gone <= fetch.count);
	*report = *item;
	report->postponed = postponed;
}

/*
 * Search for the rows that were not at their places, and read those that are
 * somewhere else, as far as the piece has room; the others are left "missing".
 */
static void
read_moved_rows(RinqOutboxRead *read)
{
	List	   *lost = read->missing;
	ListCell   *lc;

	read->missing = NIL;
	rinq_outbox_search(&rinq_outbox_worker.tables, lost);
	foreach(lc, lost)
	{
		RinqOutboxRowRef *ref = lfirst(lc);

		if (!ref->found ||
			rinq_outbox_read(&rinq_outbox_worker.tables, ref, 1,
							 fetch.starved ? 1 : RINQ_OUTBOX_PIECE, read) == 0)
			read->missing = lappend(read->missing, ref);
	}
}

static void
note_rest(const RinqOutboxRead *read)
{
	ListCell   *lc;
	bool		aside = read->unfit == NIL || rinq_outbox_set_unfit_aside(read->unfit);

	foreach(lc, read->missing)
	{
		RinqOutboxRowRef *ref = lfirst(lc);

		note_gone(&ref->item, ref->found);
	}
	foreach(lc, read->unfit)
		note_gone(&((RinqOutboxUnfit *) lfirst(lc))->ref.item, !aside);
}

static RinqOutboxTurn
read_some(void)
{
	RinqOutboxRead read = {NIL};
	Size		done;

	if (!rinq_outbox_begin("rinq: reading the outbox", AccessShareLock))
		return RINQ_TURN_LATER;
	rinq_outbox_snapshot();
	done = rinq_outbox_read(&rinq_outbox_worker.tables, fetch.refs + fetch.next,
							fetch.count - fetch.next, fetch.starved ? 1 : RINQ_OUTBOX_PIECE, &read);
	read_moved_rows(&read);
	rinq_outbox_end();
	if (read.messages != NIL && !rinq_outbox_report_messages(RINQ_CHUNK_FETCHED, &read, 0))
	{
		fetch.starved = true;
		return RINQ_TURN_LATER;
	}
	fetch.starved = false;
	fetch.next += done;
	Assert(fetch.next <= fetch.count);
	note_rest(&read);
	return RINQ_TURN_DONE;
}

/*
 * Do a turn's work on the oldest order, if there is one.
 */
RinqOutboxTurn
rinq_fetch_turn(void)
{
	if (!DsaPointerIsValid(fetch.order))
		start_fetch();
	if (!DsaPointerIsValid(fetch.order))
		return RINQ_TURN_NOTHING;
	if (fetch.next < fetch.count)
		return read_some();
	rinq_chunk(fetch.order)->count = fetch.gone;
	rinq_outbox_report_with(&fetch.order, RINQ_CHUNK_REMOVED);
	return RINQ_TURN_DONE;
}
