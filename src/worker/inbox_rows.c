/*-------------------------------------------------------------------------
 *
 * inbox_rows.c
 *	  The rows of commands and notifications that have failed, and of requests that
 *	  were set aside: what is written into them.
 *
 * They have the same columns, but for a few; those that wait are in
 * "inbox_waiting", the others in "inbox_dead_letter".  All is done in the
 * transaction of the caller.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/handler_rules.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/books.h"
#include "worker/inbox_rows.h"
#include "worker/purge.h"

#define DEAD_LETTER "inbox_dead_letter"

#define MAX_CAUSE_LEN 65536		/* bytes of each text of an error */

const Oid	rinq_inbox_types[RINQ_INBOX_WAITING_END] = {
	TEXTOID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, TEXTOID, TIMESTAMPTZOID,
	BYTEAOID, BYTEAOID, BYTEAOID, TEXTOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID,
	INT4OID, TIMESTAMPTZOID, OIDOID
};

static void
put_datum(Datum *values, char *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = ' ';
}

static void
put_cause_text(Datum *values, char *nulls, int column, const char *text)
{
	if (text == NULL)
		return;
	if ((int) strlen(text) > MAX_CAUSE_LEN)
		text = pnstrdup(text, pg_mbcliplen(text, (int) strlen(text), MAX_CAUSE_LEN));
	put_datum(values, nulls, column, CStringGetTextDatum(text));
}

static void
put_bytea(Datum *values, char *nulls, int column, RinqBytes bytes)
{
	if (bytes.len > 0)
		put_datum(values, nulls, column, PointerGetDatum(rinq_bytes_to_bytea(bytes)));
}

static void
put_time(Datum *values, char *nulls, int column, TimestampTz time)
{
	put_datum(values, nulls, column, TimestampTzGetDatum(time));
}

/* Return the key of a request or notification in the inbox, beside its id. */
Datum
rinq_inbox_digest(const RinqSlot *slot, const RinqFields *fields)
{
	RinqBytes	digest = rinq_get_bytes(fields, rinq_common_fields_of(fields)->digest);

	if (digest.data != NULL)
		return PointerGetDatum(rinq_bytes_to_bytea(digest));
	return rinq_request_digest(slot, fields);
}

static Datum
attempts_datum(const RinqFields *fields)
{
	return Int32GetDatum((int32) rinq_get_uint32(fields, rinq_common_fields_of(fields)->attempt));
}

static TimestampTz
first_received(const RinqFields *fields)
{
	TimestampTz first = rinq_get_int64(fields, rinq_common_fields_of(fields)->first_received);

	return first != 0 ? first : GetCurrentTimestamp();
}

static void
put_field(Datum *values, char *nulls, int column, const RinqFields *fields, int field)
{
	put_datum(values, nulls, column, rinq_text_datum(rinq_get_bytes(fields, field)));
}

/* Put a text that any peer may have chosen: what has no form in this database becomes question marks. */
static void
put_any_field(Datum *values, char *nulls, int column, const RinqFields *fields, int field)
{
	put_datum(values, nulls, column, CStringGetTextDatum(rinq_message_from_wire(rinq_get_bytes(fields, field))));
}

/* Fill in the columns that only notifications have. */
static void
put_notification(const RinqFields *fields, Datum *values, char *nulls)
{
	RinqBytes	name;

	if (fields->kind != RINQ_KIND_NOTIFICATION)
		return;
	name = rinq_get_bytes(fields, RINQ_NOTIFICATION_SUBSCRIPTION);

	/* the name is in the encoding of this database */
	put_datum(values, nulls, RINQ_INBOX_SUBSCRIPTION, PointerGetDatum(cstring_to_text_with_len(name.data, (int) name.len)));
	put_field(values, nulls, RINQ_INBOX_TARGET, fields, RINQ_NOTIFICATION_TARGET);
	put_bytea(values, nulls, RINQ_INBOX_FILTER, rinq_get_bytes(fields, RINQ_NOTIFICATION_CONSTRAINT));
}

/* Fill in the columns that both tables have. */
static void
put_request(const RinqInboxFailure * failure, Datum *values, char *nulls)
{
	const RinqSlot *slot = failure->slot;
	const RinqFields *fields = failure->fields;
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	RinqBytes	handler = rinq_get_bytes(fields, common->handler);

	put_field(values, nulls, RINQ_INBOX_ID, fields, common->id);
	put_datum(values, nulls, RINQ_INBOX_DIGEST, rinq_inbox_digest(slot, fields));
	put_field(values, nulls, RINQ_INBOX_SOURCE, fields, common->source);
	put_field(values, nulls, RINQ_INBOX_NAMESPACE, fields, common->namespace);
	put_any_field(values, nulls, RINQ_INBOX_COMMAND, fields, common->subject);
	put_bytea(values, nulls, RINQ_INBOX_PAYLOAD, rinq_get_bytes(fields, common->payload));
	put_any_field(values, nulls, RINQ_INBOX_TRACE_ID, fields, common->trace);
	if (slot->deadline != 0)
		put_time(values, nulls, RINQ_INBOX_DEADLINE,
				 rinq_timestamp_of_ms(rinq_wall_of_clock(slot->deadline)));
	put_bytea(values, nulls, RINQ_INBOX_SPAN_CONTEXT, rinq_get_bytes(fields, common->span));
	put_bytea(values, nulls, RINQ_INBOX_TRACEPARENT, rinq_get_bytes(fields, common->traceparent));
	put_bytea(values, nulls, RINQ_INBOX_TRACESTATE, rinq_get_bytes(fields, common->tracestate));
	put_datum(values, nulls, RINQ_INBOX_HANDLER,
			  CStringGetTextDatum(rinq_handler_name(pnstrdup(handler.data, handler.len))));
	put_datum(values, nulls, RINQ_INBOX_ATTEMPTS, attempts_datum(fields));
	put_time(values, nulls, RINQ_INBOX_FIRST_RECEIVED, first_received(fields));
	put_notification(fields, values, nulls);
	put_time(values, nulls, RINQ_INBOX_LAST_ATTEMPT, failure->began);
}

static void
put_cause(const RinqInboxCause * cause, Datum *values, char *nulls)
{
	put_cause_text(values, nulls, RINQ_INBOX_SQLSTATE, cause->sqlstate);
	put_cause_text(values, nulls, RINQ_INBOX_ERROR, cause->message);
	put_cause_text(values, nulls, RINQ_INBOX_DETAIL, cause->detail);
	put_cause_text(values, nulls, RINQ_INBOX_HINT, cause->hint);
	put_cause_text(values, nulls, RINQ_INBOX_CONTEXT, cause->context);
}

/* Run a statement that has the id, the digest and the attempts of a request as arguments. */
static uint64
run_with_key(const RinqOwnTable *table, const char *query, const RinqSlot *slot,
			 const RinqFields *fields)
{
	Oid			types[3] = {TEXTOID, BYTEAOID, INT4OID};
	Datum		values[3];

	values[0] = rinq_text_datum(rinq_get_bytes(fields, rinq_common_fields_of(fields)->id));
	values[1] = rinq_inbox_digest(slot, fields);
	values[2] = attempts_datum(fields);
	return rinq_own_table_execute(psprintf(query, table->name), 3, types, values, NULL);
}

#define THIS_KEY " WHERE id OPERATOR(pg_catalog.=) $1 AND digest OPERATOR(pg_catalog.=) $2"
#define THIS_ATTEMPT THIS_KEY " AND attempts OPERATOR(pg_catalog.=) $3"

/* Delete the row of an attempt that was taken; false when it is not that of this attempt any more. */
static bool
delete_taken(const RinqSlot *slot, const RinqFields *fields)
{
	RinqOwnTable table;
	uint64		rows;

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_INBOX_WAITING);
	rows = run_with_key(&table, "DELETE FROM %s" THIS_ATTEMPT, slot, fields);
	rinq_own_table_close(&table);
	return rows > 0;
}

/* Write a failed command down where it was not, or a request that is set aside. */
static void
insert_failure(const RinqInboxFailure * failure)
{
	bool		waits = failure->delay >= 0;
	int			count = waits ? RINQ_INBOX_WAITING_END : RINQ_INBOX_COMMON_END;
	RinqOwnTable table;
	Oid			types[RINQ_INBOX_WAITING_END];
	Datum		values[RINQ_INBOX_WAITING_END] = {0};
	char		nulls[RINQ_INBOX_WAITING_END];

	rinq_own_table_open(&table, rinq_internal_schema(), waits ? RINQ_INBOX_WAITING : DEAD_LETTER);
	memcpy(types, rinq_inbox_types, sizeof(types));
	memset(nulls, 'n', sizeof(nulls));
	put_request(failure, values, nulls);
	put_cause(&failure->cause, values, nulls);
	if (waits)
	{
		put_datum(values, nulls, RINQ_INBOX_TRIES, Int32GetDatum(failure->tries));
		put_time(values, nulls, RINQ_INBOX_DUE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), failure->delay));
		put_datum(values, nulls, RINQ_INBOX_DATABASE, ObjectIdGetDatum(MyDatabaseId));
	}
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s (" RINQ_INBOX_COMMON_COLUMNS ", %s)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,"
										   " $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, %s)"
										   " ON CONFLICT (id, digest) DO NOTHING", table.name,
										   waits ? "tries, due, database" : "recorded",
										   waits ? "$24, $25, $26" : "pg_catalog.now()"),
								  count, types, values, nulls);
	rinq_own_table_close(&table);
	if (!waits)
		rinq_purge_written();
}

/* Write when the next attempt at a request that was taken is due, and what has ended this one. */
static void
update_waiting(const RinqInboxFailure * failure)
{
	static const int columns[] = {
		RINQ_INBOX_SQLSTATE, RINQ_INBOX_ERROR, RINQ_INBOX_DETAIL, RINQ_INBOX_HINT, RINQ_INBOX_CONTEXT, RINQ_INBOX_DUE,
		RINQ_INBOX_ID, RINQ_INBOX_DIGEST, RINQ_INBOX_ATTEMPTS
	};
	RinqOwnTable table;
	Oid			types[lengthof(columns)];
	Datum		values[lengthof(columns)];
	char		nulls[lengthof(columns)];
	Datum		all[RINQ_INBOX_WAITING_END] = {0};
	char		all_nulls[RINQ_INBOX_WAITING_END];
	int			i;

	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_INBOX_WAITING);
	memset(all_nulls, 'n', sizeof(all_nulls));
	put_cause(&failure->cause, all, all_nulls);
	put_time(all, all_nulls, RINQ_INBOX_DUE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), failure->delay));
	put_field(all, all_nulls, RINQ_INBOX_ID, failure->fields, rinq_common_fields_of(failure->fields)->id);
	put_datum(all, all_nulls, RINQ_INBOX_DIGEST, rinq_inbox_digest(failure->slot, failure->fields));
	put_datum(all, all_nulls, RINQ_INBOX_ATTEMPTS, attempts_datum(failure->fields));
	for (i = 0; i < (int) lengthof(columns); i++)
	{
		types[i] = rinq_inbox_types[columns[i]];
		values[i] = all[columns[i]];
		nulls[i] = all_nulls[columns[i]];
	}
	(void) rinq_own_table_execute(psprintf("UPDATE %s SET sqlstate = $1, error = $2, detail = $3, hint = $4,"
										   " context = $5, due = $6 WHERE id OPERATOR(pg_catalog.=) $7"
										   " AND digest OPERATOR(pg_catalog.=) $8"
										   " AND attempts OPERATOR(pg_catalog.=) $9", table.name),
								  lengthof(columns), types, values, nulls);
	rinq_own_table_close(&table);
}

/*
 * Write down what becomes of a request, a RinqInboxFailure; nothing when
 * it is one that was taken, and its row is not that of this attempt any more.
 */
void
rinq_inbox_write(void *arg)
{
	const		RinqInboxFailure *failure = arg;
	bool		taken = failure->slot->from_inbox;

	if (failure->delay >= 0 && taken)
		update_waiting(failure);
	else if (!taken || delete_taken(failure->slot, failure->fields))
		insert_failure(failure);
}

/*
 * Delete the row of what is about to be handled, in the handler's
 * transaction, whatever the role has set for its own.  False when there is none
 * of this attempt any more: an administrator has deleted it, or another executor has it.
 */
bool
rinq_inbox_claim(const RinqFields *fields)
{
	bool		read_only = XactReadOnly;
	bool		deleted;

	Assert(rinq_get_bytes(fields, rinq_common_fields_of(fields)->digest).data != NULL);
	XactReadOnly = false;
	deleted = delete_taken(NULL, fields);
	XactReadOnly = read_only;
	return deleted;
}

/*
 * Tell whether a command that was delivered again waits here already, or was
 * set aside.
 */
bool
rinq_inbox_has(const RinqSlot *slot, const RinqFields *fields)
{
	static const char *const names[] = {RINQ_INBOX_WAITING, DEAD_LETTER};
	bool		found = false;
	int			i;

	for (i = 0; !found && i < (int) lengthof(names); i++)
	{
		RinqOwnTable table;

		rinq_own_table_open(&table, rinq_internal_schema(), names[i]);
		found = run_with_key(&table, "SELECT FROM %s" THIS_KEY " AND $3 IS NOT NULL", slot, fields) > 0;
		rinq_own_table_close(&table);
	}
	return found;
}
