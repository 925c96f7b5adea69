/*-------------------------------------------------------------------------
 *
 * durable_responses.c
 *	  Writing what has become of durable calls, for the outbox worker.
 *
 * The peer hands answers over, which are written into the rows of their calls;
 * and now and then it has calls looked at whose time has come.  Handlers are run
 * by executors, from the rows.  No other transaction is waited for: a row that
 * another one has is left for later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/durable_calls.h"
#include "backend/durable_sources.h"
#include "backend/outbox.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "guc.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "protocol/attribute.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/durable_responses.h"
#include "worker/outbox_transaction.h"

#define MAX_STEP 1000			/* rows of a kind that one look deals with */
#define MAX_SEARCHED 10000		/* messages in the outbox among which requests
								 * are looked for */

/* how long a row with an outcome is left alone */
#define DUE_WHEN_ENDED \
	"CASE WHEN c.handler IS NULL THEN pg_catalog.now() OPERATOR(pg_catalog.+)" \
	" pg_catalog.make_interval(secs => $1)" \
	" ELSE pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $2) END"

/* tables that are used besides */
static const char *const side_tables[] = {"mailbox", "durable_source"};

static RinqOwnTable table;

/* Lock tables; false when that would have to wait, or they are not there. */
static bool
try_lock_side_tables(const char *const *names, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		Oid			relid = get_relname_relid(names[i], rinq_internal_schema());

		if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
	}
	return true;
}

/*
 * Begin a transaction on the tables; false when that would have to wait for a
 * lock.
 */
static bool
begin_responses(const char *activity)
{
	Oid			relid;
	bool		locked;

	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	locked = rinq_try_lock_extension();
	relid = rinq_durable_call_table();
	if (!OidIsValid(relid))
		proc_exit(0);			/* dropped: there is nothing to do, ever */
	if (!locked || !ConditionalLockRelationOid(relid, RowExclusiveLock) ||
		!try_lock_side_tables(side_tables, lengthof(side_tables)))
	{
		CommitTransactionCommand();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	return true;
}

static void
end_responses(void)
{
	rinq_own_table_close(&table);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(rinq_outbox_worker.context);
	pgstat_report_stat(false);
	ConditionVariableBroadcast(&rinq_outbox_worker.db->changed);
}

/* Return the value of a column of the first row found. */
static Datum
first_value(int column, bool *isnull)
{
	Assert(SPI_processed > 0);
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

/* ---------------- answers ---------------- */

/* Lock the row of a call that waits for its answer; say what is to be said of it if it does not. */
static RinqStoreState
lock_call(Datum id)
{
	static SPIPlanPtr lock = NULL;
	static SPIPlanPtr look = NULL;
	Oid			types[1] = {TEXTOID};

	if (rinq_own_table_execute_kept(&lock,
									"SELECT c.id FROM rinq_internal.durable_call c"
									" WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.outcome IS NULL"
									" FOR UPDATE SKIP LOCKED", 1, types, &id, NULL) > 0)
		return RINQ_STORE_DONE;
	return rinq_own_table_execute_kept(&look,
									   "SELECT c.id FROM rinq_internal.durable_call c"
									   " WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.outcome IS NULL",
									   1, types, &id, NULL) > 0 ? RINQ_STORE_POSTPONED : RINQ_STORE_UNKNOWN;
}

static void
put_response_text(Datum *value, char *isnull, RinqBytes text)
{
	*isnull = text.len == 0 ? 'n' : ' ';
	*value = text.len == 0 ? (Datum) 0 : CStringGetTextDatum(rinq_message_from_wire(text));
}

/* Write an answer into the row of its call, which is locked; return as whom its handler runs. */
static Oid
write_response(Datum id, const RinqFields *response)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[7] = {INT4OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID};
	RinqBytes	payload = rinq_get_bytes(response, RINQ_MAILBOX_RESPONSE_PAYLOAD);
	Datum		values[7];
	char		nulls[7];
	Datum		role;
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(rinq_result_retention);
	values[1] = Int32GetDatum(RINQ_CALL_LEASE / 1000);
	values[2] = id;
	put_response_text(&values[3], &nulls[3], rinq_get_bytes(response, RINQ_MAILBOX_RESPONSE_OUTCOME));
	put_response_text(&values[4], &nulls[4], rinq_get_bytes(response, RINQ_MAILBOX_RESPONSE_FAILURE_TYPE));
	put_response_text(&values[5], &nulls[5], rinq_get_bytes(response, RINQ_MAILBOX_RESPONSE_MESSAGE));
	nulls[6] = payload.len == 0 ? 'n' : ' ';
	values[6] = payload.len == 0 ? (Datum) 0 : PointerGetDatum(rinq_bytes_to_bytea(payload));
	if (rinq_own_table_execute_kept(&plan,
									"UPDATE rinq_internal.durable_call c SET outcome = $4, failure_type = $5,"
									" message = $6, result = $7, answered = pg_catalog.now(), due = " DUE_WHEN_ENDED
									" WHERE c.id OPERATOR(pg_catalog.=) $3"
									" RETURNING CASE WHEN c.handler IS NOT NULL THEN c.role END",
									lengthof(types), types, values, nulls) != 1)
		elog(ERROR, "a durable call has gone while it was locked");
	role = first_value(1, &isnull);
	return isnull ? InvalidOid : DatumGetObjectId(role);
}

static void
store_response(const RinqFields *response, RinqCallItem * item)
{
	char		text[RINQ_MESSAGE_ID_SIZE];
	Datum		id;

	memset(item, 0, sizeof(*item));
	if (!rinq_get_message_id(response, RINQ_MAILBOX_RESPONSE_ID, &item->id))
		elog(ERROR, "corrupt message in rinq's shared memory");
	rinq_message_id_format(&item->id, text, sizeof(text));
	id = CStringGetTextDatum(text);
	item->state = lock_call(id);
	item->role = item->state == RINQ_STORE_DONE ? write_response(id, response) : InvalidOid;
}

/*
 * Write answers into the rows of their calls; what has become of each is written
 * over the order.  False when that has to wait.
 */
bool
rinq_durable_store_responses(dsa_pointer order)
{
	RinqChunk  *chunk = rinq_chunk(order);
	const		RinqResponseBatch *batch = (const RinqResponseBatch *) RINQ_CHUNK_DATA(chunk);
	RinqBytes	list;
	RinqCallItem *items;
	RinqFields	response;
	uint32		count = 0;

	if (!begin_responses("rinq: storing answers"))
		return false;
	if (batch->bytes > chunk->size - offsetof(RinqResponseBatch, data))
		elog(ERROR, "corrupt message in rinq's shared memory");
	list = rinq_bytes(batch->data, batch->bytes);
	items = MemoryContextAlloc(rinq_outbox_worker.context, Max(chunk->count, 1) * sizeof(RinqCallItem));
	for (; count < chunk->count; count++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!rinq_fields_read(&response, RINQ_KIND_MAILBOX_RESPONSE, &list))
			elog(ERROR, "corrupt message in rinq's shared memory");
		store_response(&response, &items[count]);
	}
	end_responses();
	memcpy(rinq_chunk_items(chunk, sizeof(RinqCallItem)), items, count * sizeof(RinqCallItem));
	return true;
}

/* ---------------- calls whose time has come ---------------- */

/* conditions of rows "c" */
#define IS_DUE " c.due OPERATOR(pg_catalog.<=) pg_catalog.now()"
#define LIMITED " ORDER BY c.due LIMIT " CppAsString2(MAX_STEP) " FOR UPDATE SKIP LOCKED"

/* Run a statement with the parameters that all of them may use. */
static uint64
look_for(const char *query, int32 number)
{
	Oid			types[4] = {INT4OID, INT4OID, OIDOID, INT4OID};
	Datum		values[4];

	values[0] = Int32GetDatum(rinq_result_retention);
	values[1] = Int32GetDatum(RINQ_CALL_LEASE / 1000);
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	values[3] = Int32GetDatum(number);
	return rinq_own_table_execute(query, lengthof(types), types, values, NULL);
}

/*
 * Leave calls alone whose mailbox is not one, or is the one: in a copy they are
 * the original's.  False while another transaction has any of them.
 */
static bool
forget_calls(const char *mailbox, bool is_that)
{
	static const char *const which = "FROM rinq_internal.durable_call c WHERE c.due IS NOT NULL AND"
	" (pg_catalog.split_part(c.id, '.', 1) OPERATOR(pg_catalog.=) $1) OPERATOR(pg_catalog.=) $2";
	Oid			types[2] = {TEXTOID, BOOLOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(mailbox);
	values[1] = BoolGetDatum(is_that);
	(void) rinq_own_table_execute(psprintf("UPDATE rinq_internal.durable_call c SET due = NULL"
										   " WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY("
										   "SELECT c.id %s FOR UPDATE SKIP LOCKED))", which),
								  2, types, values, NULL);
	return rinq_own_table_execute(psprintf("SELECT %s LIMIT 1", which), 2, types, values, NULL) == 0;
}

/* Leave calls alone that came with a copy of another database: they are that one's. */
static bool
forget_foreign_calls(void)
{
	char	   *mailbox = "";

	if (look_for("SELECT m.id FROM rinq_internal.mailbox m WHERE m.database OPERATOR(pg_catalog.=) $3", 0) > 0)
		mailbox = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return forget_calls(mailbox, false);
}

/* End calls whose deadline has passed without an answer. */
static void
end_late_calls(void)
{
	(void) look_for("UPDATE rinq_internal.durable_call c SET outcome = 'timeout',"
					" message = 'there was no answer in time', answered = pg_catalog.now(), due ="
					" CASE WHEN c.handler IS NULL THEN pg_catalog.now() OPERATOR(pg_catalog.+)"
					" pg_catalog.make_interval(secs => $1) ELSE pg_catalog.now() END"
					" WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT c.id FROM rinq_internal.durable_call c"
					" WHERE c.outcome IS NULL AND c.deadline OPERATOR(pg_catalog.<=) pg_catalog.now()"
					" AND" IS_DUE LIMITED "))", 0);
}

/* Delete outcomes that were kept for long enough. */
static void
delete_old_results(void)
{
	(void) look_for("DELETE FROM rinq_internal.durable_call c"
					" WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT c.id FROM rinq_internal.durable_call c"
					" WHERE c.outcome IS NOT NULL AND c.handler IS NULL AND" IS_DUE LIMITED "))", 0);
}

/*
 * Take note of calls whose response did not come, and return the requests that are
 * to be sent again.  One that still waits in the outbox is not: another copy of
 * it would say nothing more.  When the outbox has fallen behind, all are left for
 * later, since it would take long to look for them.
 */
static uint64
take_overdue(void)
{
	bool		behind = pg_atomic_read_u64(&rinq_outbox_worker.db->outbox_depth) > MAX_SEARCHED;

	return look_for(psprintf("WITH l AS (SELECT c.id FROM rinq_internal.durable_call c"
							 " WHERE c.outcome IS NULL AND c.resend_ms IS NOT NULL AND" IS_DUE LIMITED "),"
							 " unsent AS MATERIALIZED (SELECT x.id FROM (SELECT o.id FROM rinq_internal.outbox_0 o"
							 " UNION ALL SELECT o.id FROM rinq_internal.outbox_1 o"
							 " UNION ALL SELECT o.id FROM rinq_internal.outbox_2 o"
							 " UNION ALL SELECT o.id FROM rinq_internal.outbox_3 o) x"
							 " WHERE x.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT l.id FROM l))),"
							 " later AS (SELECT l.id, %s AS waits FROM l),"
							 " u AS (UPDATE rinq_internal.durable_call c SET"
							 " asked = c.asked OPERATOR(pg_catalog.+) CASE WHEN s.waits THEN 0 ELSE 1 END,"
							 " asked_last = CASE WHEN s.waits THEN c.asked_last ELSE pg_catalog.now() END,"
							 " due = LEAST(c.deadline, pg_catalog.now() OPERATOR(pg_catalog.+)"
							 " pg_catalog.make_interval(secs => c.resend_ms OPERATOR(pg_catalog./) 1000.0))"
							 " FROM later s WHERE c.id OPERATOR(pg_catalog.=) s.id RETURNING c.*, s.waits)"
							 " SELECT " RINQ_DURABLE_REQUEST_COLUMNS " FROM u c WHERE NOT c.waits",
							 behind ? "true" : "EXISTS (SELECT FROM unsent n WHERE n.id OPERATOR(pg_catalog.=) l.id)"), 0);
}

/* Ask again where that is wanted, and the answer did not come. */
static void
ask_again(void)
{
	RinqOutboxTables tables;
	SPITupleTable *found;
	uint64		count;
	uint64		i;

	/* no table of the outbox is waited for later */
	if (!rinq_outbox_open(rinq_internal_schema(), RowExclusiveLock, &tables))
		return;
	rinq_outbox_close(&tables);
	count = take_overdue();
	found = SPI_tuptable;
	for (i = 0; i < count; i++)
	{
		RinqOutbound message;
		RinqFields	fields;

		rinq_durable_call_request(found->vals[i], found->tupdesc, CurrentMemoryContext, &message, &fields);
		rinq_durable_call_ask(rinq_outbox_worker.db, &message, &fields);
	}
}

/* Lock the tables that tell whether a session is settled; false when that would have to wait. */
static bool
lock_to_settle_sources(void)
{
	static const char *const others[] = {"outbox_waiting", "outbox_dead_letter"};
	RinqOutboxTables tables;

	if (!rinq_outbox_open(rinq_internal_schema(), RowExclusiveLock, &tables))
		return false;
	rinq_outbox_close(&tables);
	return try_lock_side_tables(others, lengthof(others));
}

/*
 * End sessions whose messages are settled, and delete those that have been kept
 * for long enough.  The whole outbox is read for that, so it is not done in every
 * look.
 */
static void
settle_sources(void)
{
	static int64 settled = 0;
	int64		now = rinq_clock_ms();
	Oid			types[1] = {INT4OID};
	Datum		values[1];

	if ((settled != 0 && now - settled < rinq_durable_source_interval() * INT64CONST(1000) / 2) ||
		!lock_to_settle_sources())
		return;
	settled = now;
	values[0] = Int32GetDatum(rinq_source_retention);
	(void) rinq_own_table_execute("UPDATE rinq_internal.durable_source s SET expires = pg_catalog.now()"
								  " OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $1)"
								  " WHERE s.session OPERATOR(pg_catalog.=) ANY (ARRAY("
								  "SELECT s.session FROM rinq_internal.durable_source s"
								  " WHERE s.expires IS NULL AND NOT EXISTS (SELECT FROM"
								  " (SELECT o.id FROM rinq_internal.outbox_0 o UNION ALL SELECT o.id FROM rinq_internal.outbox_1 o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_2 o UNION ALL SELECT o.id FROM rinq_internal.outbox_3 o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_waiting o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_dead_letter o"
								  " UNION ALL SELECT c.id FROM rinq_internal.durable_call c WHERE c.outcome IS NULL) x"
								  " WHERE x.id OPERATOR(pg_catalog.=) s.id) FOR UPDATE OF s SKIP LOCKED))", 1, types, values, NULL);
	(void) rinq_own_table_execute("DELETE FROM rinq_internal.durable_source s"
								  " WHERE s.session OPERATOR(pg_catalog.=) ANY (ARRAY("
								  "SELECT s.session FROM rinq_internal.durable_source s"
								  " WHERE s.expires OPERATOR(pg_catalog.<=) pg_catalog.now() FOR UPDATE SKIP LOCKED))",
								  0, NULL, NULL, NULL);
}

/*
 * Give handlers up whose role was dropped, since no executor can be had for them;
 * an administrator sees them as failed, and may delete them.
 */
static void
give_orphans_up(void)
{
	(void) look_for("UPDATE rinq_internal.durable_call c SET due = NULL,"
					" error = 'the role that has made the call does not exist any more'"
					" WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT c.id FROM rinq_internal.durable_call c"
					" WHERE c.outcome IS NOT NULL AND c.handler IS NOT NULL AND NOT EXISTS"
					" (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) c.role)"
					" AND" IS_DUE LIMITED "))", 0);
}

/*
 * List calls whose handler is to run.  Of those that a peer before this one was
 * at, it is not known whether it still is; it has locked the row then.
 */
static uint32
list_handlers(RinqCallLook * look)
{
	uint64		count = look_for(look->first ?
								 "UPDATE rinq_internal.durable_call c SET due = pg_catalog.now()"
								 " OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $2)"
								 " WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT c.id FROM rinq_internal.durable_call c"
								 " WHERE c.outcome IS NOT NULL AND c.handler IS NOT NULL AND c.due IS NOT NULL"
								 " AND (c.attempts OPERATOR(pg_catalog.=) 0 OR" IS_DUE ")"
								 " ORDER BY c.due LIMIT $4 FOR UPDATE SKIP LOCKED)) RETURNING c.id, c.role" :
								 "UPDATE rinq_internal.durable_call c SET due = pg_catalog.now()"
								 " OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $2)"
								 " WHERE c.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT c.id FROM rinq_internal.durable_call c"
								 " WHERE c.outcome IS NOT NULL AND c.handler IS NOT NULL AND" IS_DUE
								 " ORDER BY c.due LIMIT $4 FOR UPDATE SKIP LOCKED)) RETURNING c.id, c.role",
								 (int32) look->room);
	uint32		listed = 0;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		RinqCallItem *item = &look->items[listed];
		char	   *id = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		bool		isnull;

		memset(item, 0, sizeof(*item));
		if (!rinq_message_id_parse(id, strlen(id), &item->id))
			continue;
		item->state = RINQ_STORE_DONE;
		item->role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		listed++;
	}
	return listed;
}

/* Find out when to look again, on the wall clock; 0 for never. */
static int64
next_look(void)
{
	Datum		due;
	bool		isnull;

	/* sessions are looked at now and then, as long as there are any */
	if (look_for("SELECT x.due FROM ((SELECT c.due FROM rinq_internal.durable_call c WHERE c.due IS NOT NULL"
				 " ORDER BY c.due LIMIT 1) UNION ALL (SELECT pg_catalog.now() OPERATOR(pg_catalog.+)"
				 " pg_catalog.make_interval(secs => $4) FROM rinq_internal.durable_source LIMIT 1)) x"
				 " ORDER BY 1 LIMIT 1", rinq_durable_source_interval()) == 0)
		return 0;
	due = first_value(1, &isnull);
	return Max(1, rinq_ms_of_timestamp(DatumGetTimestampTz(due)));
}

/*
 * See to calls whose time has come; handlers that are to run are listed in the
 * order itself.  False when that has to wait.
 */
bool
rinq_durable_look_at_calls(dsa_pointer order)
{
	RinqChunk  *chunk = rinq_chunk(order);
	RinqCallLook *look = (RinqCallLook *) RINQ_CHUNK_DATA(chunk);
	RinqCallLook *found;
	Size		size = offsetof(RinqCallLook, items) + look->room * sizeof(RinqCallItem);
	uint32		count;

	if (!begin_responses("rinq: looking at durable calls"))
		return false;
	found = MemoryContextAllocZero(rinq_outbox_worker.context, size);
	found->room = look->room;
	found->first = look->first;
	if (look->first && !forget_foreign_calls())
	{
		end_responses();
		return false;
	}
	end_late_calls();
	delete_old_results();
	ask_again();
	settle_sources();
	CommandCounterIncrement();
	give_orphans_up();
	count = list_handlers(found);
	CommandCounterIncrement();
	found->next = next_look();
	end_responses();
	memcpy(look, found, size);
	chunk->count = count;
	return true;
}

/* ---------------- sessions of the mailbox ---------------- */

/* Append the attributes of a session that were found to a list. */
static void
append_source_attributes(StringInfo list)
{
	uint64		i;

	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *value = SPI_getvalue(row, desc, 3);
		RinqAttribute attribute;
		RinqFields	fields;
		StringInfoData packed;

		if (SPI_getvalue(row, desc, 2) == NULL)
			continue;
		memset(&attribute, 0, sizeof(attribute));
		attribute.key = rinq_text_to_wire(SPI_getvalue(row, desc, 2));
		attribute.value = value == NULL ? rinq_bytes("", 0) : rinq_text_to_wire(value);
		attribute.frozen = true;
		attribute.created = attribute.updated = 1;
		initStringInfo(&packed);
		rinq_attributes_pack(&packed, &attribute, 1);
		rinq_fields_init(&fields, RINQ_KIND_SESSION_ATTRIBUTE);
		rinq_put_bytes(&fields, RINQ_SESSION_ATTRIBUTE_NAMESPACE, rinq_text_to_wire(SPI_getvalue(row, desc, 1)));
		rinq_put_bytes(&fields, RINQ_SESSION_ATTRIBUTE_ATTRIBUTE, rinq_bytes(packed.data, packed.len));
		rinq_fields_append(list, &fields);
	}
}

/*
 * Read the session of the mailbox that an order names, and report its
 * attributes.  False when that has to wait.
 */
bool
rinq_durable_source_read(dsa_pointer order)
{
	const		RinqSourceRead *asked = (const RinqSourceRead *) RINQ_CHUNK_DATA(rinq_chunk(order));
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	RinqSourceRead head;
	StringInfoData report;

	if (!begin_responses("rinq: reading a session"))
		return false;
	initStringInfo(&report);
	memset(&head, 0, sizeof(head));
	head.session = asked->session;
	appendBinaryStringInfo(&report, (const char *) &head, offsetof(RinqSourceRead, data));
	values[0] = Int64GetDatum((int64) asked->session);
	head.found = rinq_own_table_execute("SELECT n.key, a.key, a.value FROM rinq_internal.durable_source s"
										" LEFT JOIN LATERAL pg_catalog.jsonb_each(s.attributes) n ON true"
										" LEFT JOIN LATERAL pg_catalog.jsonb_each_text(n.value) a ON true"
										" WHERE s.session OPERATOR(pg_catalog.=) $1", 1, types, values, NULL) > 0;
	append_source_attributes(&report);
	head.bytes = (uint32) (report.len - offsetof(RinqSourceRead, data));
	memcpy(report.data, &head, offsetof(RinqSourceRead, data));
	values[0] = PointerGetDatum(memcpy(MemoryContextAlloc(rinq_outbox_worker.context, report.len), report.data, report.len));
	end_responses();
	return rinq_outbox_report(RINQ_CHUNK_SOURCE_READ, DatumGetPointer(values[0]), (Size) head.bytes + offsetof(RinqSourceRead, data), 0);
}

/* ---------------- another mailbox ---------------- */

/* Have another mailbox; false when that has to wait. */
static bool
replace_mailbox(const char *id)
{
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2];

	if (!forget_calls(id, true))
		return false;
	values[0] = CStringGetTextDatum(id);
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	if (rinq_own_table_execute("UPDATE rinq_internal.mailbox m SET id = DEFAULT, created = DEFAULT"
							   " WHERE m.database OPERATOR(pg_catalog.=) ANY (ARRAY("
							   "SELECT m.database FROM rinq_internal.mailbox m"
							   " WHERE m.database OPERATOR(pg_catalog.=) $2 AND m.id OPERATOR(pg_catalog.=) $1"
							   " FOR UPDATE SKIP LOCKED))",
							   2, types, values, NULL) > 0)
		ereport(WARNING,
				(errmsg("rinq gives database \"%s\" another mailbox, since another server has mailbox %s",
						NameStr(rinq_outbox_worker.db->name), id),
				 errhint("Durable calls that wait for answers are that server's; the view rinq_durable_calls shows them as abandoned.")));
	return rinq_own_table_execute("SELECT FROM rinq_internal.mailbox m"
								  " WHERE m.database OPERATOR(pg_catalog.=) $2 AND m.id OPERATOR(pg_catalog.=) $1",
								  2, types, values, NULL) == 0;
}

/*
 * Have another mailbox than the one that the order names, which another server
 * has.  False when that has to wait.
 */
bool
rinq_mailbox_renew(dsa_pointer order)
{
	char	   *id = pstrdup(RINQ_CHUNK_DATA(rinq_chunk(order)));
	bool		done;

	if (!begin_responses("rinq: taking another mailbox"))
		return false;
	done = replace_mailbox(id);
	end_responses();
	return done;
}
