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
 * Durable messages that have to wait for a scan to end are held back, but not
 * many of them, and none when memory is short: the outbox has them, and another
 * scan will bring them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/outbox_depth.h"
#include "peer/process.h"
#include "peer/sending/intake.h"
#include "peer/sending/outbox_link.h"
#include "peer/sending/outbox_look.h"
#include "peer/sending/outbox_watch.h"
#include "peer/sending/sent.h"
#include "utils/memutils.h"

#define PACK_DELAY 10			/* ms that transactions have to pack, before a
								 * scan begins */

/* from the outbox worker, to be sent; the end of the scan comes last */
static RinqChunkList stored = {InvalidDsaPointer, InvalidDsaPointer};

/* of transactions, with durable messages that wait for the scan to end */
static RinqChunkList deferred = {InvalidDsaPointer, InvalidDsaPointer};
static Size deferred_bytes;

static bool scanning;			/* the outbox worker was told to, and not all
								 * was sent */
static bool scan_ended;			/* all was read */
static uint32 scan_number;		/* of the last scan; chunks of others are
								 * ignored */
static uint32 scan_round;		/* that it is for */
static uint32 done_round;		/* of the last scan that is through */
static uint32 drop_round;		/* durable messages from before this round are
								 * left to a scan */
static int64 packing_since;		/* 0: transactions do not pack */
static RinqScanSnapshot *scan_snapshot;

/* what holds for the chunks of the transaction that was taken last */
static bool chain_left;
static uint32 chain_round;

static RinqSendQueue *
the_queue(void)
{
	return &rinq_peer.slots->send;
}

static bool
is_before(uint32 a, uint32 b)
{
	return (int32) (a - b) < 0;
}

void
rinq_intake_init(void)
{
	RinqSendMode mode;
	uint32		round;

	rinq_sendqueue_state(the_queue(), &mode, &round);
	Assert(mode == RINQ_SEND_STORED);
	done_round = round - 1;
	drop_round = round;
}

/* ---------------- chunks of transactions ---------------- */

static bool
was_scanned(FullTransactionId xid)
{
	return scan_snapshot != NULL && rinq_scan_sees(scan_snapshot, xid);
}

/*
 * Tell whether durable messages of this round, and transaction, are left to a
 * scan.
 */
static bool
is_left(uint32 round, FullTransactionId xid)
{
	return is_before(round, drop_round) || was_scanned(xid);
}

static void
drop_deferred(void)
{
	dsa_pointer pointer;

	while (DsaPointerIsValid(pointer = rinq_chunks_take(&deferred)))
		rinq_sendqueue_free(the_queue(), pointer);
	deferred_bytes = 0;
}

/*
 * Give the memory back of what is held, which is left to another scan.
 */
static void
shed_deferred(void)
{
	RinqSendMode mode;

	rinq_sendqueue_state(the_queue(), &mode, &drop_round);
	if (mode == RINQ_SEND_DIRECT)
		drop_round = rinq_sendqueue_leave_direct(the_queue());
	drop_deferred();
}

/*
 * Defer the durable messages of a chunk, all others of which have been sent.
 */
static void
defer_chunk(dsa_pointer pointer, uint32 round)
{
	RinqChunk  *chunk = rinq_chunk(pointer);

	if (is_left(round, chunk->xid))
	{
		rinq_sendqueue_free(the_queue(), pointer);
		return;
	}
	chunk->round = round;
	chunk->plain = 0;
	deferred_bytes += chunk->charge;
	rinq_chunks_add(&deferred, pointer);
	if (deferred_bytes > rinq_sendqueue_limit() / 4)
		shed_deferred();
}

/* Take the next of the deferred chunks that need not wait any more. */
static bool
take_deferred(RinqTaken * taken)
{
	while (DsaPointerIsValid(deferred.first))
	{
		RinqChunk  *chunk = rinq_chunk(deferred.first);

		if (is_before(done_round, chunk->round) && !is_left(chunk->round, chunk->xid))
			return false;
		deferred_bytes -= chunk->charge;
		taken->chunk = rinq_chunks_take(&deferred);
		taken->part = RINQ_PART_DURABLE;
		taken->defer = false;
		if (!is_left(chunk->round, chunk->xid))
			return true;
		rinq_sendqueue_free(the_queue(), taken->chunk);
	}
	return false;
}

/* Take the next chunk of a transaction of which something can be sent now. */
static bool
take_transaction(RinqTaken * taken)
{
	dsa_pointer pointer;

	while (DsaPointerIsValid(pointer = rinq_sendqueue_get(the_queue(), RINQ_SEND_LIST_TRANSACTIONS)))
	{
		RinqChunk  *chunk = rinq_chunk(pointer);
		bool		left;

		if (chunk->first)
		{
			chain_left = chunk->left;
			chain_round = chunk->round;
		}
		left = chain_left || is_left(chain_round, chunk->xid);
		taken->chunk = pointer;
		taken->part = RINQ_PART_ALL;
		taken->defer = false;
		if (!chunk->has_durable)
			return true;
		if (left || is_before(done_round, chain_round))
		{
			taken->part = RINQ_PART_PLAIN;
			taken->defer = !left;
			taken->round = chain_round;
		}
		if (taken->part == RINQ_PART_ALL || chunk->plain > 0)
			return true;
		rinq_intake_sent(taken);
	}
	return false;
}

/* ---------------- what the outbox worker says ---------------- */

static void
take_scan_snapshot(RinqChunk *chunk)
{
	const RinqScanSnapshot *snapshot = (const RinqScanSnapshot *) RINQ_CHUNK_DATA(chunk);
	RinqScanSnapshot *copy;
	Size		size;

	if (chunk->size < offsetof(RinqScanSnapshot, xip) ||
		snapshot->count > (chunk->size - offsetof(RinqScanSnapshot, xip)) / sizeof(TransactionId))
		elog(ERROR, "corrupt message in rinq's shared memory");
	size = offsetof(RinqScanSnapshot, xip) + snapshot->count * sizeof(TransactionId);
	copy = MemoryContextAlloc(TopMemoryContext, size);
	memcpy(copy, snapshot, size);
	if (scan_snapshot != NULL)
		pfree(scan_snapshot);
	scan_snapshot = copy;
}

/* forget what a scan has brought; it brings that again */
static void
drop_stored(void)
{
	RinqChunkList all = stored;
	dsa_pointer pointer;

	stored.first = InvalidDsaPointer;
	stored.last = InvalidDsaPointer;
	while (DsaPointerIsValid(pointer = rinq_chunks_take(&all)))
	{
		if (rinq_chunk(pointer)->kind == RINQ_CHUNK_FETCHED ||
			rinq_chunk(pointer)->kind == RINQ_CHUNK_RELEASED)
			rinq_chunks_add(&stored, pointer);
		else
			rinq_sendqueue_free(the_queue(), pointer);
	}
}

static RinqReportTaker other_reports = NULL;

/*
 * Have reports of other things than messages taken by a function.
 */
void
rinq_intake_set_taker(RinqReportTaker taker)
{
	other_reports = taker;
}

static bool
is_current_scan(const RinqChunk *chunk)
{
	return scanning && chunk->scan == scan_number;
}

/* deal with a report; false when it is a chunk to be sent, and kept */
static bool
take_report(RinqChunk *chunk, RinqTaken * current)
{
	switch (chunk->kind)
	{
		case RINQ_CHUNK_REMOVED:
			rinq_sent_removed(rinq_chunk_items(chunk, sizeof(RinqOutboxItem)), chunk->count);
			return true;
		case RINQ_CHUNK_LISTED:
			rinq_outbox_listed(rinq_chunk_items(chunk, sizeof(RinqOutboxItem)), chunk->count);
			return true;
		case RINQ_CHUNK_FETCHED:
			return false;
		case RINQ_CHUNK_RELEASED:
			rinq_sent_expect(chunk);
			return false;
		case RINQ_CHUNK_LOOKED:
			rinq_outbox_looked();
			return true;
		case RINQ_CHUNK_RESPONSES_STORED:
		case RINQ_CHUNK_CALLS_DUE:
		case RINQ_CHUNK_SOURCE_READ:
			other_reports(chunk);
			return true;
		case RINQ_CHUNK_SNAPSHOT:
			if (!is_current_scan(chunk))
				return true;

			/* when it is not the first of this scan, that has begun again */
			take_scan_snapshot(chunk);
			drop_stored();
			if (DsaPointerIsValid(current->chunk) &&
				rinq_chunk(current->chunk)->kind == RINQ_CHUNK_STORED)
				rinq_intake_sent(current);
			return true;
		case RINQ_CHUNK_STORED:
			if (!is_current_scan(chunk))
				return true;
			rinq_sent_sift(chunk);
			return false;
		default:
			Assert(chunk->kind == RINQ_CHUNK_SCANNED);
			if (!is_current_scan(chunk))
				return true;
			scan_ended = true;
			return false;
	}
}

/*
 * Deal with what the outbox worker has answered, in the order in which it was
 * done, which is before anything of it is sent: whether the peer knows a message
 * already is decided when it comes.  "current" is what is being sent.
 */
void
rinq_intake_reports(RinqTaken * current)
{
	dsa_pointer pointer;

	while (DsaPointerIsValid(pointer = rinq_sendqueue_get(the_queue(), RINQ_SEND_LIST_REPORTS)))
	{
		if (take_report(rinq_chunk(pointer), current))
			rinq_sendqueue_free(the_queue(), pointer);
		else
			rinq_chunks_add(&stored, pointer);
	}
}

static bool
take_stored(RinqTaken * taken)
{
	while (DsaPointerIsValid(taken->chunk = rinq_chunks_take(&stored)))
	{
		taken->part = RINQ_PART_ALL;
		taken->defer = false;
		if (rinq_chunk(taken->chunk)->kind != RINQ_CHUNK_SCANNED)
			return true;
		Assert(is_current_scan(rinq_chunk(taken->chunk)));
		scanning = false;
		done_round = scan_round;
		rinq_sendqueue_free(the_queue(), taken->chunk);
	}
	return false;
}

/* ---------------- taking chunks ---------------- */

/*
 * Take the next chunk of which something is to be sent; false when there is
 * none now.
 */
bool
rinq_intake_next(RinqTaken * taken)
{
	static bool turn = false;

	/* a long scan and what transactions send from memory take turns */
	turn = !turn;
	if (turn && (take_deferred(taken) || take_transaction(taken)))
		return true;
	if (take_stored(taken))
		return true;
	if (take_deferred(taken) || take_transaction(taken))
		return true;
	taken->chunk = InvalidDsaPointer;
	return false;
}

/*
 * Finish a chunk of which was sent what was to be sent.  Tells those who wait
 * for room.
 */
void
rinq_intake_sent(RinqTaken * taken)
{
	RinqSendQueue *queue = the_queue();

	if (taken->defer)
		defer_chunk(taken->chunk, taken->round);
	else
		rinq_sendqueue_free(queue, taken->chunk);
	taken->chunk = InvalidDsaPointer;
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
 * Tell whether anything is there that waits to be sent, or for a scan.
 */
bool
rinq_intake_busy(void)
{
	return scanning || DsaPointerIsValid(stored.first) || DsaPointerIsValid(deferred.first) ||
		DsaPointerIsValid(rinq_sendqueue_peek(the_queue(), RINQ_SEND_LIST_TRANSACTIONS));
}

/*
 * Tell whether a scan of the outbox is due, or under way.
 */
bool
rinq_intake_scans(void)
{
	RinqSendMode mode;
	uint32		round;

	rinq_sendqueue_state(the_queue(), &mode, &round);
	return scanning || is_before(done_round, round);
}

/* ---------------- scans ---------------- */

/*
 * Tell whether there are messages that were handed over, and go before the
 * next scan.
 */
static bool
some_go_first(const RinqTaken * current)
{
	dsa_pointer pointer;
	RinqChunk  *chunk;

	if (DsaPointerIsValid(current->chunk) && current->part != RINQ_PART_PLAIN &&
		rinq_chunk(current->chunk)->kind == RINQ_CHUNK_TRANSACTION)
		return true;
	if (DsaPointerIsValid(deferred.first) &&
		!is_before(done_round, rinq_chunk(deferred.first)->round))
		return true;
	pointer = rinq_sendqueue_peek(the_queue(), RINQ_SEND_LIST_TRANSACTIONS);
	if (!DsaPointerIsValid(pointer))
		return false;
	chunk = rinq_chunk(pointer);
	if (chunk->first)
		return !chunk->left && !is_before(done_round, chunk->round);
	return !chain_left && !is_before(done_round, chain_round);
}

/*
 * Have the outbox worker scan, when that is wanted.  Returns when to look
 * again, or 0.
 */
int64
rinq_intake_scan(const RinqTaken * current)
{
	RinqSendMode mode;
	uint32		round;

	if (the_queue()->starved && DsaPointerIsValid(deferred.first))
		shed_deferred();
	if (scanning || !rinq_peer.ready || !rinq_outbox_is_ours())
		return 0;
	rinq_sendqueue_state(the_queue(), &mode, &round);
	if (!is_before(done_round, round) || some_go_first(current))
		return 0;
	if (mode == RINQ_SEND_STORED)
	{
		rinq_sendqueue_pack(the_queue());
		packing_since = rinq_peer.now;
	}
	if (rinq_peer.now < packing_since + PACK_DELAY)
		return packing_since + PACK_DELAY;
	if (!rinq_outbox_link_up() || !rinq_outbox_tell_scan(scan_number + 1, round))
		return rinq_peer.now + RINQ_SENDER_RETRY;
	scanning = true;
	scan_ended = false;
	scan_number++;
	scan_round = round;
	return 0;
}

/*
 * End the scan of an outbox worker that has ended.
 */
void
rinq_intake_worker_lost(void)
{
	if (!scanning || scan_ended)
		return;
	scanning = false;
	scan_number++;
}

/*
 * Leave durable messages to the scan that comes with the next connection,
 * since this one is lost.  Others stay.
 */
void
rinq_intake_connection_lost(RinqTaken * current)
{
	scanning = false;
	scan_number++;
	drop_round = rinq_sendqueue_leave_direct(the_queue());
	drop_deferred();
	drop_stored();
	if (!DsaPointerIsValid(current->chunk))
		return;
	current->defer = false;
	if (rinq_chunk(current->chunk)->kind == RINQ_CHUNK_STORED ||
		current->part == RINQ_PART_DURABLE)
		rinq_intake_sent(current);
	else if (rinq_chunk(current->chunk)->kind == RINQ_CHUNK_TRANSACTION)
		current->part = RINQ_PART_PLAIN;
}

/*
 * Give back the memory of what was deferred, since the peer ends.
 */
void
rinq_intake_end(void)
{
	dsa_pointer pointer;

	drop_deferred();
	while (DsaPointerIsValid(pointer = rinq_chunks_take(&stored)))
		rinq_sendqueue_free(the_queue(), pointer);
}
