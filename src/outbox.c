/*-------------------------------------------------------------------------
 *
 * outbox.c
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
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "clock.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "outbox.h"
#include "payload.h"
#include "request.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* blocks after which the next table is written */
#define ROTATE_AFTER 1024

/* columns; the install script defines them to match */
enum
{
	COLUMN_SEQ,
	COLUMN_ID,
	COLUMN_NAMESPACE,
	COLUMN_COMMAND,
	COLUMN_PAYLOAD,
	COLUMN_TRACE_ID,
	COLUMN_DEADLINE,
	COLUMN_DATABASE,
	COLUMN_SPAN_CONTEXT,
	COLUMN_TRACEPARENT,
	COLUMN_TRACESTATE,
	OUTBOX_COLUMNS,

	/* of the table for those that were set aside */
	COLUMN_ATTEMPTS = OUTBOX_COLUMNS,
	COLUMN_ERROR,
	COLUMN_SET_ASIDE,
	DEAD_COLUMNS
};

static Oid
table_oid(Oid schema, int table)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "outbox_%d", table);
	return get_relname_relid(name, schema);
}

static Relation
open_table(Oid relid, int columns, LOCKMODE mode)
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

static Relation
open_outbox(Oid schema, int table, LOCKMODE mode)
{
	return open_table(table_oid(schema, table), OUTBOX_COLUMNS, mode);
}

/*
 * The number of the next message: microseconds, made unique, so that it goes
 * on after a restart where it was, and tells when the message was written.
 */
static int64
next_seq(RinqDatabase *db)
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
static void
number_after(int64 seq)
{
	RinqDatabase *db = rinq_my_database();
	uint64		old;

	if (db == NULL || seq < 0 || seq > PG_INT64_MAX / 2)
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
put_bytes(TupleTableSlot *slot, int column, RinqBytes value)
{
	bytea	   *copy;

	slot->tts_isnull[column] = value.data == NULL;
	if (value.data == NULL)
		return;
	copy = palloc(VARHDRSZ + value.len);
	SET_VARSIZE(copy, VARHDRSZ + value.len);
	memcpy(VARDATA(copy), value.data, value.len);
	slot->tts_values[column] = PointerGetDatum(copy);
}

/*
 * Writes a message into the outbox, and its place into the message.
 */
void
rinq_outbox_insert(Oid schema, RinqOutgoing *message, const RinqBytes *fields)
{
	RinqDatabase *db = rinq_my_database();
	int			table = (int) (pg_atomic_read_u32(&db->outbox_table) % RINQ_OUTBOX_TABLES);
	Relation	rel;
	TupleTableSlot *slot;
	char		id[RINQ_MESSAGE_ID_SIZE];

	PreventCommandIfReadOnly("rinq_execute()");
	rel = open_outbox(schema, table, RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, OUTBOX_COLUMNS * sizeof(bool));
	rinq_message_id_format(&message->item.id, id, sizeof(id));
	slot->tts_values[COLUMN_SEQ] = Int64GetDatum(next_seq(db));
	slot->tts_values[COLUMN_ID] = CStringGetTextDatum(id);
	put_text(slot, COLUMN_NAMESPACE, fields[RINQ_SEND_NAMESPACE]);
	put_text(slot, COLUMN_COMMAND, fields[RINQ_SEND_COMMAND]);
	put_bytes(slot, COLUMN_PAYLOAD, fields[RINQ_SEND_PAYLOAD]);
	put_text(slot, COLUMN_TRACE_ID, fields[RINQ_SEND_TRACE]);
	slot->tts_isnull[COLUMN_DEADLINE] = message->deadline == 0;
	slot->tts_values[COLUMN_DEADLINE] = TimestampTzGetDatum(rinq_timestamp_of_ms(message->deadline));
	slot->tts_values[COLUMN_DATABASE] = ObjectIdGetDatum(MyDatabaseId);
	put_bytes(slot, COLUMN_SPAN_CONTEXT, fields[RINQ_SEND_SPAN]);
	put_bytes(slot, COLUMN_TRACEPARENT, fields[RINQ_SEND_TRACEPARENT]);
	put_bytes(slot, COLUMN_TRACESTATE, fields[RINQ_SEND_TRACESTATE]);
	ExecStoreVirtualTuple(slot);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	message->item.table = (uint8) table;
	message->item.tid = slot->tts_tid;
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * Are the tables there?  Not any more, when the extension is being dropped.
 */
bool
rinq_outbox_exists(Oid schema)
{
	return OidIsValid(schema) && OidIsValid(table_oid(schema, RINQ_OUTBOX_TABLES - 1));
}

static int
compare_places(const void *a, const void *b)
{
	int64		x = ((const RinqOutboxPlace *) a)->seq;
	int64		y = ((const RinqOutboxPlace *) b)->seq;

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * Finds all rows that the current snapshot sees, in the order in which they
 * are to be sent.  Only their places are kept, so that a large outbox fits.
 */
RinqOutboxPlace *
rinq_outbox_scan(Oid schema, Size *count)
{
	Size		room = 1024;
	RinqOutboxPlace *places = palloc(room * sizeof(RinqOutboxPlace));
	int			table;

	*count = 0;
	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		Relation	rel = open_outbox(schema, table, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			RinqOutboxPlace *place;
			bool		isnull;

			CHECK_FOR_INTERRUPTS();
			if (*count == room)
			{
				room *= 2;
				places = repalloc_huge(places, room * sizeof(RinqOutboxPlace));
			}
			place = &places[(*count)++];
			memset(place, 0, sizeof(*place));
			place->seq = DatumGetInt64(slot_getattr(slot, COLUMN_SEQ + 1, &isnull));
			place->foreign =
				DatumGetObjectId(slot_getattr(slot, COLUMN_DATABASE + 1, &isnull)) != MyDatabaseId;
			place->item.table = (uint8) table;
			place->item.tid = slot->tts_tid;
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, AccessShareLock);
	}
	qsort(places, *count, sizeof(RinqOutboxPlace), compare_places);
	if (*count > 0)
		number_after(places[*count - 1].seq);
	return places;
}

static bool
row_id(TupleTableSlot *slot, RinqMessageId *id)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, COLUMN_ID + 1, &isnull);
	char	   *id_text;

	memset(id, 0, sizeof(*id));
	if (isnull)
		return false;
	id_text = TextDatumGetCString(value);
	return rinq_message_id_parse(id_text, strlen(id_text), id);
}

static RinqBytes
wire_text(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column + 1, &isnull);

	if (isnull)
		return rinq_bytes(NULL, 0);
	return rinq_text_to_wire(TextDatumGetCString(value));
}

static RinqBytes
wire_bytes(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column + 1, &isnull);
	bytea	   *bytes;

	if (isnull)
		return rinq_bytes(NULL, 0);
	bytes = DatumGetByteaPP(value);
	return rinq_bytes(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

/* a row as the message that it stands for, palloc'd */
static RinqOutgoing *
make_message(TupleTableSlot *slot, const RinqOutboxItem *item)
{
	RinqBytes	fields[RINQ_SEND_FIELDS];
	RinqOutgoing *message;
	Datum		deadline;
	bool		isnull;

	fields[RINQ_SEND_NAMESPACE] = wire_text(slot, COLUMN_NAMESPACE);
	fields[RINQ_SEND_COMMAND] = wire_text(slot, COLUMN_COMMAND);
	fields[RINQ_SEND_PAYLOAD] = wire_bytes(slot, COLUMN_PAYLOAD);
	fields[RINQ_SEND_TRACE] = wire_text(slot, COLUMN_TRACE_ID);
	fields[RINQ_SEND_SPAN] = wire_bytes(slot, COLUMN_SPAN_CONTEXT);
	fields[RINQ_SEND_TRACEPARENT] = wire_bytes(slot, COLUMN_TRACEPARENT);
	fields[RINQ_SEND_TRACESTATE] = wire_bytes(slot, COLUMN_TRACESTATE);
	fields[RINQ_SEND_CONSTRAINT] = rinq_bytes(NULL, 0);

	message = palloc0(rinq_outgoing_size(fields));
	message->durable = true;
	message->item = *item;
	deadline = slot_getattr(slot, COLUMN_DEADLINE + 1, &isnull);
	if (!isnull)
		message->deadline = rinq_ms_of_timestamp(DatumGetTimestampTz(deadline));
	rinq_outgoing_write(message, fields);
	return message;
}

/*
 * Fetches the row at an item's place; false when it is not there any more, or
 * not the one with the item's id, if that is set.
 */
static bool
fetch_row(Relation rel, RinqOutboxItem *item, TupleTableSlot *slot)
{
	RinqMessageId id;
	ItemPointerData tid = item->tid;

	ExecClearTuple(slot);
	if (ItemPointerGetBlockNumber(&tid) >= RelationGetNumberOfBlocks(rel) ||
		!table_tuple_fetch_row_version(rel, &tid, GetActiveSnapshot(), slot))
		return false;
	if (!row_id(slot, &id))
		return false;
	if (item->id.seq != 0 && !rinq_message_id_equal(&id, &item->id))
		return false;
	item->id = id;
	return true;
}

/*
 * Reads rows, up to about so many bytes of messages.  Returns how many items
 * were dealt with.
 */
Size
rinq_outbox_read(Oid schema, RinqOutboxItem *items, Size count, Size max_bytes,
				 List **messages, List **missing)
{
	Relation	rels[RINQ_OUTBOX_TABLES] = {NULL};
	TupleTableSlot *slots[RINQ_OUTBOX_TABLES] = {NULL};
	Size		done = 0;
	Size		bytes = 0;
	int			i;

	for (; done < count && bytes < max_bytes; done++)
	{
		RinqOutboxItem *item = &items[done];
		RinqOutgoing *message;

		CHECK_FOR_INTERRUPTS();
		if (rels[item->table] == NULL)
		{
			rels[item->table] = open_outbox(schema, item->table, AccessShareLock);
			slots[item->table] = table_slot_create(rels[item->table], NULL);
		}
		if (!fetch_row(rels[item->table], item, slots[item->table]))
		{
			*missing = lappend(*missing, item);
			continue;
		}
		message = make_message(slots[item->table], item);
		bytes += message->length;
		*messages = lappend(*messages, message);
	}
	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
	{
		if (rels[i] == NULL)
			continue;
		ExecDropSingleTupleTableSlot(slots[i]);
		table_close(rels[i], AccessShareLock);
	}
	return done;
}

/* looks for a row that is not where it was, because somebody rewrote the table */
static bool
find_row(Relation rel, RinqOutboxItem *item, TupleTableSlot *slot)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		RinqMessageId id;

		CHECK_FOR_INTERRUPTS();
		found = row_id(slot, &id) && rinq_message_id_equal(&id, &item->id);
		if (found)
			item->tid = slot->tts_tid;
	}
	table_endscan(scan);
	return found;
}

/*
 * Deletes the row of an item, wherever it is; false when there is none.  The
 * slot holds what it was, for a moment.
 */
static bool
remove_row(Relation rel, RinqOutboxItem *item, TupleTableSlot *slot)
{
	if (!fetch_row(rel, item, slot) && !find_row(rel, item, slot))
		return false;
	simple_table_tuple_delete(rel, &item->tid, GetActiveSnapshot());
	return true;
}

/*
 * Deletes the rows of messages that the broker has.
 */
void
rinq_outbox_remove(Oid schema, RinqOutboxItem *items, Size count)
{
	int			table;

	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		Relation	rel = NULL;
		TupleTableSlot *slot = NULL;
		Size		i;

		for (i = 0; i < count; i++)
		{
			if (items[i].table != table)
				continue;
			if (rel == NULL)
			{
				rel = open_outbox(schema, table, RowExclusiveLock);
				slot = table_slot_create(rel, NULL);
			}
			(void) remove_row(rel, &items[i], slot);
		}
		if (rel == NULL)
			continue;
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
	}
}

/* the columns that both tables have; values stored apart belong to the first */
static void
copy_row(TupleTableSlot *from, TupleTableSlot *to)
{
	int			i;

	ExecClearTuple(to);
	slot_getallattrs(from);
	for (i = 0; i < OUTBOX_COLUMNS; i++)
	{
		to->tts_isnull[i] = from->tts_isnull[i];
		to->tts_values[i] = from->tts_values[i];
		if (!to->tts_isnull[i] &&
			TupleDescAttr(to->tts_tupleDescriptor, i)->attlen == -1)
			to->tts_values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(from->tts_values[i]));
	}
}

/*
 * Moves the rows of messages that the broker will not take to where an
 * administrator looks at them.
 */
void
rinq_outbox_set_aside(Oid schema, RinqOutboxFailed *failed, Size count)
{
	Relation	dead = open_table(get_relname_relid("outbox_dead_letter", schema), DEAD_COLUMNS,
								  RowExclusiveLock);
	TupleTableSlot *to = table_slot_create(dead, NULL);
	Size		i;

	for (i = 0; i < count; i++)
	{
		Relation	rel = open_outbox(schema, failed[i].item.table, RowExclusiveLock);
		TupleTableSlot *from = table_slot_create(rel, NULL);

		if (remove_row(rel, &failed[i].item, from))
		{
			copy_row(from, to);
			to->tts_values[COLUMN_ATTEMPTS] = Int32GetDatum(failed[i].attempts);
			to->tts_values[COLUMN_ERROR] =
				CStringGetTextDatum(rinq_message_from_wire(rinq_bytes_str(failed[i].error)));
			to->tts_values[COLUMN_SET_ASIDE] = TimestampTzGetDatum(GetCurrentTimestamp());
			to->tts_isnull[COLUMN_ATTEMPTS] = false;
			to->tts_isnull[COLUMN_ERROR] = false;
			to->tts_isnull[COLUMN_SET_ASIDE] = false;
			ExecStoreVirtualTuple(to);
			table_tuple_insert(dead, to, GetCurrentCommandId(true), 0, NULL);
		}
		ExecDropSingleTupleTableSlot(from);
		table_close(rel, NoLock);
	}
	ExecDropSingleTupleTableSlot(to);
	table_close(dead, NoLock);
}

static bool
is_empty(Relation rel)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		empty = !table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return empty;
}

/*
 * Truncates a table that nobody uses and that has no rows left; false when it
 * could not be done now.  Not replicated: a subscriber has an outbox of its own.
 */
static bool
truncate_table(Oid relid)
{
	Relation	rel;
	bool		empty;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	rel = open_table(relid, OUTBOX_COLUMNS, NoLock);
	empty = is_empty(rel);
	if (empty)
		rinq_truncate_tables(list_make1(rel), list_make1_oid(relid));
	table_close(rel, NoLock);
	return empty;
}

/*
 * Goes on to the next table when the current one has grown, or has anything in
 * it at an idle moment; and truncates those that are not written any more.
 */
RinqRotation
rinq_outbox_rotate(RinqDatabase *db, Oid schema, bool idle)
{
	uint32		current = pg_atomic_read_u32(&db->outbox_table) % RINQ_OUTBOX_TABLES;
	bool		left = false;
	bool		progress = false;
	int			table;
	uint32		next = current;
	BlockNumber blocks[RINQ_OUTBOX_TABLES];

	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		Relation	rel = open_outbox(schema, table, AccessShareLock);

		blocks[table] = RelationGetNumberOfBlocks(rel);
		table_close(rel, AccessShareLock);
		if ((uint32) table != current && blocks[table] == 0)
			next = (uint32) table;
	}
	if (blocks[current] >= (idle ? 8 : ROTATE_AFTER) && next != current)
	{
		pg_atomic_write_u32(&db->outbox_table, next);
		current = next;
		progress = true;
	}
	for (table = 0; table < RINQ_OUTBOX_TABLES; table++)
	{
		if ((uint32) table == current || blocks[table] == 0)
			continue;
		if (truncate_table(table_oid(schema, table)))
			progress = true;
		else
			left = true;
	}
	return !left ? RINQ_ROTATION_DONE : progress ? RINQ_ROTATION_PROGRESS : RINQ_ROTATION_STUCK;
}
