/*-------------------------------------------------------------------------
 *
 * backend/outbox_waiting.c
 *	  Durable messages that go into the outbox later: at a time, or after
 *	  another one; and keys, each of which is used for one message.
 *
 * They wait in a table of their own, so that those that are sent at once never
 * meet them.  The outbox worker moves a message when its time has come, or the
 * one before is through (worker/outbox_release.c).
 *
 * Keys and orderings belong to the role that uses them: no role can find out
 * about those of another one, or stand in their way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/commit_queue.h"
#include "backend/outbox.h"
#include "backend/outbox_internal.h"
#include "backend/outbox_waiting.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "ipc/outbox_due.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* arguments of a statement, one after another */
typedef struct Arguments
{
	int			count;
	Oid			types[20];
	Datum		values[20];
	char		nulls[20];
} Arguments;

static void
add_argument(Arguments *arguments, Oid type, Datum value, bool isnull)
{
	int			i = arguments->count++;

	Assert(i < (int) lengthof(arguments->types));
	arguments->types[i] = type;
	arguments->values[i] = value;
	arguments->nulls[i] = isnull ? 'n' : ' ';
}

static void
add_text(Arguments *arguments, const char *text)
{
	add_argument(arguments, TEXTOID, text == NULL ? (Datum) 0 : CStringGetTextDatum(text), text == NULL);
}

static void
add_wire_text(Arguments *arguments, const RinqFields *fields, int field)
{
	RinqBytes	wire = rinq_get_bytes(fields, field);

	add_text(arguments, wire.data == NULL ? NULL : rinq_text_from_wire(wire));
}

static void
add_wire_bytes(Arguments *arguments, const RinqFields *fields, int field)
{
	RinqBytes	bytes = rinq_get_bytes(fields, field);
	bool		isnull = bytes.data == NULL;

	add_argument(arguments, BYTEAOID, isnull ? (Datum) 0 : PointerGetDatum(rinq_bytes_to_bytea(bytes)), isnull);
}

static void
add_message_id(Arguments *arguments, const RinqMessageId *id)
{
	char		text[RINQ_MESSAGE_ID_SIZE];

	rinq_message_id_format(id, text, sizeof(text));
	add_text(arguments, text);
}

static uint64
execute_with(const char *query, Arguments *arguments)
{
	return rinq_own_table_execute(query, arguments->count, arguments->types, arguments->values, arguments->nulls);
}

/* ---------------- keys ---------------- */

/* conditions of a row "k": it is the key's; and was used so long ago that it may be used again */
#define IS_KEY " k.role OPERATOR(pg_catalog.=) $1 AND k.namespace OPERATOR(pg_catalog.=) $2 AND k.key OPERATOR(pg_catalog.=) $3"
#define IS_OLD " (k.used OPERATOR(pg_catalog.<) $7 OR k.database OPERATOR(pg_catalog.<>) $6)"

/* Return the id of the message that has a key, NULL when there is none; no other transaction is waited for, or kept waiting. */
static char *
find_key(const char *table, Arguments *arguments, MemoryContext context)
{
	if (execute_with(psprintf("SELECT k.id FROM %s k WHERE" IS_KEY " AND NOT" IS_OLD, table), arguments) == 0)
		return NULL;
	return MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
}

/*
 * Try to take a key.  Another transaction that has taken it and is not over is
 * waited for, as by any unique index.
 */
static bool
take_key(const char *table, Arguments *arguments)
{
	return execute_with(psprintf("INSERT INTO %s AS k (role, namespace, key, id, used, database)"
								 " VALUES ($1, $2, $3, $4, $5, $6)"
								 " ON CONFLICT (role, namespace, key) DO NOTHING", table), arguments) > 0 ||
		execute_with(psprintf("UPDATE %s AS k SET id = $4, used = $5, database = $6 WHERE" IS_KEY " AND" IS_OLD, table),
					 arguments) > 0;
}

/*
 * Use a key for a message.  False, with the id of the message that has it, when
 * it was used before, and not longer ago than "rinq.key_retention" says.
 */
bool
rinq_outbox_use_key(RinqDatabase *db, Oid schema, const char *namespace,
					const RinqDelivery *delivery, const RinqMessageId *id, char **used_by)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz used = Max(now, delivery->due);
	MemoryContext context = CurrentMemoryContext;
	Arguments	arguments;
	RinqOwnTable table;
	Oid			role = GetUserId();
	bool		taken;

	PreventCommandIfReadOnly("rinq_execute()");
	memset(&arguments, 0, sizeof(arguments));
	*used_by = NULL;
	rinq_own_table_open(&table, schema, "outbox_key");
	add_argument(&arguments, OIDOID, ObjectIdGetDatum(role), false);
	add_text(&arguments, namespace);
	add_text(&arguments, delivery->key);
	add_message_id(&arguments, id);
	add_argument(&arguments, TIMESTAMPTZOID, TimestampTzGetDatum(used), false);
	add_argument(&arguments, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	add_argument(&arguments, TIMESTAMPTZOID,
				 TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, -INT64CONST(1000) * rinq_key_retention)), false);
	do
	{
		*used_by = find_key(table.name, &arguments, context);
		taken = *used_by == NULL && take_key(table.name, &arguments);
	} while (!taken && *used_by == NULL);
	rinq_own_table_close(&table);
	if (taken)
		rinq_wait_at_commit(db, rinq_key_expiry(used), 0);
	return taken;
}

/* ---------------- waiting ---------------- */

/*
 * Have messages come after those that wait, the first time since the server was
 * started: the wall clock may have been set back since these were written.
 */
static void
number_after_waiting(RinqDatabase *db)
{
	Datum		last;
	bool		isnull;

	if (pg_atomic_read_u32(&db->outbox_goes_on) != 0)
		return;
	(void) rinq_own_table_execute("SELECT pg_catalog.max(w.seq) FROM rinq_internal.outbox_waiting w",
								  0, NULL, NULL, NULL);
	Assert(SPI_processed == 1);
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		rinq_outbox_number_after(db, DatumGetInt64(last));
	pg_atomic_write_u32(&db->outbox_goes_on, 1);
}

/*
 * Write a message into the table of those that wait.  One that is ordered, and
 * not delayed, is looked at as soon as the transaction has committed.
 */
void
rinq_outbox_wait(RinqDatabase *db, Oid schema, const RinqOutbound *message,
				 const RinqFields *fields, const RinqDelivery *delivery)
{
	static SPIPlanPtr plan = NULL;
	bool		delayed = delivery->due != DT_NOBEGIN;
	int64		seq;
	Oid			role = GetUserId();
	Arguments	arguments;
	RinqOwnTable table;

	PreventCommandIfReadOnly("rinq_execute()");
	Assert(message->durable && (delayed || delivery->ordering != NULL));
	memset(&arguments, 0, sizeof(arguments));
	rinq_own_table_open(&table, schema, "outbox_waiting");
	number_after_waiting(db);
	seq = rinq_outbox_next_seq(db);
	add_argument(&arguments, INT8OID, Int64GetDatum(seq), false);
	add_message_id(&arguments, &message->item.id);
	add_wire_text(&arguments, fields, RINQ_SEND_NAMESPACE);
	add_wire_text(&arguments, fields, RINQ_SEND_COMMAND);
	add_wire_bytes(&arguments, fields, RINQ_SEND_PAYLOAD);
	add_wire_text(&arguments, fields, RINQ_SEND_TRACE);
	add_argument(&arguments, TIMESTAMPTZOID, TimestampTzGetDatum(rinq_timestamp_of_ms(message->deadline)), message->deadline == 0);
	add_argument(&arguments, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	add_wire_bytes(&arguments, fields, RINQ_SEND_SPAN);
	add_wire_bytes(&arguments, fields, RINQ_SEND_TRACEPARENT);
	add_wire_bytes(&arguments, fields, RINQ_SEND_TRACESTATE);
	add_argument(&arguments, OIDOID, ObjectIdGetDatum(role), false);
	add_text(&arguments, delivery->key);
	add_text(&arguments, delivery->ordering);
	add_argument(&arguments, TIMESTAMPTZOID, TimestampTzGetDatum(delivery->due), false);
	add_argument(&arguments, INT8OID, Int64GetDatum(delayed ? delivery->due : seq), false);
	add_argument(&arguments, INT8OID, Int64GetDatum(rinq_clock_difference()), !delayed || !delivery->after);
	add_argument(&arguments, TIMESTAMPTZOID, TimestampTzGetDatum(PgStartTime), !delayed || !delivery->after);
	(void) rinq_own_table_execute_kept(&plan,
									   "INSERT INTO rinq_internal.outbox_waiting (seq, id, namespace, command, payload, trace_id, deadline, database,"
									   " span_context, traceparent, tracestate, role, key, ordering, due, place, clock, life)"
									   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
									   arguments.count, arguments.types, arguments.values, arguments.nulls);
	rinq_own_table_close(&table);
	rinq_wait_at_commit(db, delivery->due, 1);
}

/*
 * Take a message of the current role back that waits, or with the privilege of
 * an administrator any; false when there is none of this id.  What comes after
 * it in its ordering is looked at when the transaction has committed.
 */
bool
rinq_outbox_cancel(RinqDatabase *db, Oid schema, const char *id)
{
	Oid			role = GetUserId();
	Arguments	arguments;
	RinqOwnTable keys;
	RinqOwnTable orderings;
	bool		isnull;
	bool		done;

	memset(&arguments, 0, sizeof(arguments));
	rinq_own_table_open(&keys, schema, "outbox_key");
	rinq_own_table_close(&keys);
	rinq_own_table_open(&orderings, schema, "outbox_waiting");
	add_text(&arguments, id);
	add_argument(&arguments, OIDOID, ObjectIdGetDatum(role), false);
	(void) execute_with("SELECT rinq_internal.outbox_waiting_cancel($1, $2)", &arguments);
	Assert(SPI_processed == 1);
	done = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	rinq_own_table_close(&orderings);
	if (done)
		rinq_wait_at_commit(db, DT_NOBEGIN, -1);
	return done;
}
