/*-------------------------------------------------------------------------
 *
 * backend/outbox.c
 *	  The tables in which durable messages wait until the broker has them.
 *
 * Rows are only inserted and deleted, at places (table and ctid) that are
 * remembered while a message is on its way, so there is no index.  One of
 * several tables is written at a time; when it has grown, the next one is, and
 * the old one is truncated once it is empty.  That returns the space of
 * deleted rows at once, whatever old transaction is still open, where vacuum
 * would have to wait for its end.
 *
 * When to do what is decided by the outbox worker and the peer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "backend/outbox_internal.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "base/clock.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* blocks of a table's rows, or of it with its large values, after which the next
 * one is written: in a stream, and when nothing is sent */
#define ROTATE_AFTER 1024
#define ROTATE_AFTER_ALL 8192
#define ROTATE_AFTER_IDLE 8
#define ROTATE_AFTER_ALL_IDLE 32

/*
 * Return the table of this number, InvalidOid when it is not there.
 */
Oid
rinq_outbox_table(Oid schema, int table)
{
	char		name[NAMEDATALEN];

	Assert(table >= 0 && table < RINQ_OUTBOX_TABLES);
	snprintf(name, sizeof(name), "outbox_%d", table);
	return get_relname_relid(name, schema);
}

/*
 * Open one of the tables, which has to have this number of columns.
 */
Relation
rinq_outbox_open_table(Oid relid, int columns, LOCKMODE mode)
{
	Relation	rel;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a table of rinq's outbox does not exist"),
				 errhint("Use DROP EXTENSION rinq and CREATE EXTENSION rinq.")));
	rel = table_open(relid, mode);
	if (RelationGetDescr(rel)->natts != columns || rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" does not fit the loaded version of rinq",
						RelationGetRelationName(rel)),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));
	return rel;
}

/*
 * Return the number of the next message: microseconds, made unique, so that it
 * goes on after a restart where it was, and tells when the message was
 * written.
 */
int64
rinq_outbox_next_seq(RinqDatabase *db)
{
	uint64		old = pg_atomic_read_u64(&db->outbox_seq);
	uint64		now = (uint64) GetCurrentTimestamp();
	uint64		next;

	do
	{
		next = Max(now, old + 1);
	} while (!pg_atomic_compare_exchange_u64(&db->outbox_seq, &old, next));
	return (int64) next;
}

/*
 * Have new messages come after one that is there, although the wall clock was
 * set back before the server was started.
 */
void
rinq_outbox_number_after(RinqDatabase *db, int64 seq)
{
	uint64		old;

	if (seq < 0 || seq > PG_INT64_MAX / 2)
		return;
	old = pg_atomic_read_u64(&db->outbox_seq);
	while (old < (uint64) seq &&
		   !pg_atomic_compare_exchange_u64(&db->outbox_seq, &old, (uint64) seq))
		;
}

static void
put_text(TupleTableSlot *slot, int column, RinqBytes wire)
{
	slot->tts_isnull[column] = wire.data == NULL;
	if (wire.data != NULL)
		slot->tts_values[column] = CStringGetTextDatum(rinq_text_from_wire(wire));
}

static void
put_bytea_column(TupleTableSlot *slot, int column, RinqBytes value)
{
	slot->tts_isnull[column] = value.data == NULL;
	if (value.data != NULL)
		slot->tts_values[column] = PointerGetDatum(rinq_bytes_to_bytea(value));
}

/* Write a row into the table that is written now, and its place into the message. */
static void
insert_outbox_row(RinqDatabase *db, Oid schema, RinqOutbound *message,
				  const RinqFields *fields, const char *id, Oid from)
{
	int			table = (int) (pg_atomic_read_u32(&db->outbox_table) % RINQ_OUTBOX_TABLES);
	Relation	rel;
	TupleTableSlot *slot;

	rel = rinq_outbox_open_table(rinq_outbox_table(schema, table), OUTBOX_COLUMNS, RowExclusiveLock);
	rinq_check_own_relation(rel, RINQ_OWN_WRITE);
	slot = table_slot_create(rel, NULL);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, OUTBOX_COLUMNS * sizeof(bool));
	slot->tts_values[COLUMN_SEQ] = Int64GetDatum(rinq_outbox_next_seq(db));
	slot->tts_values[COLUMN_ID] = CStringGetTextDatum(id);
	put_text(slot, COLUMN_NAMESPACE, rinq_get_bytes(fields, RINQ_SEND_NAMESPACE));
	put_text(slot, COLUMN_COMMAND, rinq_get_bytes(fields, RINQ_SEND_COMMAND));
	put_bytea_column(slot, COLUMN_PAYLOAD, rinq_get_bytes(fields, RINQ_SEND_PAYLOAD));
	put_text(slot, COLUMN_TRACE_ID, rinq_get_bytes(fields, RINQ_SEND_TRACE));
	slot->tts_isnull[COLUMN_DEADLINE] = message->deadline == 0;
	slot->tts_values[COLUMN_DEADLINE] = TimestampTzGetDatum(rinq_timestamp_of_ms(message->deadline));
	slot->tts_values[COLUMN_DATABASE] = ObjectIdGetDatum(from);
	put_bytea_column(slot, COLUMN_SPAN_CONTEXT, rinq_get_bytes(fields, RINQ_SEND_SPAN));
	put_bytea_column(slot, COLUMN_TRACEPARENT, rinq_get_bytes(fields, RINQ_SEND_TRACEPARENT));
	put_bytea_column(slot, COLUMN_TRACESTATE, rinq_get_bytes(fields, RINQ_SEND_TRACESTATE));
	slot->tts_isnull[COLUMN_IS_CALL] = message->kind != RINQ_SEND_DURABLE_CALL;
	slot->tts_values[COLUMN_IS_CALL] = BoolGetDatum(true);
	ExecStoreVirtualTuple(slot);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), TABLE_INSERT_NO_LOGICAL,
					   NULL);
	message->item.table = (uint8) table;
	message->item.tid = slot->tts_tid;
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * Write a message into the outbox, and its place into the message.
 */
void
rinq_outbox_insert(RinqDatabase *db, Oid schema, RinqOutbound *message,
				   const RinqFields *fields)
{
	char		id[RINQ_MESSAGE_ID_SIZE];

	PreventCommandIfReadOnly("rinq_execute()");
	rinq_lock_extension();
	Assert(message->durable && message->item.id.seq != 0);
	rinq_message_id_format(&message->item.id, id, sizeof(id));
	insert_outbox_row(db, schema, message, fields, id, MyDatabaseId);
}

/*
 * Write a message that has waited into the outbox, in a transaction of the
 * outbox worker, which has the tables open; its id is no id if it was
 * written by hand.
 */
void
rinq_outbox_move(RinqDatabase *db, Oid schema, RinqOutbound *message,
				 const RinqFields *fields, const char *id, Oid database)
{
	insert_outbox_row(db, schema, message, fields, id, database);
}

/*
 * Tell whether the tables are there; they are not any more when the extension
 * is being dropped.
 */
bool
rinq_outbox_exists(Oid schema)
{
	return OidIsValid(schema) && OidIsValid(rinq_outbox_table(schema, RINQ_OUTBOX_TABLES - 1));
}

static bool
is_relation_empty(Relation rel)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = rinq_register_newest_snapshot(rel);
	TableScanDesc scan = rinq_begin_scan(rel, snapshot);
	bool		empty = !table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return empty;
}

/*
 * Truncate a table that is not used and has no rows left.  Not replicated: a
 * subscriber has an outbox of its own.
 */
static RinqRotation
truncate_outbox_table(Oid relid)
{
	Relation	rel;
	bool		empty;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return RINQ_ROTATION_BLOCKED;
	rel = rinq_outbox_open_table(relid, OUTBOX_COLUMNS, NoLock);
	if (rinq_own_relation_problem(rel, RINQ_OWN_WRITE) != NULL)
	{
		/* what was added to it might raise, or run */
		table_close(rel, NoLock);
		return RINQ_ROTATION_BLOCKED;
	}
	empty = is_relation_empty(rel);
	if (empty)
		rinq_truncate_tables(list_make1(rel), list_make1_oid(relid));
	table_close(rel, NoLock);
	return empty ? RINQ_ROTATION_DONE : RINQ_ROTATION_FILLED;
}

/* the size of a table: of its rows, and with the values that are stored apart */
typedef struct TableSize
{
	BlockNumber rows;
	BlockNumber all;
} TableSize;

/*
 * Measure a table.  Large values count as none while they are rewritten.
 */
static TableSize
measure_outbox_table(Relation rel)
{
	TableSize	size;
	Oid			apart = rel->rd_rel->reltoastrelid;

	size.rows = RelationGetNumberOfBlocks(rel);
	size.all = size.rows;
	if (OidIsValid(apart) && ConditionalLockRelationOid(apart, AccessShareLock))
	{
		Relation	toast = table_open(apart, NoLock);

		size.all += RelationGetNumberOfBlocks(toast);
		table_close(toast, AccessShareLock);
	}
	return size;
}

static bool
has_table_grown(const TableSize * size, bool idle)
{
	return size->rows >= (idle ? ROTATE_AFTER_IDLE : ROTATE_AFTER) ||
		size->all >= (idle ? ROTATE_AFTER_ALL_IDLE : ROTATE_AFTER_ALL);
}

/* Finds a table that can be written next; -1 when each has something in it. */
static int
find_next_table(const TableSize * sizes, int current)
{
	int			table;

	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		if (table != current && sizes[table].all == 0)
			return table;
	}
	return -1;
}

/*
 * Truncate the tables that are not written; the sizes of those that were are
 * put right.  Return the worst of what has become of them.
 */
static RinqRotation
truncate_other_tables(Oid schema, TableSize * sizes, int current)
{
	RinqRotation worst = RINQ_ROTATION_DONE;
	int			table;

	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		RinqRotation result;

		if (table == current || sizes[table].all == 0)
			continue;
		result = truncate_outbox_table(rinq_outbox_table(schema, table));
		if (result == RINQ_ROTATION_DONE)
			memset(&sizes[table], 0, sizeof(TableSize));
		worst = Max(worst, result);
	}
	return worst;
}

/*
 * Close the tables of the outbox; the locks stay until the transaction ends.
 */
void
rinq_outbox_close(RinqOutboxTables *tables)
{
	int			i;

	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
	{
		if (tables->rels[i] == NULL)
			continue;
		ExecDropSingleTupleTableSlot(tables->slots[i]);
		table_close(tables->rels[i], NoLock);
		tables->rels[i] = NULL;
	}
}

/*
 * Go on to the next table when the current one has grown, or has anything in
 * it at an idle moment; and truncate those that are not written any more.  What
 * is truncated first makes room for going on.
 */
RinqRotation
rinq_outbox_rotate(RinqDatabase *db, Oid schema, RinqOutboxTables *tables, bool idle)
{
	int			current = (int) (pg_atomic_read_u32(&db->outbox_table) % RINQ_OUTBOX_TABLES);
	TableSize	sizes[RINQ_OUTBOX_TABLES];
	RinqRotation result;
	int			next;
	int			table;

	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
		sizes[table] = measure_outbox_table(tables->rels[table]);
	rinq_outbox_close(tables);
	result = truncate_other_tables(schema, sizes, current);
	if (!has_table_grown(&sizes[current], idle))
		return result;
	next = find_next_table(sizes, current);
	if (next < 0)
	{
		/* the others have something in them, so this cannot be all */
		Assert(result != RINQ_ROTATION_DONE);
		return result;
	}
	pg_atomic_write_u32(&db->outbox_table, (uint32) next);
	return Max(result, truncate_other_tables(schema, sizes, next));
}
