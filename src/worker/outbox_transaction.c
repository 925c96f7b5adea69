/*-------------------------------------------------------------------------
 *
 * outbox_transaction.c
 *	  What the parts of the outbox worker share: transactions on the tables,
 *	  reports to the peer, counting what was removed, and setting messages
 *	  aside.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/own_schema.h"
#include "ipc/outbox_depth.h"
#include "ipc/slots.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/outbox_transaction.h"

RinqOutboxWorker rinq_outbox_worker;

#define database (rinq_outbox_worker.db)
#define queue (rinq_outbox_worker.queue)
#define args (rinq_outbox_worker.args)

/*
 * Begin a transaction, and open the tables in it.  False when that would have
 * to wait for a lock.
 */
bool
rinq_outbox_begin(const char *activity, LOCKMODE mode)
{
	bool		locked;

	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	locked = rinq_try_lock_extension();

	/* dropped, or about to be: then there is nothing to do, ever */
	rinq_outbox_worker.schema = rinq_internal_schema();
	if (!rinq_outbox_exists(rinq_outbox_worker.schema))
		proc_exit(0);
	if (!locked ||
		!rinq_outbox_open(rinq_outbox_worker.schema, mode, &rinq_outbox_worker.tables))
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(rinq_outbox_worker.context);
		return false;
	}
	MemoryContextSwitchTo(rinq_outbox_worker.context);
	return true;
}

/*
 * Take the snapshot to read with.
 */
void
rinq_outbox_snapshot(void)
{
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
rinq_outbox_end(void)
{
	PopActiveSnapshot();
	rinq_outbox_close(&rinq_outbox_worker.tables);
	CommitTransactionCommand();
	MemoryContextSwitchTo(rinq_outbox_worker.context);
	pgstat_report_stat(false);
}

/* ---------------- reports ---------------- */

/*
 * Allocate a chunk for a report; the peer is told when there is no memory for
 * it.
 */
static dsa_pointer
alloc_report(RinqChunkKind kind, Size size, uint32 scan)
{
	dsa_pointer pointer = rinq_chunk_alloc(kind, size);

	if (DsaPointerIsValid(pointer))
	{
		queue->starved = false;
		rinq_chunk(pointer)->scan = scan;
	}
	else if (!queue->starved)
	{
		queue->starved = true;
		rinq_wake_peer(database);
	}
	return pointer;
}

static void
hand_over(dsa_pointer pointer)
{
	if (!rinq_sendqueue_report(database, pointer, args.incarnation))
		proc_exit(0);
}

/*
 * Hand a report over; false when there is no memory for it.
 */
bool
rinq_outbox_report(RinqChunkKind kind, const void *data, Size size, uint32 scan)
{
	dsa_pointer pointer = alloc_report(kind, size, scan);

	if (!DsaPointerIsValid(pointer))
		return false;
	memcpy(RINQ_CHUNK_DATA(rinq_chunk(pointer)), data, size);
	hand_over(pointer);
	return true;
}

/*
 * Report messages, which become one chunk.
 */
bool
rinq_outbox_report_messages(RinqChunkKind kind, const RinqOutboxRead *read, uint32 scan)
{
	dsa_pointer pointer = alloc_report(kind, read->bytes, scan);
	char	   *to;
	ListCell   *lc;

	if (!DsaPointerIsValid(pointer))
		return false;
	to = RINQ_CHUNK_DATA(rinq_chunk(pointer));
	foreach(lc, read->messages)
	{
		RinqOutbound *message = lfirst(lc);

		memcpy(to, message, message->length);
		to += message->length;
	}
	rinq_chunk(pointer)->count = (uint32) list_length(read->messages);
	rinq_chunk(pointer)->has_durable = true;
	hand_over(pointer);
	return true;
}

/*
 * Answer in the chunk of the order itself.
 */
void
rinq_outbox_report_with(dsa_pointer *order, RinqChunkKind kind)
{
	dsa_pointer pointer = *order;

	*order = InvalidDsaPointer;
	rinq_chunk(pointer)->kind = kind;
	hand_over(pointer);
}

/* ---------------- removed rows ---------------- */

/*
 * Note that rows were deleted, or may have been by an earlier process.  The peer
 * has another process see to it if this one cannot.
 */
void
rinq_outbox_want_tidying(void)
{
	rinq_outbox_worker.rotation_wanted = true;
	rinq_outbox_worker.tidy_wanted = true;
	queue->untidy = true;
}

/*
 * Add what transactions have committed that the last count could not see.
 */
void
rinq_outbox_settle(void)
{
	if (rinq_outbox_worker.counted != NULL)
		rinq_depth_settle(rinq_outbox_worker.db, rinq_outbox_worker.counted);
}

/*
 * Count rows that were removed; transactions that have added any of them, and
 * whose rows are not counted yet, are counted first.
 */
void
rinq_outbox_removed(Size rows)
{
	rinq_outbox_settle();
	rinq_depth_removed(database, rows);
	rinq_outbox_want_tidying();
}

/*
 * Log that a message was set aside.
 */
void
rinq_outbox_log_aside(int attempts, const char *reason)
{
	ereport(WARNING,
			(errmsg("rinq has set a message of database \"%s\" aside after %d attempts: %s",
					NameStr(database->name), attempts, reason),
			 errhint("Look at the view rinq_outbox_dead_letter.")));
}

/*
 * Set rows aside that cannot be sent as they are.  False when that could not be
 * done now.  What another transaction is changing, and all while the table for them is
 * locked or not as rinq made it, is left to the next check.
 */
bool
rinq_outbox_set_unfit_aside(List *unfit)
{
	Size		moved = 0;
	ListCell   *lc;

	if (!rinq_outbox_begin("rinq: setting messages aside", RowExclusiveLock))
		return false;
	rinq_outbox_snapshot();
	foreach(lc, unfit)
	{
		RinqOutboxUnfit *row = lfirst(lc);

		if (!rinq_outbox_set_aside(&rinq_outbox_worker.tables, rinq_outbox_worker.schema,
								   &row->ref, 0, row->reason))
			continue;
		moved++;
		rinq_outbox_log_aside(0, row->reason);
	}
	rinq_outbox_end();
	rinq_outbox_removed(moved);
	return true;
}

/*
 * Return references to the rows of items, whose ids are known.
 */
RinqOutboxRowRef *
rinq_outbox_row_refs(MemoryContext context, const RinqOutboxItem *items, Size count)
{
	RinqOutboxRowRef *refs = MemoryContextAllocZero(context, Max(count, 1) * sizeof(RinqOutboxRowRef));
	Size		i;

	for (i = 0; i < count; i++)
		refs[i].item = items[i];
	return refs;
}
