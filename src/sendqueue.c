/*-------------------------------------------------------------------------
 *
 * sendqueue.c
 *	  Queues of chunks between transactions, the peer and the outbox worker.
 *
 * What the chunks mean is the business of those who make and read them; here
 * is their layout, and the lock that makes the order in which they are linked
 * the order in which everybody sees them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "channel.h"
#include "sendqueue.h"

/*
 * Bytes that a message with these fields takes.
 */
Size
rinq_outgoing_size(const RinqBytes *fields)
{
	Size		size = offsetof(RinqOutgoing, data);
	int			i;

	for (i = 0; i < RINQ_SEND_FIELDS; i++)
		size += fields[i].len;
	return MAXALIGN(size);
}

/*
 * Writes length and fields of a message; the rest of it is the caller's.
 */
void
rinq_outgoing_write(RinqOutgoing *message, const RinqBytes *fields)
{
	char	   *p = message->data;
	int			i;

	message->length = (uint32) rinq_outgoing_size(fields);
	for (i = 0; i < RINQ_SEND_FIELDS; i++)
	{
		message->lengths[i] = fields[i].data == NULL ? PG_UINT32_MAX : (uint32) fields[i].len;
		if (fields[i].data == NULL || fields[i].len == 0)
			continue;
		memcpy(p, fields[i].data, fields[i].len);
		p += fields[i].len;
	}
}

/*
 * Finds the fields of a message; they point into it.
 */
void
rinq_outgoing_read(const RinqOutgoing *message, RinqBytes *fields)
{
	const char *p = message->data;
	int			i;

	for (i = 0; i < RINQ_SEND_FIELDS; i++)
	{
		if (message->lengths[i] == PG_UINT32_MAX)
		{
			fields[i] = rinq_bytes(NULL, 0);
			continue;
		}
		fields[i] = rinq_bytes(p, message->lengths[i]);
		p += message->lengths[i];
	}
}

/*
 * A chunk with room for "size" bytes, or InvalidDsaPointer when the payload
 * area is full.
 */
dsa_pointer
rinq_chunk_alloc(RinqChunkKind kind, Size size)
{
	dsa_pointer pointer = dsa_allocate_extended(rinq_dsa(),
												MAXALIGN(sizeof(RinqChunk)) + size,
												DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
	RinqChunk  *chunk;

	if (!DsaPointerIsValid(pointer))
		return InvalidDsaPointer;
	chunk = rinq_chunk(pointer);
	memset(chunk, 0, sizeof(*chunk));
	chunk->next = InvalidDsaPointer;
	chunk->kind = kind;
	chunk->size = (uint32) size;
	return pointer;
}

RinqChunk *
rinq_chunk(dsa_pointer pointer)
{
	return dsa_get_address(rinq_dsa(), pointer);
}

/*
 * Frees a chunk and all that hang on it.
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

static void
clear_queue(RinqChunkQueue *which)
{
	which->first = InvalidDsaPointer;
	which->last = InvalidDsaPointer;
	which->bytes = 0;
}

void
rinq_sendqueue_init(RinqSendQueue *queue)
{
	memset(queue, 0, sizeof(*queue));
	SpinLockInit(&queue->lock);
	clear_queue(&queue->to_peer);
	clear_queue(&queue->to_outbox);
}

/*
 * The peer has ended, or another one begins: what was on its way is dropped,
 * and what is durable of it is found by a scan.
 */
void
rinq_sendqueue_reset(RinqDatabase *db, uint32 incarnation)
{
	RinqSendQueue *queue = &rinq_channel_of(db)->send;
	dsa_pointer to_peer;
	dsa_pointer to_outbox;

	SpinLockAcquire(&queue->lock);
	to_peer = queue->to_peer.first;
	to_outbox = queue->to_outbox.first;
	clear_queue(&queue->to_peer);
	clear_queue(&queue->to_outbox);
	queue->direct = false;
	queue->scan_wanted++;
	queue->incarnation = incarnation;
	SpinLockRelease(&queue->lock);
	rinq_chunk_free(to_peer);
	rinq_chunk_free(to_outbox);
}

/* links a list of chunks; the lock is held */
static void
link_chunks(RinqChunkQueue *which, dsa_pointer first)
{
	if (DsaPointerIsValid(which->last))
		rinq_chunk(which->last)->next = first;
	else
		which->first = first;
	while (DsaPointerIsValid(first))
	{
		which->bytes += rinq_chunk(first)->size;
		which->last = first;
		first = rinq_chunk(first)->next;
	}
}

/*
 * Hands a chunk over, between the peer of this incarnation and its outbox
 * worker; false, with the chunk freed, when that peer has ended.
 */
bool
rinq_sendqueue_put(RinqDatabase *db, dsa_pointer chunk, uint32 incarnation)
{
	RinqSendQueue *queue = &rinq_channel_of(db)->send;
	bool		to_outbox = rinq_chunk(chunk)->kind >= RINQ_CHUNK_SCAN;
	bool		current;

	SpinLockAcquire(&queue->lock);
	current = queue->incarnation == incarnation;
	if (current)
		link_chunks(to_outbox ? &queue->to_outbox : &queue->to_peer, chunk);
	SpinLockRelease(&queue->lock);
	if (!current)
		rinq_chunk_free(chunk);
	else if (to_outbox)
		rinq_wake_proc(db->outbox.procno);
	else
		rinq_wake_peer(db);
	return current;
}

/*
 * Hands over what a transaction has sent, now that it is committed; nothing
 * here can fail.  With "want_scan", its durable messages are only in the
 * outbox.  Returns false when "first" was not taken.
 */
bool
rinq_sendqueue_commit(RinqDatabase *db, dsa_pointer first, bool want_scan)
{
	RinqSendQueue *queue = &rinq_channel_of(db)->send;
	bool		taken = false;

	SpinLockAcquire(&queue->lock);
	if (DsaPointerIsValid(first) && queue->incarnation == db->incarnation)
	{
		link_chunks(&queue->to_peer, first);
		taken = true;
	}
	if (want_scan || !taken)
		queue->scan_wanted++;
	SpinLockRelease(&queue->lock);
	rinq_wake_peer(db);
	return taken;
}

/*
 * Takes the oldest chunk of one of the queues, or InvalidDsaPointer.
 */
dsa_pointer
rinq_sendqueue_get(RinqSendQueue *queue, RinqChunkQueue *which)
{
	dsa_pointer pointer;

	/* mostly there is nothing, which costs no lock to see */
	if (!DsaPointerIsValid(*(volatile dsa_pointer *) &which->first))
		return InvalidDsaPointer;
	SpinLockAcquire(&queue->lock);
	pointer = which->first;
	if (DsaPointerIsValid(pointer))
	{
		RinqChunk  *chunk = rinq_chunk(pointer);

		which->first = chunk->next;
		if (!DsaPointerIsValid(which->first))
			which->last = InvalidDsaPointer;
		which->bytes -= chunk->size;
		chunk->next = InvalidDsaPointer;
	}
	SpinLockRelease(&queue->lock);
	return pointer;
}

/*
 * Bytes on their way to the peer.
 */
Size
rinq_sendqueue_bytes(RinqSendQueue *queue)
{
	Size		bytes;

	SpinLockAcquire(&queue->lock);
	bytes = queue->to_peer.bytes;
	SpinLockRelease(&queue->lock);
	return bytes;
}

/*
 * Are durable messages handed over now?
 */
bool
rinq_sendqueue_direct(RinqSendQueue *queue)
{
	bool		direct;

	SpinLockAcquire(&queue->lock);
	direct = queue->direct;
	SpinLockRelease(&queue->lock);
	return direct;
}

/*
 * From now on they are; what was committed before is in the snapshot of a scan,
 * or asks for another one.
 */
void
rinq_sendqueue_go_direct(RinqSendQueue *queue)
{
	SpinLockAcquire(&queue->lock);
	queue->direct = true;
	SpinLockRelease(&queue->lock);
}

/*
 * From now on they are not, until the outbox has been scanned.
 */
void
rinq_sendqueue_leave_direct(RinqSendQueue *queue)
{
	SpinLockAcquire(&queue->lock);
	queue->direct = false;
	queue->scan_wanted++;
	SpinLockRelease(&queue->lock);
}

/*
 * There is, or may be, something in the outbox that nobody has handed over.
 */
void
rinq_sendqueue_want_scan(RinqDatabase *db)
{
	RinqSendQueue *queue = &rinq_channel_of(db)->send;

	SpinLockAcquire(&queue->lock);
	queue->scan_wanted++;
	SpinLockRelease(&queue->lock);
	rinq_wake_peer(db);
}

uint32
rinq_sendqueue_wanted(RinqSendQueue *queue)
{
	uint32		wanted;

	SpinLockAcquire(&queue->lock);
	wanted = queue->scan_wanted;
	SpinLockRelease(&queue->lock);
	return wanted;
}
