/*-------------------------------------------------------------------------
 *
 * backend/durable_calls.c
 *	  The table of durable calls, as far as several kinds of processes use it.
 *
 * A row is made with its request, in one transaction.  It goes on as follows,
 * each step in one transaction: an outcome is written into it, by the outbox
 * worker or by a backend; then its handler runs in an executor, and the row is
 * deleted with the effects of that.  "due" says when the outbox worker looks at
 * it at the latest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/commit_queue.h"
#include "backend/durable_calls.h"
#include "backend/identity.h"
#include "backend/outbox.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "guc.h"
#include "ipc/outbox_due.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(rinq_new_mailbox_id);

/* what the current transaction tells the peer when it commits */
static RinqDatabase *due_database = NULL;
static int64 due_first = 0;

/*
 * new_mailbox_id() returns text
 *
 * Makes up a peer id for a mailbox.  No peer has to be asked: of all that begin
 * in the same second, one in 65,535 has the same one, and mailboxes are made
 * once for each database.
 */
Datum
rinq_new_mailbox_id(PG_FUNCTION_ARGS)
{
	RinqPeerId	id;
	char		text[RINQ_PEER_ID_SIZE];

	id.clock = (uint64) (rinq_wall_ms() / 1000);
	do
	{
		if (!pg_strong_random(&id.rand, sizeof(id.rand)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random peer id")));
	} while (id.rand == 0);
	rinq_peer_id_format(&id, text, sizeof(text));
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

/*
 * Make a mailbox for the database unless it has one: a copy of another database
 * may be without one of its own.  To be called while a table of the extension is
 * open.
 */
void
rinq_mailbox_make(void)
{
	static SPIPlanPtr plan = NULL;
	Oid			type = OIDOID;
	Datum		database = ObjectIdGetDatum(MyDatabaseId);

	(void) rinq_own_table_execute_kept(&plan,
									   "INSERT INTO rinq_internal.mailbox (database) VALUES ($1)"
									   " ON CONFLICT (database) DO NOTHING", 1, &type, &database, NULL);
}

/*
 * Take another mailbox in the place of one that has come with a copy of a whole
 * server, before the copy is adopted: that one is the original's.  To be called
 * while a table of the extension is open.
 */
void
rinq_mailbox_leave_original(void)
{
	static const char *const renew =
	"UPDATE rinq_internal.mailbox SET id = DEFAULT, created = DEFAULT WHERE created OPERATOR(pg_catalog.<) $1";
	Oid			type = TIMESTAMPTZOID;
	Datum		own_since;

	if (!rinq_identity_waits())
		return;
	own_since = TimestampTzGetDatum(rinq_identity_own_since());

	/* looked for first: the triggers of an update fire without a row, too */
	if (rinq_own_table_execute("SELECT FROM rinq_internal.mailbox m WHERE m.created OPERATOR(pg_catalog.<) $1",
							   1, &type, &own_since, NULL) > 0)
		(void) rinq_own_table_execute(renew, 1, &type, &own_since, NULL);
}

/*
 * Return the table of durable calls, InvalidOid when it is not there.
 */
Oid
rinq_durable_call_table(void)
{
	Oid			schema = rinq_internal_schema();

	return OidIsValid(schema) ? get_relname_relid(RINQ_DURABLE_CALL_TABLE, schema) : InvalidOid;
}

/*
 * Note that the request of a durable call was not sent, and will not be, for
 * the outbox worker.  No other transaction is waited for: false when one has
 * the table or the row.
 */
bool
rinq_durable_call_not_sent(const RinqMessageId *id, const char *error)
{
	static SPIPlanPtr plan = NULL;
	Oid			relid = rinq_durable_call_table();
	RinqOwnTable table;
	Oid			types[3] = {TEXTOID, TEXTOID, INT4OID};
	Datum		values[3];
	char		text[RINQ_MESSAGE_ID_SIZE];
	bool		done;
	bool		isnull;

	if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	rinq_message_id_format(id, text, sizeof(text));
	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	values[0] = CStringGetTextDatum(text);
	values[1] = CStringGetTextDatum(error);
	values[2] = Int32GetDatum(rinq_result_retention);
	(void) rinq_own_table_execute_kept(&plan,
									   "WITH l AS (SELECT c.id FROM rinq_internal.durable_call c"
									   " WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.outcome IS NULL"
									   " FOR UPDATE SKIP LOCKED),"
									   " u AS (UPDATE rinq_internal.durable_call c SET outcome = 'not sent', message = $2,"
									   " answered = pg_catalog.now(), due = CASE WHEN c.handler IS NULL"
									   " THEN pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3)"
									   " ELSE pg_catalog.now() END"
									   " FROM l WHERE c.id OPERATOR(pg_catalog.=) l.id RETURNING 1)"
									   " SELECT EXISTS (SELECT FROM u) OR NOT EXISTS"
									   " (SELECT FROM rinq_internal.durable_call c"
									   " WHERE c.id OPERATOR(pg_catalog.=) $1 AND c.outcome IS NULL)",
									   3, types, values, NULL);
	done = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	rinq_own_table_close(&table);
	if (done)
		rinq_durable_call_due_at_commit(rinq_my_database(), rinq_wall_ms());
	return done;
}

/* Have the fields live in a memory context. */
static void
keep_fields(RinqFields *fields, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	(void) rinq_fields_copy(fields);
	MemoryContextSwitchTo(old);
}

/*
 * Put the handler of an outcome, if it has one; its name is in the encoding of
 * this database, as that of any handler.
 */
static void
put_outcome_handler(RinqFields *fields, HeapTuple row, TupleDesc desc, int column)
{
	char	   *handler = SPI_getvalue(row, desc, column);

	rinq_put_bytes(fields, RINQ_RESPONSE_HANDLER, handler == NULL ? rinq_bytes(NULL, 0) : rinq_bytes_str(handler));
}

/*
 * Make a row with an outcome, RINQ_DURABLE_OUTCOME_COLUMNS, a response.
 */
void
rinq_durable_call_outcome(HeapTuple row, TupleDesc desc, MemoryContext context, RinqFields *fields)
{
	static const int texts[] = {
		RINQ_RESPONSE_ID, RINQ_RESPONSE_NAMESPACE, RINQ_RESPONSE_COMMAND, RINQ_RESPONSE_OUTCOME,
		RINQ_RESPONSE_FAILURE_TYPE, RINQ_RESPONSE_MESSAGE
	};
	int			i;

	rinq_fields_init(fields, RINQ_KIND_RESPONSE);
	for (i = 0; i < (int) lengthof(texts); i++)
		rinq_put_bytes(fields, texts[i], rinq_own_row_text(row, desc, i + 1));
	rinq_put_bytes(fields, RINQ_RESPONSE_PAYLOAD, rinq_own_row_bytes(row, desc, 7));
	rinq_put_bytes(fields, RINQ_RESPONSE_TRACE, rinq_own_row_text(row, desc, 8));
	rinq_put_bytes(fields, RINQ_RESPONSE_SPAN, rinq_own_row_bytes(row, desc, 9));
	rinq_put_bytes(fields, RINQ_RESPONSE_TRACEPARENT, rinq_own_row_bytes(row, desc, 10));
	rinq_put_bytes(fields, RINQ_RESPONSE_TRACESTATE, rinq_own_row_bytes(row, desc, 11));
	put_outcome_handler(fields, row, desc, 12);
	keep_fields(fields, context);
}

/*
 * Make a row, RINQ_DURABLE_REQUEST_COLUMNS, the request that it was made with.
 */
void
rinq_durable_call_request(HeapTuple row, TupleDesc desc, MemoryContext context,
						  RinqOutbound *message, RinqFields *fields)
{
	char	   *id = SPI_getvalue(row, desc, 1);
	bool		isnull;
	Datum		deadline = SPI_getbinval(row, desc, 9, &isnull);

	memset(message, 0, sizeof(*message));
	message->kind = RINQ_SEND_DURABLE_CALL;
	message->durable = true;
	if (!isnull)
		message->deadline = rinq_ms_of_timestamp(DatumGetTimestampTz(deadline));
	if (!rinq_message_id_parse(id, strlen(id), &message->item.id))
		elog(ERROR, "malformed id of a durable call");
	rinq_fields_init(fields, RINQ_KIND_SEND);
	rinq_put_bytes(fields, RINQ_SEND_NAMESPACE, rinq_own_row_text(row, desc, 2));
	rinq_put_bytes(fields, RINQ_SEND_COMMAND, rinq_own_row_text(row, desc, 3));
	rinq_put_bytes(fields, RINQ_SEND_PAYLOAD, rinq_own_row_bytes(row, desc, 4));
	rinq_put_bytes(fields, RINQ_SEND_TRACE, rinq_own_row_text(row, desc, 5));
	rinq_put_bytes(fields, RINQ_SEND_SPAN, rinq_own_row_bytes(row, desc, 6));
	rinq_put_bytes(fields, RINQ_SEND_TRACEPARENT, rinq_own_row_bytes(row, desc, 7));
	rinq_put_bytes(fields, RINQ_SEND_TRACESTATE, rinq_own_row_bytes(row, desc, 8));
	keep_fields(fields, context);
}

/*
 * Have the request of a durable call sent when the transaction commits.
 */
void
rinq_durable_call_ask(RinqDatabase *db, RinqOutbound *message, const RinqFields *fields)
{
	Assert(message->kind == RINQ_SEND_DURABLE_CALL && message->durable);
	rinq_outbox_insert(db, rinq_internal_schema(), message, fields);
	rinq_send_at_commit(db, message, fields);
}

static void
due_xact_callback(XactEvent event, void *arg)
{
	bool		committed = event == XACT_EVENT_COMMIT;

	if (due_database == NULL ||
		(!committed && event != XACT_EVENT_PREPARE && event != XACT_EVENT_ABORT))
		return;
	if (committed)
		rinq_call_due_lower(due_database, due_first);
	due_database = NULL;
	due_first = 0;
}

/*
 * Have the peer look at durable calls at a moment, on the wall clock in ms, if
 * the transaction commits.  A rollback to a savepoint leaves it at that: the
 * look finds nothing then.
 */
void
rinq_durable_call_due_at_commit(RinqDatabase *db, int64 due)
{
	static bool registered = false;

	if (db == NULL || due == 0)
		return;
	if (!registered)
		RegisterXactCallback(due_xact_callback, NULL);
	registered = true;
	due_database = db;
	due_first = rinq_clock_earlier(due_first, Max(due, 1));
}
