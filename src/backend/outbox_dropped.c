/*-------------------------------------------------------------------------
 *
 * backend/outbox_dropped.c
 *	  Durable messages that are lost because the extension is dropped.
 *
 * The tables are dropped before the extension itself, in whatever way that
 * comes about, and each is still there when its drop is announced: then its
 * rows are counted, and the sum is told when the extension's turn comes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "backend/outbox_internal.h"
#include "backend/own_schema.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

static uint64 unsent = 0;

static bool
is_outbox_table(Oid relid)
{
	Oid			schema = get_rel_namespace(relid);
	int			i;

	if (!OidIsValid(schema) || schema != rinq_internal_schema())
		return false;
	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
	{
		if (rinq_outbox_table(schema, i) == relid)
			return true;
	}
	return get_relname_relid("outbox_waiting", schema) == relid;
}

/*
 * Count the rows of a table that is about to be dropped, if it is one of the
 * outbox, or that of messages that wait, and return whether it is.  It is locked
 * already.
 */
bool
rinq_outbox_table_dropped(Oid relid)
{
	Relation	rel;
	TupleTableSlot *slot;
	TableScanDesc scan;
	Snapshot	snapshot;

	if (!is_outbox_table(relid))
		return false;
	rel = table_open(relid, NoLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = rinq_begin_scan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		unsent++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return true;
}

/*
 * Warn of what is lost with the extension.
 */
void
rinq_outbox_extension_dropped(void)
{
	if (unsent > 0)
		ereport(WARNING,
				(errmsg_plural("%llu durable message has not been sent, and is dropped with rinq",
							   "%llu durable messages have not been sent, and are dropped with rinq",
							   (unsigned long) unsent, (unsigned long long) unsent),
				 errhint("Roll back to keep what is dropped; the view rinq_outbox_status shows what keeps messages from being sent.")));
	unsent = 0;
}

/*
 * Forget what a transaction that is over has counted.
 */
void
rinq_outbox_forget_dropped(void)
{
	unsent = 0;
}
