/*-------------------------------------------------------------------------
 *
 * intake.c
 *	  Which of the messages that transactions have committed are sent next.
 *
 * They come in chunks: from transactions, and from the outbox worker when it
 * scans the outbox.  Each durable one gets to the sender in exactly one of
 * these ways; the rules are those of the table in docs/architecture.md.
 * Sending them, and what becomes of them, is sender.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "peer/peer.h"
#include "utils/memutils.h"

/* chunks held back, until a scan ends or the outbox worker has caught up */
static List *held = NIL;

static bool scanning;			/* the outbox worker was told to, and has not finished */
static bool scan_runs;			/* it has begun to */
static uint32 scan_covers;		/* "scan_wanted" when it was told */
static uint32 scan_done;
static RinqScanSnapshot *scan_snapshot;

void
rinq_intake_init(void)
{
	scan_done = rinq_sendqueue_wanted(&rinq_peer.channel->send) - 1;
}

static void
scan_begun(const RinqScanSnapshot *snapshot)
{
	Size		size = offsetof(RinqScanSnapshot, xip) + snapshot->count * sizeof(TransactionId);

	if (scan_snapshot != NULL)
		pfree(scan_snapshot);
	scan_snapshot = MemoryContextAlloc(TopMemoryContext, size);
	memcpy(scan_snapshot, snapshot, size);
}

/* was this transaction over when the last scan began? */
static bool
was_scanned(FullTransactionId xid)
{
	uint32		i;

	if (scan_snapshot == NULL || !FullTransactionIdPrecedes(xid, scan_snapshot->xmax))
		return false;
	for (i = 0; i < scan_snapshot->count; i++)
	{
		if (scan_snapshot->xip[i] == XidFromFullTransactionId(xid))
			return false;
	}
	return true;
}

static dsa_pointer
next_held(void)
{
	dsa_pointer *first;
	dsa_pointer pointer;

	if (scan_runs || held == NIL || rinq_sender_worker_behind())
		return InvalidDsaPointer;
	first = linitial(held);
	pointer = *first;
	held = list_delete_first(held);
	pfree(first);
	return pointer;
}

/*
 * Durable messages of transactions that came after the scan began wait for it.
 * All wait for an outbox worker that is behind, whose own chunks come through
 * the same queue.
 */
static bool
hold_back(dsa_pointer pointer)
{
	RinqChunk  *chunk = rinq_chunk(pointer);
	dsa_pointer *copy;
	MemoryContext old;

	if (chunk->kind != RINQ_CHUNK_TRANSACTION && chunk->kind != RINQ_CHUNK_STORED)
		return false;
	if (!rinq_sender_worker_behind() &&
		(!scan_runs || chunk->kind != RINQ_CHUNK_TRANSACTION || !chunk->has_durable ||
		 was_scanned(chunk->xid)))
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	copy = palloc(sizeof(dsa_pointer));
	*copy = pointer;
	held = lappend(held, copy);
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * The next chunk with messages in it, or an invalid pointer when there is none
 * now; *skip_durable is whether the durable ones of it are left to a scan.
 */
dsa_pointer
rinq_intake_next(bool *skip_durable)
{
	RinqSendQueue *queue = &rinq_peer.channel->send;

	for (;;)
	{
		dsa_pointer pointer = next_held();
		RinqChunk  *chunk;

		if (!DsaPointerIsValid(pointer))
		{
			pointer = rinq_sendqueue_get(queue, &queue->to_peer);
			if (!DsaPointerIsValid(pointer))
				return InvalidDsaPointer;
			if (hold_back(pointer))
				continue;
		}
		chunk = rinq_chunk(pointer);
		if (chunk->kind == RINQ_CHUNK_TRANSACTION || chunk->kind == RINQ_CHUNK_STORED)
		{
			*skip_durable = chunk->kind == RINQ_CHUNK_TRANSACTION && chunk->has_durable &&
				was_scanned(chunk->xid);
			return pointer;
		}
		if (chunk->kind == RINQ_CHUNK_REMOVED)
			rinq_sender_removed((RinqOutboxItem *) RINQ_CHUNK_DATA(chunk), chunk->count);
		else if (chunk->kind == RINQ_CHUNK_SNAPSHOT)
		{
			scan_begun((RinqScanSnapshot *) RINQ_CHUNK_DATA(chunk));
			scan_runs = true;
		}
		else if (chunk->kind == RINQ_CHUNK_SCANNED)
		{
			scanning = false;
			scan_runs = false;
			scan_done = scan_covers;
		}
		rinq_chunk_free(pointer);
	}
}

/*
 * A chunk was sent and freed: tells those who wait for room.
 */
void
rinq_intake_let_others_write(void)
{
	RinqSendQueue *queue = &rinq_peer.channel->send;

	if (queue->worker_waits)
	{
		queue->worker_waits = false;
		rinq_peer_wake_later(rinq_peer.db->outbox.procno);
	}
	if (queue->senders_wait)
	{
		queue->senders_wait = false;
		ConditionVariableBroadcast(&rinq_peer.db->changed);
	}
}

/*
 * Has the outbox worker scan, when somebody wants that.
 */
void
rinq_intake_scan(void)
{
	RinqSendQueue *queue = &rinq_peer.channel->send;
	uint32		wanted;

	/* what was held back goes first, or it might be found once more */
	if (scanning || held != NIL || !rinq_peer.ready)
		return;
	wanted = rinq_sendqueue_wanted(queue);
	if (wanted == scan_done || !rinq_outbox_link_up())
		return;
	scanning = rinq_outbox_tell(RINQ_CHUNK_SCAN, NULL, 0, 0);
	scan_covers = wanted;
}

/*
 * The outbox worker has ended, and its scan with it.
 */
void
rinq_intake_worker_lost(void)
{
	scanning = false;
	scan_runs = false;
}

/*
 * The peer ends: gives back the memory of what was held back.
 */
void
rinq_intake_end(void)
{
	ListCell   *lc;

	foreach(lc, held)
		rinq_chunk_free(*(dsa_pointer *) lfirst(lc));
	held = NIL;
}
