/*-------------------------------------------------------------------------
 *
 * ipc/sendqueue.c
 *	  Queues of chunks between transactions, the peer and the outbox worker.
 *
 * What the chunks mean is the business of those who make and read them; here
 * is their layout, how much of them there may be, and the lock that makes the
 * order in which they are linked the order in which everybody sees them.
 *
 * Chunks count from when they are made until the peer has freed them, whether
 * they are in a list or in the hands of a process.  What transactions send may
 * take half of the payload area, of all databases together, so that it cannot
 * get in the way of calls, or of the outbox worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/outbox_due.h"
#include "ipc/sendqueue.h"
#include "miscadmin.h"

/*
 * Return the bytes that a message with these fields takes.
 */
Size
rinq_outbound_size(const RinqFields *fields)
{
	return MAXALIGN(offsetof(RinqOutbound, data) + rinq_fields_size(fields));
}

/*
 * Write length and fields of a message; the rest of it is the caller's.
 */
void
rinq_outbound_write(RinqOutbound *message, const RinqFields *fields)
{
	message->size = (uint32) rinq_fields_size(fields);
	message->length = (uint32) rinq_outbound_size(fields);
	rinq_fields_write(fields, message->data);
}

/*
 * Find the fields of a message; they point into it.
 */
void
rinq_outbound_read(const RinqOutbound *message, RinqFields *fields)
{
	RinqBytes	packed = rinq_bytes(message->data, message->size);

	if (message->length < offsetof(RinqOutbound, data) ||
		message->size > message->length - offsetof(RinqOutbound, data) ||
		!rinq_fields_read(fields, RINQ_KIND_SEND, &packed) || packed.len > 0)
		elog(ERROR, "corrupt message in rinq's shared memory");
}

/*
 * Return the bytes that a chunk with room for "size" bytes takes.
 */
Size
rinq_chunk_charge(Size size)
{
	return MAXALIGN(sizeof(RinqChunk)) + size;
}

/*
 * Allocate a chunk with room for "size" bytes; InvalidDsaPointer when the
 * payload area is full.
 */
dsa_pointer
rinq_chunk_alloc(RinqChunkKind kind, Size size)
{
	Size		charge = rinq_chunk_charge(size);
	dsa_pointer pointer = dsa_allocate_extended(rinq_dsa(), charge,
												DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
	RinqChunk  *chunk;

	if (!DsaPointerIsValid(pointer))
		return InvalidDsaPointer;
	chunk = rinq_chunk(pointer);
	memset(chunk, 0, sizeof(*chunk));
	chunk->next = InvalidDsaPointer;
	chunk->kind = kind;
	chunk->charge = charge;
	chunk->size = (uint32) size;
	return pointer;
}

RinqChunk *
rinq_chunk(dsa_pointer pointer)
{
	Assert(DsaPointerIsValid(pointer));
	return dsa_get_address(rinq_dsa(), pointer);
}

/*
 * Return the message that begins at a byte of a chunk's data; it has to be all
 * there.
 */
RinqOutbound *
rinq_chunk_message(RinqChunk *chunk, Size at)
{
	RinqOutbound *message = (RinqOutbound *) (RINQ_CHUNK_DATA(chunk) + at);
	Size		left = chunk->size - at;

	Assert(at < chunk->size);
	if (left < offsetof(RinqOutbound, data) || message->length < offsetof(RinqOutbound, data) ||
		message->length > left || message->length != MAXALIGN(message->length))
		elog(ERROR, "corrupt message in rinq's shared memory");
	return message;
}

/*
 * Return the things of one size that a chunk has; they have to be all there.
 */
void *
rinq_chunk_items(RinqChunk *chunk, Size item_size)
{
	if (chunk->count > chunk->size / item_size)
		elog(ERROR, "corrupt message in rinq's shared memory");
	return RINQ_CHUNK_DATA(chunk);
}

/*
 * Frees a chunk that nothing counts, and all that hang on it.
 */
void
rinq_chunk_free(dsa_pointer pointer)
{
	while (DsaPointerIsValid(pointer))
	{
		dsa_pointer next = rinq_chunk(pointer)->next;

		dsa_free(rinq_dsa(), pointer);
		pointer = next;
	}
}

/*
 * Add a chunk, and what hangs on it, to a list; "last" is the last of these.
 */
static void
link_chunks(RinqChunkList *list, dsa_pointer first, dsa_pointer last)
{
	Assert(DsaPointerIsValid(first) && DsaPointerIsValid(last));
	Assert(!DsaPointerIsValid(rinq_chunk(last)->next));
	if (DsaPointerIsValid(list->last))
		rinq_chunk(list->last)->next = first;
	else
		list->first = first;
	list->last = last;
}

void
rinq_chunks_add(RinqChunkList *list, dsa_pointer pointer)
{
	link_chunks(list, pointer, pointer);
}

/*
 * Take the oldest chunk of a list, or InvalidDsaPointer.
 */
dsa_pointer
rinq_chunks_take(RinqChunkList *list)
{
	dsa_pointer pointer = list->first;
	RinqChunk  *chunk;

	if (!DsaPointerIsValid(pointer))
		return InvalidDsaPointer;
	chunk = rinq_chunk(pointer);
	Assert(DsaPointerIsValid(chunk->next) == (pointer != list->last));
	list->first = chunk->next;
	if (!DsaPointerIsValid(list->first))
		list->last = InvalidDsaPointer;
	chunk->next = InvalidDsaPointer;
	return pointer;
}

static void
clear_list(RinqChunkList *list)
{
	list->first = InvalidDsaPointer;
	list->last = InvalidDsaPointer;
}

void
rinq_sendqueue_init(RinqSendQueue *queue, LWLock *lock)
{
	int			i;

	memset(queue, 0, sizeof(*queue));
	queue->lock = lock;
	queue->mode = RINQ_SEND_STORED;
	for (i = 0; i < RINQ_SEND_LISTS; i++)
		clear_list(&queue->lists[i]);
}

/*
 * Open the queue of a database, whose peer begins to read it.
 */
void
rinq_sendqueue_open(RinqDatabase *db)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	queue->dboid = db->oid;
	LWLockRelease(queue->lock);
}

/* count messages that only memory had, and that are not sent */
static void
count_dropped(RinqDatabase *db, uint64 messages)
{
	if (messages > 0)
		pg_atomic_fetch_add_u64(&db->counters[RINQ_MESSAGES_DROPPED], messages);
}

/* free what was in a list; "charge" grows by what transactions had reserved */
static void
free_chunk_list(RinqDatabase *db, dsa_pointer pointer, Size *charge)
{
	uint64		dropped = 0;

	while (DsaPointerIsValid(pointer))
	{
		RinqChunk  *chunk = rinq_chunk(pointer);
		dsa_pointer next = chunk->next;

		dropped += chunk->plain;
		if (chunk->kind == RINQ_CHUNK_TRANSACTION)
			*charge += chunk->charge;
		dsa_free(rinq_dsa(), pointer);
		pointer = next;
	}
	count_dropped(db, dropped);
}

/*
 * Drop what is on its way, because the peer has ended or another one begins;
 * what is durable of it is found by a scan.
 */
void
rinq_sendqueue_reset(RinqDatabase *db)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	dsa_pointer lists[RINQ_SEND_LISTS];
	Size		charge = 0;
	int			i;

	(void) rinq_dsa();
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	for (i = 0; i < RINQ_SEND_LISTS; i++)
	{
		lists[i] = queue->lists[i].first;
		clear_list(&queue->lists[i]);
	}
	queue->dboid = InvalidOid;
	queue->generation++;
	queue->reserved = 0;
	queue->reported = 0;
	queue->mode = RINQ_SEND_STORED;
	queue->round++;
	LWLockRelease(queue->lock);
	for (i = 0; i < RINQ_SEND_LISTS; i++)
		free_chunk_list(db, lists[i], &charge);
	pg_atomic_fetch_sub_u64(&rinq_shared->send_bytes, charge);
}

/* ---------------- transactions ---------------- */

/*
 * Return the bytes that one database may have on their way to its peer.
 */
Size
rinq_sendqueue_limit(void)
{
	return Min((Size) rinq_send_buffer, (Size) rinq_payload_memory / 2) * 1024 * 1024;
}

/* Return the bytes that all databases together may have on their way. */
static Size
limit_of_all(void)
{
	return (Size) rinq_payload_memory / 2 * 1024 * 1024;
}

/* Tell whether there is room for this many bytes; the lock is held. */
static bool
sendqueue_has_room(const RinqSendQueue *queue, Size bytes)
{
	Assert(LWLockHeldByMe(queue->lock));
	return queue->reserved + bytes <= rinq_sendqueue_limit() &&
		pg_atomic_read_u64(&rinq_shared->send_bytes) + bytes <= limit_of_all();
}

/*
 * Tell whether there is room for this many bytes now.
 */
bool
rinq_sendqueue_has_room(RinqSendQueue *queue, Size bytes)
{
	bool		result;

	LWLockAcquire(queue->lock, LW_SHARED);
	result = sendqueue_has_room(queue, bytes);
	LWLockRelease(queue->lock);
	return result;
}

/*
 * Begin to pack: are durable messages to be packed, too?
 */
bool
rinq_sendqueue_wants(RinqSendQueue *queue, RinqPacked *packed)
{
	bool		result;

	LWLockAcquire(queue->lock, LW_SHARED);
	result = queue->mode != RINQ_SEND_STORED;
	packed->generation = queue->generation;
	packed->counting = queue->counting;
	LWLockRelease(queue->lock);
	return result;
}

/*
 * Reserve room for chunks that are about to be made; false when there is none.
 */
bool
rinq_sendqueue_reserve(RinqSendQueue *queue, RinqPacked *packed, Size charge)
{
	bool		result;

	Assert(packed->charge == 0);
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	result = sendqueue_has_room(queue, charge);
	if (result)
	{
		queue->reserved += charge;
		pg_atomic_fetch_add_u64(&rinq_shared->send_bytes, charge);
		packed->generation = queue->generation;
		packed->charge = charge;
	}
	LWLockRelease(queue->lock);
	return result;
}

/* Release what a chunk was charged for; the lock is held. */
static void
release_charge(RinqSendQueue *queue, Size charge, uint32 generation)
{
	Assert(LWLockHeldByMeInMode(queue->lock, LW_EXCLUSIVE));
	if (queue->generation == generation)
	{
		Assert(queue->reserved >= charge);
		queue->reserved -= charge;
	}
	Assert(pg_atomic_read_u64(&rinq_shared->send_bytes) >= charge);
	pg_atomic_fetch_sub_u64(&rinq_shared->send_bytes, charge);
}

/*
 * Give up what was packed, or reserved for that.
 */
void
rinq_sendqueue_unreserve(RinqSendQueue *queue, RinqPacked *packed)
{
	rinq_chunk_free(packed->first);
	if (packed->charge > 0)
	{
		LWLockAcquire(queue->lock, LW_EXCLUSIVE);
		release_charge(queue, packed->charge, packed->generation);
		LWLockRelease(queue->lock);
	}
	packed->first = InvalidDsaPointer;
	packed->last = InvalidDsaPointer;
	packed->charge = 0;
}

/*
 * Have transactions leave durable messages in the outbox from now on; the lock
 * is held.
 */
static void
leave_direct_mode(RinqSendQueue *queue)
{
	Assert(LWLockHeldByMeInMode(queue->lock, LW_EXCLUSIVE));
	queue->mode = RINQ_SEND_STORED;
	queue->round++;
}

/*
 * Count the rows that a transaction has added to the outbox, which has committed
 * (outbox_depth.c); the lock is held.
 */
static void
count_committed_rows(RinqDatabase *db, const RinqPacked *packed)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);

	Assert(LWLockHeldByMe(queue->lock));
	if (db->oid != MyDatabaseId)
		return;
	if (packed->counting == queue->counting && !queue->count_begins)
		pg_atomic_fetch_add_u64(&db->outbox_depth, packed->stored);
	else if (queue->num_doubts < RINQ_DEPTH_DOUBTS)
	{
		RinqDepthDoubt *doubt = &queue->doubts[queue->num_doubts++];

		Assert(FullTransactionIdIsValid(packed->xid) && packed->stored > 0);
		doubt->xid = packed->xid;
		doubt->rows = packed->stored;
	}
	else
		queue->miscounted = true;
}

/*
 * Hands over what a transaction has sent, now that it is committed; nothing
 * here can fail.  Its durable messages are left in the outbox while others are,
 * and when it could not pack them; then those of all that commit later are, too,
 * so that they do not overtake it.
 */
void
rinq_sendqueue_commit(RinqDatabase *db, RinqPacked *packed)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	bool		direct;
	bool		left = false;
	bool		taken = false;
	bool		here;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	here = queue->dboid == MyDatabaseId;
	direct = here && queue->mode == RINQ_SEND_DIRECT;
	if (direct && (packed->want_scan || (packed->stored > 0 && !packed->has_durable)))
	{
		leave_direct_mode(queue);
		direct = false;
		left = true;
	}
	if (here && DsaPointerIsValid(packed->first) && (direct || packed->plain > 0))
	{
		RinqChunk  *first = rinq_chunk(packed->first);

		first->first = true;
		first->left = !direct;
		first->round = queue->round;
		Assert(packed->charge > 0 && first->kind == RINQ_CHUNK_TRANSACTION);
		link_chunks(&queue->lists[RINQ_SEND_LIST_TRANSACTIONS], packed->first, packed->last);
		if (queue->generation != packed->generation)
			queue->reserved += packed->charge;
		taken = true;
	}
	if (packed->stored > 0)
		count_committed_rows(db, packed);
	LWLockRelease(queue->lock);
	if (taken)
	{
		packed->first = InvalidDsaPointer;
		packed->charge = 0;
	}
	else
	{
		if (here || db->oid == MyDatabaseId)
			count_dropped(db, packed->plain);
		rinq_sendqueue_unreserve(queue, packed);
	}
	if (taken || left)
		rinq_wake_peer(db);
}

/*
 * Ask for a scan: there is, or may be, something in the outbox that was not
 * handed over.
 */
void
rinq_sendqueue_want_scan(RinqDatabase *db)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	bool		left;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	left = queue->dboid == MyDatabaseId && queue->mode == RINQ_SEND_DIRECT;
	if (left)
		leave_direct_mode(queue);
	LWLockRelease(queue->lock);

	/* and so there may be in what waits */
	if (rinq_due_lower(db, DT_NOBEGIN) || left)
		rinq_wake_peer(db);
}

/* ---------------- the peer and its outbox worker ---------------- */

/*
 * Give the outbox worker something to do.
 */
void
rinq_sendqueue_order(RinqDatabase *db, dsa_pointer pointer)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);

	Assert(rinq_chunk(pointer)->kind >= RINQ_CHUNK_SCAN);
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	link_chunks(&queue->lists[RINQ_SEND_LIST_ORDERS], pointer, pointer);
	LWLockRelease(queue->lock);
	rinq_wake_proc(db->outbox.procno);
}

/*
 * Hand a report of the outbox worker to the peer of this incarnation; false,
 * with the chunk freed, when that has ended.
 */
bool
rinq_sendqueue_report(RinqDatabase *db, dsa_pointer pointer, uint32 incarnation)
{
	RinqSendQueue *queue = rinq_sendqueue_of(db);
	RinqChunk  *chunk = rinq_chunk(pointer);
	bool		current;

	Assert(chunk->kind > RINQ_CHUNK_TRANSACTION && chunk->kind < RINQ_CHUNK_SCAN);
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	current = queue->dboid == MyDatabaseId && db->incarnation == incarnation;
	if (current)
	{
		queue->reported += chunk->charge;
		link_chunks(&queue->lists[RINQ_SEND_LIST_REPORTS], pointer, pointer);
	}
	LWLockRelease(queue->lock);
	if (current)
		rinq_wake_peer(db);
	else
		rinq_chunk_free(pointer);
	return current;
}

/*
 * Return the oldest chunk of a list, or InvalidDsaPointer; only the process
 * that takes from the list may ask.
 */
dsa_pointer
rinq_sendqueue_peek(RinqSendQueue *queue, RinqSendList list)
{
	dsa_pointer pointer;

	Assert(list >= 0 && list < RINQ_SEND_LISTS);

	/* mostly there is nothing, which costs no lock to see */
	if (!DsaPointerIsValid(*(volatile dsa_pointer *) &queue->lists[list].first))
		return InvalidDsaPointer;
	LWLockAcquire(queue->lock, LW_SHARED);
	pointer = queue->lists[list].first;
	LWLockRelease(queue->lock);
	return pointer;
}

/*
 * Take the oldest chunk of a list, or InvalidDsaPointer.
 */
dsa_pointer
rinq_sendqueue_get(RinqSendQueue *queue, RinqSendList list)
{
	dsa_pointer pointer;

	Assert(list >= 0 && list < RINQ_SEND_LISTS);
	if (!DsaPointerIsValid(*(volatile dsa_pointer *) &queue->lists[list].first))
		return InvalidDsaPointer;

	/* attached here, since that may fail */
	(void) rinq_dsa();
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	pointer = rinq_chunks_take(&queue->lists[list]);
	LWLockRelease(queue->lock);
	return pointer;
}

/*
 * Free a chunk that the peer has taken.
 */
void
rinq_sendqueue_free(RinqSendQueue *queue, dsa_pointer pointer)
{
	RinqChunk  *chunk;
	RinqChunkKind kind;
	Size		charge;

	if (!DsaPointerIsValid(pointer))
		return;
	chunk = rinq_chunk(pointer);
	kind = chunk->kind;
	charge = chunk->charge;
	Assert(!DsaPointerIsValid(chunk->next));
	dsa_free(rinq_dsa(), pointer);
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	if (kind == RINQ_CHUNK_TRANSACTION)
		release_charge(queue, charge, queue->generation);
	else
	{
		Assert(queue->reported >= charge);
		queue->reported -= charge;
	}
	LWLockRelease(queue->lock);
}

/*
 * Return the bytes of the outbox worker's reports that the peer has not dealt
 * with.
 */
Size
rinq_sendqueue_report_bytes(RinqSendQueue *queue)
{
	Size		bytes;

	LWLockAcquire(queue->lock, LW_SHARED);
	bytes = queue->reported;
	LWLockRelease(queue->lock);
	return bytes;
}

/*
 * Drop what an outbox worker that has ended was told.
 */
void
rinq_sendqueue_drop_orders(RinqSendQueue *queue)
{
	dsa_pointer pointer;

	while (DsaPointerIsValid(pointer = rinq_sendqueue_get(queue, RINQ_SEND_LIST_ORDERS)))
		rinq_chunk_free(pointer);
}

/* ---------------- how durable messages get to the peer ---------------- */

void
rinq_sendqueue_state(RinqSendQueue *queue, RinqSendMode *mode, uint32 *round)
{
	LWLockAcquire(queue->lock, LW_SHARED);
	*mode = queue->mode;
	*round = queue->round;
	LWLockRelease(queue->lock);
}

/*
 * Have transactions pack durable messages again, since a scan is about to
 * begin: those that commit after its beginning can hand them over.
 */
void
rinq_sendqueue_pack(RinqSendQueue *queue)
{
	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	if (queue->mode == RINQ_SEND_STORED)
		queue->mode = RINQ_SEND_PACKED;
	LWLockRelease(queue->lock);
}

/*
 * Have transactions hand durable messages over from now on.  What they have
 * left in the outbox before is seen by every snapshot that is taken from now
 * on, since they were visible by then.  False when the peer has left direct
 * mode since it asked for this, in that round.
 */
bool
rinq_sendqueue_go_direct(RinqSendQueue *queue, uint32 round)
{
	bool		current;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	current = queue->dboid == MyDatabaseId && queue->round == round;
	if (current)
		queue->mode = RINQ_SEND_DIRECT;
	LWLockRelease(queue->lock);
	return current;
}

/*
 * Have transactions leave durable messages in the outbox, until it has been
 * scanned.  Returns the round of the next scan.
 */
uint32
rinq_sendqueue_leave_direct(RinqSendQueue *queue)
{
	uint32		round;

	LWLockAcquire(queue->lock, LW_EXCLUSIVE);
	leave_direct_mode(queue);
	round = queue->round;
	LWLockRelease(queue->lock);
	return round;
}
