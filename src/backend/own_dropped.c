/*-------------------------------------------------------------------------
 *
 * backend/own_dropped.c
 *	  What is lost because the extension is dropped: durable messages that were
 *	  not sent, and commands and notifications that wait in the inbox.
 *
 * The tables are dropped before the extension itself, in whatever way that
 * comes about, and each is still there when its drop is announced: then its
 * rows are counted, and the sums are told when the extension's turn comes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "backend/outbox_internal.h"
#include "backend/own_dropped.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

static uint64 unsent = 0;
static uint64 waiting = 0;		/* in the inbox: commands */
static uint64 waiting_notifications = 0;

static bool
is_outbox_table(Oid schema, Oid relid)
{
	int			i;

	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
	{
		if (rinq_outbox_table(schema, i) == relid)
			return true;
	}
	return get_relname_relid("outbox_waiting", schema) == relid;
}

/* Return the sum that the rows of a table belong to, NULL for none. */
static uint64 *
sum_of_table(Oid relid)
{
	Oid			schema = get_rel_namespace(relid);

	if (!OidIsValid(schema) || schema != rinq_internal_schema())
		return NULL;
	if (is_outbox_table(schema, relid))
		return &unsent;
	return get_relname_relid("inbox_waiting", schema) == relid ? &waiting : NULL;
}

/* Tell whether a row of the inbox is a notification's. */
static bool
is_notification_row(TupleTableSlot *slot, AttrNumber subscription)
{
	bool		isnull;

	if (subscription == InvalidAttrNumber)
		return false;
	(void) slot_getattr(slot, subscription, &isnull);
	return !isnull;
}

/*
 * Count the rows of a table that is about to be dropped, if they are messages,
 * or commands or notifications that wait, and return whether they are.  It is
 * locked already.
 */
bool
rinq_own_table_dropped(Oid relid)
{
	uint64	   *sum = sum_of_table(relid);
	AttrNumber	subscription;
	Relation	rel;
	TupleTableSlot *slot;
	TableScanDesc scan;
	Snapshot	snapshot;

	if (sum == NULL)
		return false;
	subscription = sum == &waiting ? get_attnum(relid, "subscription") : InvalidAttrNumber;
	rel = table_open(relid, NoLock);
	snapshot = rinq_register_newest_snapshot(rel);
	slot = table_slot_create(rel, NULL);
	scan = rinq_begin_scan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_notification_row(slot, subscription))
			waiting_notifications++;
		else
			(*sum)++;
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
rinq_own_extension_dropped(void)
{
	if (unsent > 0)
		ereport(WARNING,
				(errmsg_plural("%llu durable message has not been sent, and is dropped with rinq",
							   "%llu durable messages have not been sent, and are dropped with rinq",
							   (unsigned long) unsent, (unsigned long long) unsent),
				 errhint("Roll back to keep what is dropped; the view rinq_outbox_status shows what keeps messages from being sent.")));
	if (waiting > 0)
		ereport(WARNING,
				(errmsg_plural("%llu command waits for its next attempt, and is dropped with rinq",
							   "%llu commands wait for their next attempts, and are dropped with rinq",
							   (unsigned long) waiting, (unsigned long long) waiting),
				 errhint("Roll back to keep what is dropped; the view rinq_inbox_waiting shows what keeps commands from being handled.")));
	if (waiting_notifications > 0)
		ereport(WARNING,
				(errmsg_plural("%llu notification waits for its next attempt, and is dropped with rinq",
							   "%llu notifications wait for their next attempts, and are dropped with rinq",
							   (unsigned long) waiting_notifications, (unsigned long long) waiting_notifications),
				 errhint("Roll back to keep what is dropped; the view rinq_inbox_waiting shows what keeps notifications from being handled.")));
	rinq_own_forget_dropped();
}

/*
 * Forget what a transaction that is over has counted.
 */
void
rinq_own_forget_dropped(void)
{
	unsent = 0;
	waiting = 0;
	waiting_notifications = 0;
}
