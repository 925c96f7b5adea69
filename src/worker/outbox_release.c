/*-------------------------------------------------------------------------
 *
 * outbox_release.c
 *	  Moving messages that wait into the outbox, when they may be sent.
 *
 * The peer says when to look.  What is found goes from one table to the other in
 * one transaction, and then to the peer.  Statements in SQL, which the install
 * script defines, say which messages these are: those whose time has come, and
 * of each ordering the first, while none of it is in the outbox.
 *
 * Which messages in the outbox are the first of an ordering is in a table, and
 * in the memory of this process too, so that removing rows costs no more than a
 * look into that.  The process that begins reads the table.  What one that was
 * ended has not got to is set right by the next, for which all that wait are
 * read; after one that has left by itself that is not necessary.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/table.h"
#include "backend/own_relation.h"
#include "backend/own_tables.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "base/hash_table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "ipc/outbox_depth.h"
#include "ipc/outbox_due.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/outbox_release.h"

#define PIECE_MESSAGES 500		/* moved in one transaction, */
#define PIECE_KEYS 2000			/* and keys forgotten */
#define MAX_AHEAD (4 * RINQ_OUTBOX_PIECE)	/* bytes that the peer has not
											 * sent */
#define KEYS_INTERVAL (60 * USECS_PER_SEC)	/* between looks for old keys */
#define MEND_INTERVAL (600 * INT64CONST(1000))	/* ms until what waits is
												 * counted again */
#define FIRST_BUSY_DELAY 50		/* ms until what was locked is looked at
								 * again, */
#define LAST_BUSY_DELAY 2000	/* later and later */
#define UNUSABLE_DELAY (10 * USECS_PER_SEC) /* until tables are looked at
											 * again that are not as rinq made
											 * them */
#define TELL_INTERVAL 600000	/* ms between log entries about these */

/* columns of what outbox_release() returns, from 1 on: those of the outbox come first */
enum
{
	RELEASED_ID = 2,
	RELEASED_NAMESPACE,
	RELEASED_COMMAND,
	RELEASED_PAYLOAD,
	RELEASED_TRACE_ID,
	RELEASED_DEADLINE,
	RELEASED_DATABASE,
	RELEASED_SPAN_CONTEXT,
	RELEASED_TRACEPARENT,
	RELEASED_TRACESTATE,
	RELEASED_IS_CALL,
	RELEASED_ROLE,
	RELEASED_KEY,
	RELEASED_ORDERING,
	RELEASED_DUE
};

/* what a look has come to */
typedef struct Look
{
	RinqOutboxRead read;		/* messages for the peer */
	Size		moved;			/* rows */
	Size		blocked;		/* rows, until the one before is through */
	bool		odd;			/* some of them only a scan can deal with */
	bool		mended;
	bool		more_keys;		/* are to be forgotten */
	TimestampTz next;			/* when to look again */
	bool		busy;			/* something could not be done now */
} Look;

static const char *const own_tables[] = {"outbox_waiting", "outbox_ordered", "outbox_key"};

/* what is read besides: dead letters, and what the tables are to look like */
static const char *const read_tables[] = {"outbox_dead_letter", "manifest"};

static dsa_pointer order = InvalidDsaPointer;	/* to look, that is carried
												 * out */
static bool firsts_known;		/* to this process */
static int	busy_delay;			/* the last, while nothing could be done */
static HTAB *firsts;			/* ids of messages that are the first of an
								 * ordering */
static RinqMessageId *through;	/* of these, rows that were removed */
static int	num_through;
static int	room_through;

void
rinq_release_init(void)
{
	firsts = rinq_make_hash_table("rinq ordered messages", 64, sizeof(RinqMessageId), sizeof(RinqMessageId), TopMemoryContext);

	/* have the peer say so once, for what an earlier process has left */
	if (rinq_due_lower(rinq_outbox_worker.db, DT_NOBEGIN))
		rinq_wake_peer(rinq_outbox_worker.db);
}

/*
 * Take the peer's order to look.
 */
void
rinq_release_order(dsa_pointer pointer)
{
	Assert(!DsaPointerIsValid(order));
	order = pointer;
}

/*
 * Tell whether this process must not leave, since it knows what no other one
 * does.
 */
bool
rinq_release_pending(void)
{
	return DsaPointerIsValid(order) || num_through > 0;
}

/*
 * Give up what is left to do.
 */
void
rinq_release_forget(void)
{
	rinq_chunk_free(order);
	order = InvalidDsaPointer;
}

/* ---------------- orderings ---------------- */

static void
remember_first(const RinqMessageId *id)
{
	RinqMessageId key;

	rinq_message_id_key(id, &key);
	(void) hash_search(firsts, &key, HASH_ENTER, NULL);
}

/* Forget a message that was the first of an ordering; until those are read, any may have been. */
static bool
forget_first(const RinqMessageId *id)
{
	RinqMessageId key;
	bool		found;

	if (!firsts_known)
		return true;
	if (hash_get_num_entries(firsts) == 0)
		return false;
	rinq_message_id_key(id, &key);
	(void) hash_search(firsts, &key, HASH_REMOVE, &found);
	return found;
}

/*
 * Note that a row was removed: if it was the first of an ordering, the next is
 * looked at.
 */
void
rinq_release_removed(const RinqMessageId *id)
{
	if (!forget_first(id))
		return;
	if (num_through == room_through)
	{
		room_through = Max(64, room_through * 2);
		through = through == NULL ?
			MemoryContextAlloc(TopMemoryContext, room_through * sizeof(RinqMessageId)) :
			repalloc(through, room_through * sizeof(RinqMessageId));
	}
	through[num_through++] = *id;
	(void) rinq_due_lower(rinq_outbox_worker.db, DT_NOBEGIN);
}

/* Return the ids of messages that are through, as an array of texts. */
static Datum
through_array(void)
{
	Datum	   *ids = palloc(Max(num_through, 1) * sizeof(Datum));
	int			i;

	for (i = 0; i < num_through; i++)
	{
		char		text[RINQ_MESSAGE_ID_SIZE];

		rinq_message_id_format(&through[i], text, sizeof(text));
		ids[i] = CStringGetTextDatum(text);
	}
	return PointerGetDatum(construct_array(ids, num_through, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Keep only those of the messages that are through that a statement has returned. */
static void
keep_through(void)
{
	uint64		row;

	num_through = 0;
	for (row = 0; row < SPI_processed; row++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1);

		if (rinq_message_id_parse(text, strlen(text), &through[num_through]))
			num_through++;
	}
}

static void
pass_on(Look *look)
{
	Oid			type = TEXTARRAYOID;
	Datum		ids;

	if (num_through == 0)
		return;
	ids = through_array();
	(void) rinq_own_table_execute("SELECT t FROM rinq_internal.outbox_through($1) t", 1, &type, &ids, NULL);
	keep_through();
	look->busy |= num_through > 0;
}

/* Read which messages are the first of their orderings. */
static void
read_firsts(void)
{
	uint64		row;

	(void) rinq_own_table_execute("SELECT o.id FROM rinq_internal.outbox_ordered o", 0, NULL, NULL, NULL);
	for (row = 0; row < SPI_processed; row++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1);
		RinqMessageId id;

		if (rinq_message_id_parse(text, strlen(text), &id))
			remember_first(&id);
	}
}

/* ---------------- tables ---------------- */

static void
tell_unusable(Relation rel, const char *problem)
{
	static int64 told_at = 0;

	if (told_at != 0 && rinq_clock_ms() - told_at < TELL_INTERVAL)
		return;
	told_at = rinq_clock_ms();
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rinq cannot send delayed and ordered messages, because the table \"%s\" is not as rinq made it",
					RelationGetRelationName(rel)),
			 errdetail_internal("The table cannot be used: %s.", problem),
			 errhint("Remove what was added; rinq_check() lists it.")));
}

static bool
try_lock_tables(Oid schema, const char *const *names, int count, LOCKMODE mode)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		Oid			relid = get_relname_relid(names[i], schema);

		if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, mode))
			return false;
	}
	return true;
}

/*
 * Lock all tables that are used; false when that would have to wait.  A command
 * that locks them in another order is in no deadlock with this process.
 */
static bool
lock_own_tables(Oid schema)
{
	return try_lock_tables(schema, own_tables, lengthof(own_tables), RowExclusiveLock) &&
		try_lock_tables(schema, read_tables, lengthof(read_tables), AccessShareLock);
}

/* Tell whether the tables, which are locked, are as rinq made them. */
static bool
are_usable(Oid schema)
{
	bool		usable = true;
	int			i;

	for (i = 0; i < (int) lengthof(own_tables) && usable; i++)
	{
		Relation	rel = table_open(get_relname_relid(own_tables[i], schema), NoLock);
		char	   *problem = rinq_own_relation_problem(rel, RINQ_OWN_WRITE);

		usable = problem == NULL;
		if (!usable)
			tell_unusable(rel, problem);
		table_close(rel, NoLock);
	}
	return usable;
}

/* ---------------- looking ---------------- */

/* Set right what an earlier process has left, and count what waits. */
static void
mend_waiting(void)
{
	Oid			type = OIDOID;
	Datum		here = ObjectIdGetDatum(MyDatabaseId);
	bool		isnull;
	int64		count;

	(void) rinq_own_table_execute("SELECT rinq_internal.outbox_mend($1)", 1, &type, &here, NULL);
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	pg_atomic_write_u64(&rinq_outbox_worker.db->outbox_waiting, (uint64) count);
}

/* Tell whether that is to be done: it was not yet, or long ago, so that a count that is wrong does not stay so. */
static bool
is_mending_due(void)
{
	int64		mended_at = (int64) pg_atomic_read_u64(&rinq_outbox_worker.db->outbox_mended_at);

	return mended_at == 0 || rinq_clock_ms() - mended_at >= MEND_INTERVAL;
}

/*
 * Have messages that are delayed by an interval wait for that, although the wall
 * clock was stepped since they were written, in this life of the server; "again"
 * is for those that were locked, or not committed, when that was done.
 */
static void
follow_clock(bool again)
{
	RinqDatabase *db = rinq_outbox_worker.db;
	int64		difference = rinq_clock_difference();
	Oid			types[2] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2];

	if (!again && rinq_due_clock_known(db) && !rinq_due_clock_stepped(db, difference))
		return;
	values[0] = Int64GetDatum(difference);
	values[1] = TimestampTzGetDatum(PgStartTime);
	(void) rinq_own_table_execute("SELECT rinq_internal.outbox_follow_clock($1, $2)", 2, types, values, NULL);
	pg_atomic_write_u64(&db->outbox_clock, (uint64) difference);
}

static void
read_released(HeapTuple tuple, TupleDesc desc, RinqFields *fields)
{
	rinq_fields_init(fields, RINQ_KIND_SEND);
	rinq_put_bytes(fields, RINQ_SEND_NAMESPACE, rinq_own_row_text(tuple, desc, RELEASED_NAMESPACE));
	rinq_put_bytes(fields, RINQ_SEND_COMMAND, rinq_own_row_text(tuple, desc, RELEASED_COMMAND));
	rinq_put_bytes(fields, RINQ_SEND_PAYLOAD, rinq_own_row_bytes(tuple, desc, RELEASED_PAYLOAD));
	rinq_put_bytes(fields, RINQ_SEND_TRACE, rinq_own_row_text(tuple, desc, RELEASED_TRACE_ID));
	rinq_put_bytes(fields, RINQ_SEND_SPAN, rinq_own_row_bytes(tuple, desc, RELEASED_SPAN_CONTEXT));
	rinq_put_bytes(fields, RINQ_SEND_TRACEPARENT, rinq_own_row_bytes(tuple, desc, RELEASED_TRACEPARENT));
	rinq_put_bytes(fields, RINQ_SEND_TRACESTATE, rinq_own_row_bytes(tuple, desc, RELEASED_TRACESTATE));
}

/* Add a message to those for the peer. */
static void
add_for_peer(Look *look, const RinqOutbound *message, const RinqFields *fields)
{
	MemoryContext old = MemoryContextSwitchTo(rinq_outbox_worker.context);
	RinqOutbound *copy = palloc_extended(rinq_outbound_size(fields), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	*copy = *message;
	rinq_outbound_write(copy, fields);
	look->read.messages = lappend(look->read.messages, copy);
	look->read.bytes += copy->length;
	MemoryContextSwitchTo(old);
}

/*
 * Move a row into the outbox.  What cannot be sent as it is, or is another
 * database's, is left to a scan, which sets it aside.
 */
static void
move_released(Look *look, HeapTuple tuple, TupleDesc desc)
{
	char	   *id = SPI_getvalue(tuple, desc, RELEASED_ID);
	RinqOutbound message;
	RinqFields	fields;
	Datum		deadline;
	Oid			from;
	bool		isnull;
	bool		no_deadline;

	memset(&message, 0, sizeof(message));
	message.durable = true;
	deadline = SPI_getbinval(tuple, desc, RELEASED_DEADLINE, &no_deadline);
	if (!no_deadline)
		message.deadline = rinq_ms_of_timestamp(DatumGetTimestampTz(deadline));
	from = DatumGetObjectId(SPI_getbinval(tuple, desc, RELEASED_DATABASE, &isnull));
	read_released(tuple, desc, &fields);
	rinq_outbox_move(rinq_outbox_worker.db, rinq_outbox_worker.schema, &message, &fields, id, from);
	look->moved++;
	if (!rinq_message_id_parse(id, strlen(id), &message.item.id) || from != MyDatabaseId ||
		rinq_get_bytes(&fields, RINQ_SEND_PAYLOAD).len > rinq_payload_limit())
		look->odd = true;
	else
		add_for_peer(look, &message, &fields);
	if (from == MyDatabaseId && message.item.id.seq != 0 && SPI_getvalue(tuple, desc, RELEASED_ORDERING) != NULL)
		remember_first(&message.item.id);
}

/* Move what may be sent now. */
static void
release_due(Look *look, TimestampTz now)
{
	Oid			types[4] = {OIDOID, TIMESTAMPTZOID, INT4OID, INT8OID};
	Datum		values[4];
	SPITupleTable *rows;
	uint64		count;
	uint64		row;

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	values[1] = TimestampTzGetDatum(now);
	values[2] = Int32GetDatum(PIECE_MESSAGES);
	values[3] = Int64GetDatum(RINQ_OUTBOX_PIECE);
	count = rinq_own_table_execute("SELECT r.* FROM rinq_internal.outbox_release($1, $2, $3, $4) r", 4, types, values, NULL);
	rows = SPI_tuptable;
	for (row = 0; row < count; row++)
	{
		bool		isnull;

		if (DatumGetTimestampTz(SPI_getbinval(rows->vals[row], rows->tupdesc, RELEASED_DUE, &isnull)) == DT_NOEND)
			look->blocked++;
		else
			move_released(look, rows->vals[row], rows->tupdesc);
	}
}

/* Forget a piece of the keys that are too old. */
static void
forget_old_keys(Look *look, TimestampTz now)
{
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2];
	bool		isnull;

	values[0] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, -INT64CONST(1000) * rinq_key_retention));
	values[1] = Int32GetDatum(PIECE_KEYS);
	(void) rinq_own_table_execute("SELECT rinq_internal.outbox_forget_keys($1, $2)", 2, types, values, NULL);
	look->more_keys = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) == PIECE_KEYS;
}

/* Find out when there is something to do next. */
static void
find_next_look(Look *look, TimestampTz now)
{
	Datum		value;
	bool		isnull;

	(void) rinq_own_table_execute("SELECT n.due, n.oldest_key FROM rinq_internal.outbox_next() n", 0, NULL, NULL, NULL);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		look->next = Min(look->next, DatumGetTimestampTz(value));
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (!isnull)
		look->next = Min(look->next, Max(rinq_key_expiry(DatumGetTimestampTz(value)), now + KEYS_INTERVAL));
}

/* Look, in a transaction that has a snapshot. */
static void
look_at_waiting(Look *look)
{
	static TimestampTz keys_after = DT_NOBEGIN;
	TimestampTz now;
	RinqOwnTable table;

	rinq_own_table_open(&table, rinq_outbox_worker.schema, "outbox_waiting");
	look->mended = is_mending_due();
	if (look->mended)
		mend_waiting();
	pass_on(look);
	if (!firsts_known)
		read_firsts();
	follow_clock(look->mended);
	now = GetCurrentTimestamp();
	release_due(look, now);
	if (now >= keys_after || now < keys_after - KEYS_INTERVAL)
	{
		forget_old_keys(look, now);
		keys_after = look->more_keys ? DT_NOBEGIN : now + KEYS_INTERVAL;
	}
	find_next_look(look, now);
	rinq_own_table_close(&table);
}

/*
 * Tell the peer of the messages that were moved, now that they are committed;
 * those that it cannot be told of, it finds by a scan.
 */
static void
hand_over_released(const Look *look)
{
	RinqDatabase *db = rinq_outbox_worker.db;

	if (look->moved == 0)
		return;
	rinq_depth_added(db, look->moved);
	rinq_waiting_add(db, -(int64) look->moved);
	if (look->odd ||
		(look->read.messages != NIL && !rinq_outbox_report_messages(RINQ_CHUNK_RELEASED, &look->read, 0)))
		rinq_sendqueue_want_scan(db);
}

/* Look once, and tell the peer what was found; false when tables are locked. */
static bool
look_once(Look *look)
{
	bool		usable;

	look->next = DT_NOEND;
	if (!rinq_outbox_begin("rinq: sending delayed and ordered messages", RowExclusiveLock))
		return false;
	(void) rinq_due_take(rinq_outbox_worker.db);
	rinq_outbox_snapshot();
	if (!lock_own_tables(rinq_outbox_worker.schema))
	{
		rinq_outbox_end();
		return false;
	}
	usable = are_usable(rinq_outbox_worker.schema);
	if (usable)
		look_at_waiting(look);
	else
		look->next = GetCurrentTimestamp() + UNUSABLE_DELAY;
	rinq_outbox_end();
	firsts_known |= usable;
	if (look->mended)
		pg_atomic_write_u64(&rinq_outbox_worker.db->outbox_mended_at, (uint64) rinq_clock_ms());
	hand_over_released(look);
	return true;
}

/*
 * Tell whether to look again at once.  When something is due that other
 * transactions have locked, and nothing else could be done, that is looked at
 * again after a while, unless a transaction has it looked at before.
 */
static bool
goes_on_at_once(Look *look)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz again;

	if (!look->busy && !look->more_keys && look->next > now)
	{
		busy_delay = 0;
		return false;
	}
	if (look->moved > 0 || look->blocked > 0 || look->more_keys)
	{
		busy_delay = 0;
		return true;
	}
	busy_delay = rinq_backoff_next(busy_delay, FIRST_BUSY_DELAY, LAST_BUSY_DELAY);
	again = TimestampTzPlusMilliseconds(now, busy_delay);
	look->next = look->next <= now ? again : Min(look->next, again);
	return false;
}

/*
 * Do a turn's work on the order to look, if there is one.
 */
RinqOutboxTurn
rinq_release_turn(void)
{
	RinqSendQueue *queue = rinq_outbox_worker.queue;
	Look		look;

	if (!DsaPointerIsValid(order))
		return RINQ_TURN_NOTHING;

	/* set before looking, so that the peer does not miss it */
	queue->worker_waits = true;
	pg_memory_barrier();
	if (rinq_sendqueue_report_bytes(queue) >= MAX_AHEAD)
		return RINQ_TURN_LATER;
	queue->worker_waits = false;
	memset(&look, 0, sizeof(look));
	if (!look_once(&look))
		return RINQ_TURN_LATER;
	if (goes_on_at_once(&look))
		return RINQ_TURN_DONE;
	(void) rinq_due_lower(rinq_outbox_worker.db, look.next);
	rinq_outbox_report_with(&order, RINQ_CHUNK_LOOKED);
	return RINQ_TURN_DONE;
}
