/*-------------------------------------------------------------------------
 *
 * backend/outbox_rows.c
 *	  Finding, reading and removing rows of the outbox, for the outbox worker.
 *
 * A row is remembered by its place and its identity: the place is where it is
 * looked for first, the identity says whether it is the one.  No other
 * transaction is waited for: a table that is locked, or a row that is being
 * changed, is left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "backend/durable_calls.h"
#include "backend/outbox_internal.h"
#include "backend/own_relation.h"
#include "base/clock.h"
#include "base/hash_table.h"
#include "executor/tuptable.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define NAMELESS "its id is not a message id"
#define TELL_INTERVAL 60000		/* ms between log entries about a table that
								 * cannot be used */

/*
 * Open the tables, for reading or for writing, before a snapshot is taken;
 * that way a snapshot sees the rows of a table that was rewritten while this
 * process would have waited.  It does not wait: false when one of them is
 * locked.
 */
bool
rinq_outbox_open(Oid schema, LOCKMODE mode, RinqOutboxTables *tables)
{
	int			i;

	memset(tables, 0, sizeof(*tables));
	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
	{
		Oid			relid = rinq_outbox_table(schema, i);

		if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, mode))
		{
			rinq_outbox_close(tables);
			return false;
		}
		tables->rels[i] = rinq_outbox_open_table(relid, OUTBOX_COLUMNS, NoLock);
		tables->slots[i] = table_slot_create(tables->rels[i], NULL);
	}
	return true;
}

/*
 * Note which files the tables are in, which change when they are rewritten.
 */
void
rinq_outbox_files(const RinqOutboxTables *tables, Oid *files)
{
	int			i;

	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
		files[i] = tables->rels[i]->rd_rel->relfilenode;
}

static int
compare_row_refs(const void *a, const void *b)
{
	const RinqOutboxRowRef *x = a;
	const RinqOutboxRowRef *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	if (x->item.table != y->item.table)
		return x->item.table < y->item.table ? -1 : 1;
	return ItemPointerCompare((ItemPointer) &x->item.tid, (ItemPointer) &y->item.tid);
}

static int64
row_seq(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, COLUMN_SEQ + 1, &isnull));
}

static bool
row_id(TupleTableSlot *slot, RinqMessageId *id)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, COLUMN_ID + 1, &isnull);
	char	   *id_text;
	bool		valid;

	memset(id, 0, sizeof(*id));
	if (isnull)
		return false;
	id_text = TextDatumGetCString(value);
	valid = rinq_message_id_parse(id_text, strlen(id_text), id);
	pfree(id_text);
	return valid;
}

/*
 * Call a function for each row that the current snapshot sees, until it says
 * that it is done.
 */
static void
walk_rows(const RinqOutboxTables *tables, bool (*look) (int table, TupleTableSlot *slot, void *arg),
		  void *arg)
{
	bool		more = true;
	int			i;

	for (i = 0; i < RINQ_OUTBOX_TABLES && more; i++)
	{
		TableScanDesc scan = rinq_begin_scan(tables->rels[i], GetActiveSnapshot());

		while (more && table_scan_getnextslot(scan, ForwardScanDirection, tables->slots[i]))
		{
			CHECK_FOR_INTERRUPTS();
			more = look(i, tables->slots[i], arg);
		}
		ExecClearTuple(tables->slots[i]);
		table_endscan(scan);
	}
}

typedef struct Found
{
	RinqOutboxRowRef *refs;
	Size		count;
	Size		room;
} Found;

static bool
note_row_ref(int table, TupleTableSlot *slot, void *arg)
{
	Found	   *found = arg;
	RinqOutboxRowRef *ref;
	bool		isnull;

	if (found->count == found->room)
	{
		found->room *= 2;
		found->refs = repalloc_huge(found->refs, found->room * sizeof(RinqOutboxRowRef));
	}
	Assert(table >= 0 && table < RINQ_OUTBOX_TABLES);
	ref = &found->refs[found->count++];
	memset(ref, 0, sizeof(*ref));
	ref->seq = row_seq(slot);
	ref->foreign =
		DatumGetObjectId(slot_getattr(slot, COLUMN_DATABASE + 1, &isnull)) != MyDatabaseId;
	ref->item.table = (uint8) table;
	ref->item.tid = slot->tts_tid;
	return true;
}

/*
 * Find all rows that the current snapshot sees, in the order in which they
 * are to be sent.  Only their places are kept, so that a large outbox fits.
 */
RinqOutboxRowRef *
rinq_outbox_scan(RinqDatabase *db, const RinqOutboxTables *tables, Size *count)
{
	Found		found;

	found.room = 1024;
	found.count = 0;
	found.refs = palloc(found.room * sizeof(RinqOutboxRowRef));
	walk_rows(tables, note_row_ref, &found);
	qsort(found.refs, found.count, sizeof(RinqOutboxRowRef), compare_row_refs);
	if (found.count > 0)
		rinq_outbox_number_after(db, found.refs[found.count - 1].seq);
	*count = found.count;
	return found.refs;
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

	return isnull ? rinq_bytes(NULL, 0) : rinq_bytea_bytes(DatumGetByteaPP(value));
}

static bool
is_call(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, COLUMN_IS_CALL + 1, &isnull);

	return !isnull && DatumGetBool(value);
}

/* Make a row the message that it stands for, palloc'd. */
static RinqOutbound *
make_message(TupleTableSlot *slot, const RinqOutboxItem *item)
{
	RinqFields	fields;
	RinqOutbound *message;
	Datum		deadline;
	bool		isnull;

	rinq_fields_init(&fields, RINQ_KIND_SEND);
	rinq_put_bytes(&fields, RINQ_SEND_NAMESPACE, wire_text(slot, COLUMN_NAMESPACE));
	rinq_put_bytes(&fields, RINQ_SEND_COMMAND, wire_text(slot, COLUMN_COMMAND));
	rinq_put_bytes(&fields, RINQ_SEND_PAYLOAD, wire_bytes(slot, COLUMN_PAYLOAD));
	rinq_put_bytes(&fields, RINQ_SEND_TRACE, wire_text(slot, COLUMN_TRACE_ID));
	rinq_put_bytes(&fields, RINQ_SEND_SPAN, wire_bytes(slot, COLUMN_SPAN_CONTEXT));
	rinq_put_bytes(&fields, RINQ_SEND_TRACEPARENT, wire_bytes(slot, COLUMN_TRACEPARENT));
	rinq_put_bytes(&fields, RINQ_SEND_TRACESTATE, wire_bytes(slot, COLUMN_TRACESTATE));

	message = palloc_extended(rinq_outbound_size(&fields), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	message->durable = true;
	message->kind = is_call(slot) ? RINQ_SEND_DURABLE_CALL : RINQ_SEND_COMMAND_REQUEST;
	message->item = *item;
	deadline = slot_getattr(slot, COLUMN_DEADLINE + 1, &isnull);
	if (!isnull)
		message->deadline = rinq_ms_of_timestamp(DatumGetTimestampTz(deadline));
	rinq_outbound_write(message, &fields);
	return message;
}

/*
 * Fetch the row at a place, into the table's slot; false when it is not there
 * any more.  What is there now may be another row: it has to have the id of the
 * item, or while that is not known, the number of the place; then the id is
 * filled in, if it is one.
 */
static bool
fetch_row(const RinqOutboxTables *tables, RinqOutboxRowRef *ref)
{
	RinqOutboxItem *item = &ref->item;
	Relation	rel = tables->rels[item->table];
	TupleTableSlot *slot = tables->slots[item->table];
	ItemPointerData tid = item->tid;
	RinqMessageId id;

	Assert(item->table < RINQ_OUTBOX_TABLES && ItemPointerIsValid(&tid));
	ExecClearTuple(slot);
	if (ItemPointerGetBlockNumber(&tid) >= RelationGetNumberOfBlocks(rel) ||
		!table_tuple_fetch_row_version(rel, &tid, GetActiveSnapshot(), slot))
		return false;
	if (item->id.seq != 0)
		return row_id(slot, &id) && rinq_message_id_equal(&id, &item->id);
	if (row_seq(slot) != ref->seq)
		return false;
	(void) row_id(slot, &item->id);
	return true;
}

/* Tell whether a row is too large for what messages may have by now. */
static bool
is_oversize(TupleTableSlot *slot, Size *size)
{
	bool		isnull;
	Datum		payload = slot_getattr(slot, COLUMN_PAYLOAD + 1, &isnull);

	*size = isnull ? 0 : toast_raw_datum_size(payload) - VARHDRSZ;
	return *size > rinq_payload_limit();
}

/* Say why a row cannot be sent as it is, or return NULL. */
static char *
why_unfit(const RinqOutboxRowRef *ref, TupleTableSlot *slot)
{
	Size		size;

	if (ref->item.id.seq == 0)
		return pstrdup(NAMELESS);
	if (is_oversize(slot, &size))
		return psprintf("payload of %zu bytes exceeds \"rinq.max_payload\", or a quarter of \"rinq.payload_memory\"",
						size);
	return NULL;
}

static RinqOutboxUnfit *
make_unfit(const RinqOutboxRowRef *ref, char *reason)
{
	RinqOutboxUnfit *result = palloc(sizeof(RinqOutboxUnfit));

	result->ref = *ref;
	result->reason = reason;
	return result;
}

/*
 * Read rows, up to about "max_bytes" bytes of messages.  Returns how many
 * places were dealt with.
 */
Size
rinq_outbox_read(const RinqOutboxTables *tables, RinqOutboxRowRef *refs, Size count,
				 Size max_bytes, RinqOutboxRead *result)
{
	Size		done = 0;

	for (; done < count && result->bytes < max_bytes; done++)
	{
		RinqOutboxRowRef *ref = &refs[done];
		TupleTableSlot *slot = tables->slots[ref->item.table];
		char	   *reason;

		CHECK_FOR_INTERRUPTS();
		if (!fetch_row(tables, ref))
			result->missing = lappend(result->missing, ref);
		else if ((reason = why_unfit(ref, slot)) != NULL)
			result->unfit = lappend(result->unfit, make_unfit(ref, reason));
		else
		{
			RinqOutbound *message = make_message(slot, &ref->item);

			result->bytes += message->length;
			result->messages = lappend(result->messages, message);
		}
		ExecClearTuple(slot);
	}
	return done;
}

/*
 * Read the ids of some rows.  Returns how many refs have got one; those of
 * rows that are not there are left out.  Rows that have none worth the name are
 * added to "nameless".
 */
Size
rinq_outbox_identify(const RinqOutboxTables *tables, RinqOutboxRowRef *refs, Size count,
					 List **nameless)
{
	Size		kept = 0;
	Size		i;

	for (i = 0; i < count; i++)
	{
		RinqOutboxRowRef ref = refs[i];

		CHECK_FOR_INTERRUPTS();
		if (fetch_row(tables, &ref))
		{
			if (ref.item.id.seq != 0)
				refs[kept++] = ref;
			else
				*nameless = lappend(*nameless, make_unfit(&ref, pstrdup(NAMELESS)));
		}
		ExecClearTuple(tables->slots[ref.item.table]);
	}
	Assert(kept + list_length(*nameless) <= count);
	return kept;
}

typedef struct Lost
{
	RinqMessageId id;			/* hash key */
	RinqOutboxRowRef *ref;
} Lost;

typedef struct Search
{
	HTAB	   *lost;
	long		left;			/* that were not found yet */
} Search;

static bool
find_lost(int table, TupleTableSlot *slot, void *arg)
{
	Search	   *search = arg;
	RinqMessageId id;
	RinqMessageId key;
	Lost	   *lost;

	if (!row_id(slot, &id))
		return true;
	rinq_message_id_key(&id, &key);
	lost = hash_search(search->lost, &key, HASH_FIND, NULL);
	if (lost == NULL || lost->ref->found)
		return true;
	lost->ref->item.table = (uint8) table;
	lost->ref->item.tid = slot->tts_tid;
	lost->ref->found = true;
	return --search->left > 0;
}

/*
 * Look for rows that are not where they were, because the tables were
 * rewritten or the rows moved; all of them in one pass.  Their places are put
 * right, and "found" is set.
 */
void
rinq_outbox_search(const RinqOutboxTables *tables, List *refs)
{
	Search		search;
	ListCell   *lc;

	if (refs == NIL)
		return;
	search.lost = rinq_make_hash_table("rinq lost rows", list_length(refs), sizeof(RinqMessageId), sizeof(Lost), CurrentMemoryContext);
	foreach(lc, refs)
	{
		RinqOutboxRowRef *ref = lfirst(lc);
		RinqMessageId key;
		Lost	   *lost;

		Assert(ref->item.id.seq != 0);
		ref->found = false;
		rinq_message_id_key(&ref->item.id, &key);
		lost = hash_search(search.lost, &key, HASH_ENTER, NULL);
		lost->ref = ref;
	}
	search.left = hash_get_num_entries(search.lost);
	walk_rows(tables, find_lost, &search);
	hash_destroy(search.lost);
}

typedef struct Numbers
{
	const int64 *seqs;			/* sorted */
	Size		count;
	bool		found;
} Numbers;

static int
compare_numbers(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y ? 1 : 0;
}

static bool
find_number(int table, TupleTableSlot *slot, void *arg)
{
	Numbers    *numbers = arg;
	int64		seq = row_seq(slot);

	numbers->found = bsearch(&seq, numbers->seqs, numbers->count, sizeof(int64),
							 compare_numbers) != NULL;
	return !numbers->found;
}

/*
 * Tell whether a row with one of these numbers is there, wherever.  Sorts the
 * numbers.
 */
bool
rinq_outbox_has_any(const RinqOutboxTables *tables, int64 *seqs, Size count)
{
	Numbers		numbers = {seqs, count, false};

	if (count == 0)
		return false;
	qsort(seqs, count, sizeof(int64), compare_numbers);
	walk_rows(tables, find_number, &numbers);
	return numbers.found;
}

/*
 * Delete the row in the slot of a place's table.  No transaction is waited
 * for: false when another transaction is changing the row.
 */
static bool
delete_row(const RinqOutboxTables *tables, RinqOutboxRowRef *ref)
{
	TM_FailureData failure;
	TM_Result	result = rinq_delete_tuple(tables->rels[ref->item.table],
										   &ref->item.tid, &failure);

	return result == TM_Ok || result == TM_Deleted;
}

/*
 * Fetch the rows of some places, wherever they are, and does something with
 * each, which may say that it has to be done later.  Of the places, "found" is
 * set when that is so, and else not: then there is nothing left to do.
 */
static void
with_rows(const RinqOutboxTables *tables, RinqOutboxRowRef *refs, Size count,
		  bool (*act) (const RinqOutboxTables *tables, RinqOutboxRowRef *ref, void *arg),
		  void *arg)
{
	List	   *lost = NIL;
	ListCell   *lc;
	Size		i;

	for (i = 0; i < count; i++)
	{
		RinqOutboxRowRef *ref = &refs[i];

		CHECK_FOR_INTERRUPTS();
		if (fetch_row(tables, ref))
			ref->found = !act(tables, ref, arg);
		else if (ref->item.id.seq != 0)
			lost = lappend(lost, ref);
		ExecClearTuple(tables->slots[ref->item.table]);
	}
	rinq_outbox_search(tables, lost);
	foreach(lc, lost)
	{
		RinqOutboxRowRef *ref = lfirst(lc);

		if (ref->found && fetch_row(tables, ref))
			ref->found = !act(tables, ref, arg);
		ExecClearTuple(tables->slots[ref->item.table]);
	}
}

static bool
remove_row(const RinqOutboxTables *tables, RinqOutboxRowRef *ref, void *arg)
{
	return delete_row(tables, ref);
}

/*
 * Delete the rows of messages that the broker has.  "found" is set in the
 * places of those that could not be deleted now.
 */
void
rinq_outbox_remove(const RinqOutboxTables *tables, RinqOutboxRowRef *refs, Size count)
{
	with_rows(tables, refs, count, remove_row, NULL);
}

/*
 * Copy the columns that both tables have; values stored apart belong to the
 * first.
 */
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

typedef struct SetAside
{
	Relation	dead;
	TupleTableSlot *to;
	int			attempts;
	const char *error;
} SetAside;

/*
 * End a durable call that is not sent: that is its outcome, and no administrator has to
 * look at the message.
 */
static bool
end_unsent_call(const RinqOutboxTables *tables, RinqOutboxRowRef *ref, const char *error)
{
	return rinq_durable_call_not_sent(&ref->item.id, rinq_message_from_wire(rinq_bytes_str(error))) &&
		delete_row(tables, ref);
}

static bool
set_row_aside(const RinqOutboxTables *tables, RinqOutboxRowRef *ref, void *arg)
{
	SetAside   *aside = arg;
	TupleTableSlot *to = aside->to;

	if (is_call(tables->slots[ref->item.table]) && !ref->foreign)
		return end_unsent_call(tables, ref, aside->error);
	copy_row(tables->slots[ref->item.table], to);
	to->tts_values[COLUMN_ATTEMPTS] = Int32GetDatum(aside->attempts);
	to->tts_values[COLUMN_ERROR] =
		CStringGetTextDatum(rinq_message_from_wire(rinq_bytes_str(aside->error)));
	to->tts_values[COLUMN_SET_ASIDE] = TimestampTzGetDatum(GetCurrentTimestamp());
	to->tts_isnull[COLUMN_ATTEMPTS] = false;
	to->tts_isnull[COLUMN_ERROR] = false;
	to->tts_isnull[COLUMN_SET_ASIDE] = false;
	ExecStoreVirtualTuple(to);

	/* deleted first: what another transaction is changing stays where it is */
	if (!delete_row(tables, ref))
		return false;
	table_tuple_insert(aside->dead, to, GetCurrentCommandId(true), TABLE_INSERT_NO_LOGICAL, NULL);
	return true;
}

/*
 * Tell whether a table is as rinq made it.  What was added, like an index, is
 * not maintained here, so that rows are left where they are until it is
 * removed.
 */
static bool
is_usable(Relation rel)
{
	static int64 told_at = 0;
	char	   *problem = rinq_own_relation_problem(rel, RINQ_OWN_WRITE);

	if (problem == NULL)
		return true;
	if (told_at == 0 || rinq_clock_ms() - told_at >= TELL_INTERVAL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq cannot set messages aside, because the table \"%s\" is not as rinq made it",
						RelationGetRelationName(rel)),
				 errdetail_internal("The table cannot be used: %s.", problem),
				 errhint("Remove what was added; rinq_check() lists it.")));
		told_at = rinq_clock_ms();
	}
	return false;
}

/*
 * Move the row of a message that will not be sent to where an administrator
 * looks at it.  False when it could not be moved now.
 */
bool
rinq_outbox_set_aside(const RinqOutboxTables *tables, Oid schema, RinqOutboxRowRef *ref,
					  int attempts, const char *error)
{
	SetAside	aside;
	Oid			relid = get_relname_relid("outbox_dead_letter", schema);

	if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	aside.dead = rinq_outbox_open_table(relid, DEAD_COLUMNS, NoLock);
	if (!is_usable(aside.dead))
	{
		table_close(aside.dead, NoLock);
		return false;
	}
	aside.to = table_slot_create(aside.dead, NULL);
	aside.attempts = attempts;
	aside.error = error;
	with_rows(tables, ref, 1, set_row_aside, &aside);
	ExecDropSingleTupleTableSlot(aside.to);
	table_close(aside.dead, NoLock);
	return !ref->found;
}
