/*-------------------------------------------------------------------------
 *
 * commit_queue.c
 *	  Messages that a transaction sends, if and when it commits.
 *
 * They are collected in private memory, in the order written.  A rollback to
 * a savepoint cuts off the end.  Before the commit they are packed into the
 * payload area, which may fail and then fails the transaction; at the commit
 * they are linked into the peer's queue, which cannot.
 *
 * Durable messages are rows of the outbox as well, which decide: when there is
 * no room to hand them over, or no peer to hand them to, they are left to a
 * scan of the outbox, and the transaction commits all the same.
 *
 * Nothing leaves before the commit is on disk, whatever synchronous_commit says:
 * a crash cannot take back what others have been told.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "backend/commit_queue.h"
#include "backend/prepared.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/outbox_due.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#define FIRST_BUFFER_SIZE 1024
#define MAX_BUFFER_SIZE (256 * 1024)

/* messages, one after another, in the layout that they are sent in */
typedef struct SendBuffer
{
	struct SendBuffer *previous;
	Size		used;
	Size		size;
	uint32		count;
	uint32		plain;			/* of them that are not durable, */
	Size		plain_bytes;	/* and their size */
	char	   *data;
} SendBuffer;

typedef struct Totals
{
	int64		durable;		/* messages that are in the outbox */
	int64		plain;			/* the others */
	Size		bytes;			/* of all that are in the buffers */
	Size		plain_bytes;	/* of the others alone */
	bool		overflowed;		/* some durable ones are in the outbox only */
	bool		scan;			/* rows were written by hand */
	bool		waits;			/* messages were added to those that wait, or
								 * taken from them: */
	int64		waiting;		/* how many, and */
	TimestampTz due;			/* when to look at them */
} Totals;

/* where a subtransaction began */
typedef struct Mark
{
	struct Mark *previous;
	int			level;
	SendBuffer *buffer;
	Size		used;
	uint32		count;
	uint32		plain;
	Size		plain_bytes;
	Totals		totals;
} Mark;

static MemoryContext context = NULL;
static RinqDatabase *database;
static SendBuffer *last_buffer;
static Mark *last_mark;
static Totals totals;

/* packed, and waiting for the commit */
static RinqPacked packed = {InvalidDsaPointer, InvalidDsaPointer};

static void commit_queue_xact_callback(XactEvent event, void *arg);
static void subtransaction_event(SubXactEvent event, SubTransactionId id,
								 SubTransactionId parent, void *arg);

static void
reset_commit_queue(void)
{
	if (context != NULL)
		MemoryContextReset(context);
	last_buffer = NULL;
	last_mark = NULL;
	memset(&totals, 0, sizeof(totals));
}

/*
 * Release what was packed, also for a process that is terminated between
 * packing and committing.
 */
static void
release_packed(int code, Datum arg)
{
	if (database != NULL)
		rinq_sendqueue_unreserve(&rinq_slots_of(database)->send, &packed);
}

static void
begin_commit_queue(RinqDatabase *db)
{
	static bool registered = false;

	if (!registered)
	{
		context = AllocSetContextCreate(TopMemoryContext, "rinq transaction",
										ALLOCSET_DEFAULT_SIZES);
		RegisterXactCallback(commit_queue_xact_callback, NULL);
		RegisterSubXactCallback(subtransaction_event, NULL);
		before_shmem_exit(release_packed, (Datum) 0);
		registered = true;
	}
	database = db;
}

static void
set_mark(void)
{
	int			level = GetCurrentTransactionNestLevel();
	Mark	   *mark;

	if (level <= (last_mark == NULL ? 1 : last_mark->level))
		return;
	mark = MemoryContextAlloc(context, sizeof(Mark));
	mark->previous = last_mark;
	mark->level = level;
	mark->buffer = last_buffer;
	mark->used = last_buffer == NULL ? 0 : last_buffer->used;
	mark->count = last_buffer == NULL ? 0 : last_buffer->count;
	mark->plain = last_buffer == NULL ? 0 : last_buffer->plain;
	mark->plain_bytes = last_buffer == NULL ? 0 : last_buffer->plain_bytes;
	mark->totals = totals;
	last_mark = mark;
}

/* take back everything since a mark */
static void
cut_to_mark(Mark *mark)
{
	Assert(mark == last_mark);
	while (last_buffer != mark->buffer)
	{
		SendBuffer *buffer = last_buffer;

		Assert(buffer != NULL);
		last_buffer = buffer->previous;
		pfree(buffer->data);
		pfree(buffer);
	}
	if (last_buffer != NULL)
	{
		Assert(mark->used <= last_buffer->used && mark->count <= last_buffer->count);
		last_buffer->used = mark->used;
		last_buffer->count = mark->count;
		last_buffer->plain = mark->plain;
		last_buffer->plain_bytes = mark->plain_bytes;
	}
	totals = mark->totals;
	last_mark = mark->previous;
	pfree(mark);
}

static void
raise_no_room(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many messages wait to be sent"),
			 errdetail("The setting \"rinq.send_buffer\" allows %d MB of them for each database, in memory or in one transaction; and all databases together may use half of \"rinq.payload_memory\".",
					   (int) (rinq_sendqueue_limit() / (1024 * 1024))),
			 errhint("Commit more often, or send durable messages.")));
}

/* Reserve room for a message at the end. */
static char *
reserve_message(Size size)
{
	if (last_buffer == NULL || last_buffer->size - last_buffer->used < size)
	{
		SendBuffer *buffer = MemoryContextAlloc(context, sizeof(SendBuffer));

		buffer->size = last_buffer == NULL ? FIRST_BUFFER_SIZE :
			Min(MAX_BUFFER_SIZE, last_buffer->size * 4);
		buffer->size = Max(buffer->size, size);
		buffer->used = 0;
		buffer->count = 0;
		buffer->plain = 0;
		buffer->plain_bytes = 0;
		buffer->data = MemoryContextAllocHuge(context, buffer->size);
		buffer->previous = last_buffer;
		last_buffer = buffer;
	}
	return last_buffer->data + last_buffer->used;
}

/*
 * Wait until there is room for messages from memory, while the peer is at
 * work on those that are there; here, where a cancellation or a timeout ends
 * the waiting, and not at the commit.
 */
static void
wait_for_room(Size size)
{
	static uint32 wait_event = 0;
	RinqSendQueue *queue = &rinq_slots_of(database)->send;
	int64		deadline = rinq_clock_ms() + rinq_default_timeout;

	if (totals.plain_bytes + size > rinq_sendqueue_limit())
		raise_no_room();
	while (!rinq_sendqueue_has_room(queue, totals.plain_bytes + size))
	{
		int64		left = deadline - rinq_clock_ms();

		if (database->oid != MyDatabaseId || database->identity == 0 || left <= 0)
		{
			ConditionVariableCancelSleep();
			raise_no_room();
		}
		queue->senders_wait = true;
		(void) ConditionVariableTimedSleep(&database->changed, (long) Min(left, 100),
										   RINQ_WAIT_EVENT(wait_event, "RinqSendBuffer"));
	}
	ConditionVariableCancelSleep();
}

void
rinq_send_at_commit(RinqDatabase *db, const RinqOutbound *message, const RinqFields *fields)
{
	Size		size = rinq_outbound_size(fields);
	RinqOutbound *copy;

	begin_commit_queue(db);
	if (!message->durable)
		wait_for_room(size);
	set_mark();
	if (message->durable)
	{
		totals.durable++;
		if (totals.overflowed || totals.bytes + size > rinq_sendqueue_limit())
		{
			totals.overflowed = true;	/* the outbox has it, which is enough */
			return;
		}
	}
	else
	{
		totals.plain++;
		totals.plain_bytes += size;
	}

	copy = (RinqOutbound *) reserve_message(size);
	*copy = *message;
	rinq_outbound_write(copy, fields);
	last_buffer->used += size;
	Assert(copy->length == size && last_buffer->used <= last_buffer->size);
	last_buffer->count++;
	last_buffer->plain += message->durable ? 0 : 1;
	last_buffer->plain_bytes += message->durable ? 0 : size;
	totals.bytes += size;
}

void
rinq_send_scan_at_commit(RinqDatabase *db)
{
	begin_commit_queue(db);
	set_mark();
	totals.scan = true;
}

void
rinq_wait_at_commit(RinqDatabase *db, TimestampTz due, int64 rows)
{
	begin_commit_queue(db);
	set_mark();
	totals.due = totals.waits ? Min(totals.due, due) : due;
	totals.waits = true;
	totals.waiting += rows;
}

int64
rinq_transaction_durable(void)
{
	return totals.durable + totals.waiting;
}

/*
 * Tell the peer of messages that wait, now that the transaction has committed;
 * nothing here can fail.
 */
static void
hand_over_waiting(void)
{
	if (database->oid != MyDatabaseId)
		return;
	rinq_waiting_add(database, totals.waiting);
	if (rinq_due_lower(database, totals.due))
		rinq_wake_peer(database);
}

/* Copy a buffer's messages, all or only those that are not durable. */
static void
copy_messages(RinqChunk *chunk, const SendBuffer *buffer, bool with_durable)
{
	Size		at = 0;
	char	   *to = RINQ_CHUNK_DATA(chunk);

	chunk->plain = buffer->plain;
	if (with_durable || buffer->plain == buffer->count)
	{
		memcpy(to, buffer->data, buffer->used);
		chunk->size = (uint32) buffer->used;
		chunk->count = buffer->count;
		chunk->has_durable = buffer->plain < buffer->count;
		return;
	}
	chunk->size = 0;
	while (at < buffer->used)
	{
		RinqOutbound *message = (RinqOutbound *) (buffer->data + at);

		Assert(message->length > 0 && message->length <= buffer->used - at);
		at += message->length;
		if (message->durable)
			continue;
		memcpy(to + chunk->size, message, message->length);
		chunk->size += message->length;
		chunk->count++;
	}
	Assert(chunk->size == buffer->plain_bytes && chunk->count == buffer->plain);
}

static bool
has_part(const SendBuffer *buffer, bool with_durable)
{
	return with_durable ? buffer->count > 0 : buffer->plain > 0;
}

static Size
part_size(const SendBuffer *buffer, bool with_durable)
{
	return with_durable ? buffer->used : buffer->plain_bytes;
}

/* Reserve room for the chunks of all buffers. */
static bool
reserve_chunks(bool with_durable)
{
	const SendBuffer *buffer;
	Size		charge = 0;

	for (buffer = last_buffer; buffer != NULL; buffer = buffer->previous)
	{
		if (has_part(buffer, with_durable))
			charge += rinq_chunk_charge(part_size(buffer, with_durable));
	}
	return charge == 0 ||
		rinq_sendqueue_reserve(&rinq_slots_of(database)->send, &packed, charge);
}

/* pack all buffers into chunks; false when there is no room */
static bool
pack_buffers(bool with_durable)
{
	const SendBuffer *buffer;

	Assert(!DsaPointerIsValid(packed.first) && packed.charge == 0);
	if (!reserve_chunks(with_durable))
		return false;

	/* from the last to the first, each before those that are there */
	for (buffer = last_buffer; buffer != NULL; buffer = buffer->previous)
	{
		dsa_pointer pointer;

		if (!has_part(buffer, with_durable))
			continue;
		pointer = rinq_chunk_alloc(RINQ_CHUNK_TRANSACTION, part_size(buffer, with_durable));
		if (!DsaPointerIsValid(pointer))
		{
			rinq_sendqueue_unreserve(&rinq_slots_of(database)->send, &packed);
			return false;
		}
		copy_messages(rinq_chunk(pointer), buffer, with_durable);
		rinq_chunk(pointer)->xid = packed.xid;
		rinq_chunk(pointer)->next = packed.first;
		if (!DsaPointerIsValid(packed.first))
			packed.last = pointer;
		packed.first = pointer;
	}
	packed.has_durable = with_durable && totals.durable > 0;
	return true;
}

/*
 * Prepare what the commit hands over, at the last moment at which something
 * may fail.
 */
static void
prepare_hand_over(void)
{
	RinqSendQueue *queue = &rinq_slots_of(database)->send;
	bool		wanted;

	Assert(!DsaPointerIsValid(packed.first));

	/* attached here, since that may fail */
	(void) rinq_dsa();
	memset(&packed, 0, sizeof(packed));
	packed.first = InvalidDsaPointer;
	packed.last = InvalidDsaPointer;
	packed.xid = GetTopFullTransactionIdIfAny();
	packed.stored = (uint32) totals.durable;
	packed.plain = (uint32) totals.plain;
	packed.want_scan = totals.scan;
	wanted = rinq_sendqueue_wants(queue, &packed);
	if (totals.durable > 0 && wanted && !totals.overflowed && pack_buffers(true))
		return;
	if (totals.plain > 0 && !pack_buffers(false))
		raise_no_room();
}

/*
 * Have the transaction on disk before its commit is seen, whatever
 * synchronous_commit says, since others are told of it then.  One that writes
 * nothing may tell of what this process has committed before.
 */
void
rinq_commit_durably(void)
{
	ForceSyncCommit();
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!XLogRecPtrIsInvalid(XactLastCommitEnd))
		XLogFlush(XactLastCommitEnd);
}

static void
commit_queue_xact_callback(XactEvent event, void *arg)
{
	if (last_buffer == NULL && last_mark == NULL && totals.durable == 0 && !totals.scan && !totals.waits)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (totals.durable + totals.plain > 0 || totals.scan)
			{
				rinq_commit_durably();
				prepare_hand_over();
			}
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (totals.plain > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that sends messages from memory"),
						 errhint("Durable messages can be sent by prepared transactions.")));
			rinq_prepared_announce(database);
			break;
		case XACT_EVENT_PREPARE:
			/* its commit has the outbox scanned, whichever process makes it */
			reset_commit_queue();
			break;
		case XACT_EVENT_COMMIT:
			if (totals.durable + totals.plain > 0 || totals.scan)
				rinq_sendqueue_commit(database, &packed);
			if (totals.waits)
				hand_over_waiting();
			reset_commit_queue();
			break;
		case XACT_EVENT_ABORT:
			release_packed(0, (Datum) 0);
			reset_commit_queue();
			break;
		default:
			break;
	}
}

static void
subtransaction_event(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
					 void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (last_mark != NULL && last_mark->level >= level)
			cut_to_mark(last_mark);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB && last_mark != NULL && last_mark->level == level)
	{
		Mark	   *mark = last_mark;
		int			below = mark->previous == NULL ? 1 : mark->previous->level;

		if (below < level - 1)
			mark->level = level - 1;
		else
		{
			last_mark = mark->previous;
			pfree(mark);
		}
	}
}
