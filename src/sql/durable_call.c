/*-------------------------------------------------------------------------
 *
 * durable_call.c
 *	  rinq_call_durable: calling a command when the transaction commits, and
 *	  having its outcome handled whenever that comes; and what there is to do
 *	  about such calls.
 *
 * A call is a row, and a message in the outbox whose id belongs to the mailbox
 * of the database, to which the answer is sent.  What becomes of the row is
 * described in backend/durable_calls.c; outcomes are read by
 * durable_result.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/durable_calls.h"
#include "backend/durable_sources.h"
#include "backend/handler_rules.h"
#include "backend/handler_signature.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/retry_policy.h"
#include "base/clock.h"
#include "base/request_end.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/listen.h"
#include "sql/send.h"
#include "sql/source.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_call_durable);
PG_FUNCTION_INFO_V1(rinq_call_durable_raw);
PG_FUNCTION_INFO_V1(rinq_durable_call_cancel);
PG_FUNCTION_INFO_V1(rinq_durable_call_resend);
PG_FUNCTION_INFO_V1(rinq_durable_call_retry);

enum
{
	ARG_NAMESPACE,
	ARG_COMMAND,
	ARG_PAYLOAD,
	ARG_ON_RESPONSE,
	ARG_TIMEOUT,
	ARG_RESEND,
	ARG_ATTRIBUTES,
	ARG_RETRY
};

/* parameters of the statement that makes a row */
enum
{
	CALL_SUFFIX,
	CALL_DATABASE,
	CALL_ROLE,
	CALL_NAMESPACE,
	CALL_COMMAND,
	CALL_PAYLOAD,
	CALL_TRACE,
	CALL_SPAN,
	CALL_TRACEPARENT,
	CALL_TRACESTATE,
	CALL_CREATED,
	CALL_DEADLINE,
	CALL_RESEND,
	CALL_HANDLER,
	CALL_HANDLER_OWNER,
	CALL_RETRY,
	CALL_DUE,
	CALL_PARAMETERS
};

static const Oid call_types[CALL_PARAMETERS] = {
	TEXTOID, OIDOID, OIDOID, TEXTOID, TEXTOID, BYTEAOID, TEXTOID, BYTEAOID, BYTEAOID, BYTEAOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, TEXTOID, OIDOID, JSONBOID, TIMESTAMPTZOID
};

static const char *const insert_call =
"INSERT INTO rinq_internal.durable_call AS c (id, role, namespace, command, payload, trace_id,"
" span_context, traceparent, tracestate, created, asked_last, deadline, resend_ms, handler,"
" handler_owner, retry, due)"
" SELECT m.id OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) $1, $3, $4, $5, $6, $7, $8, $9,"
" $10, $11, $11, $12, $13, $14, $15, $16, $17"
" FROM rinq_internal.mailbox m WHERE m.database OPERATOR(pg_catalog.=) $2 RETURNING c.id";

/* what one call is made of */
typedef struct DurableCall
{
	RinqOutbound message;
	RinqFields	fields;
	Datum		values[CALL_PARAMETERS];
	char		nulls[CALL_PARAMETERS];
} DurableCall;

/* number of the last durable call that this process has made */
static RinqMessageId last_call;

static void
forget_last_call(void)
{
	memset(&last_call, 0, sizeof(last_call));
}

/*
 * Make up session and number of a durable call, 63 random bits to begin with:
 * so neither another connection, nor a server that runs from a copy of this
 * one, makes a call with the same id.  Sessions of an even half of the numbers
 * have no attributes, and none is asked for at revision 0.
 */
static void
next_call_number(void)
{
	rinq_at_request_end(forget_last_call);
	while (last_call.seq == 0 || last_call.seq == PG_UINT32_MAX || last_call.ref.session.seq == 0)
	{
		if (!pg_strong_random(&last_call.ref.session.seq, sizeof(last_call.ref.session.seq)) ||
			!pg_strong_random(&last_call.seq, sizeof(last_call.seq)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random message id")));
		last_call.ref.session.seq &= 0x7FFFFFFF;
		last_call.seq &= 0x7FFFFFFF;
	}
	last_call.seq++;
}

static void
put_call_value(DurableCall * call, int parameter, bool isnull, Datum value)
{
	call->nulls[parameter] = isnull ? 'n' : ' ';
	call->values[parameter] = isnull ? (Datum) 0 : value;
}

static void
put_call_text(DurableCall * call, int parameter, int field)
{
	RinqBytes	text = rinq_get_bytes(&call->fields, field);

	put_call_value(call, parameter, text.data == NULL, text.data == NULL ? (Datum) 0 : rinq_text_datum(text));
}

static void
put_call_bytes(DurableCall * call, int parameter, int field)
{
	RinqBytes	bytes = rinq_get_bytes(&call->fields, field);

	put_call_value(call, parameter, bytes.data == NULL,
				   bytes.data == NULL ? (Datum) 0 : PointerGetDatum(rinq_bytes_to_bytea(bytes)));
}

/* Put the handler of the outcome, if there is one. */
static void
put_call_handler(DurableCall * call, FunctionCallInfo fcinfo)
{
	bool		none = PG_ARGISNULL(ARG_ON_RESPONSE);
	Oid			func = none ? InvalidOid : PG_GETARG_OID(ARG_ON_RESPONSE);

	put_call_value(call, CALL_HANDLER, true, (Datum) 0);
	put_call_value(call, CALL_HANDLER_OWNER, true, (Datum) 0);
	if (none)
		return;
	rinq_check_handler(func, RINQ_WORK_RESPONSE, GetUserId());
	put_call_value(call, CALL_HANDLER, false,
				   CStringGetTextDatum(rinq_handler_reference(func, format_procedure_qualified(func))));
	put_call_value(call, CALL_HANDLER_OWNER, false, ObjectIdGetDatum(rinq_function_owner(func)));
}

/* Put the policy by which the handler is tried again. */
static void
put_call_retry(DurableCall * call, FunctionCallInfo fcinfo)
{
	bool		none = PG_ARGISNULL(ARG_RETRY);

	if (!none)
		rinq_retry_policy_check(PG_GETARG_JSONB_P(ARG_RETRY));
	if (!none && PG_ARGISNULL(ARG_ON_RESPONSE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a retry policy needs a handler"),
				 errhint("Say the handler with on_response.")));
	put_call_value(call, CALL_RETRY, none, none ? (Datum) 0 : PG_GETARG_DATUM(ARG_RETRY));
}

/* Put the moments at which something is to be done unless the answer has come. */
static void
put_call_times(DurableCall * call, FunctionCallInfo fcinfo, int64 now)
{
	int64		resend = PG_ARGISNULL(ARG_RESEND) ? 0 :
		rinq_positive_interval_ms(PG_GETARG_INTERVAL_P(ARG_RESEND), "resend");
	int64		due;

	if (!PG_ARGISNULL(ARG_TIMEOUT))
		call->message.deadline = now + rinq_interval_ms(PG_GETARG_INTERVAL_P(ARG_TIMEOUT));
	due = rinq_clock_earlier(call->message.deadline, resend == 0 ? 0 : now + resend);
	put_call_value(call, CALL_CREATED, false, TimestampTzGetDatum(rinq_timestamp_of_ms(now)));
	put_call_value(call, CALL_DEADLINE, call->message.deadline == 0,
				   TimestampTzGetDatum(rinq_timestamp_of_ms(call->message.deadline)));
	put_call_value(call, CALL_RESEND, resend == 0, Int32GetDatum((int32) resend));
	put_call_value(call, CALL_DUE, due == 0, TimestampTzGetDatum(rinq_timestamp_of_ms(due)));
}

/* Put what the row has in common with the message. */
static void
put_call_request(DurableCall * call, const Jsonb *attributes)
{
	char		suffix[RINQ_MESSAGE_ID_SIZE];
	RinqMessageId id;

	if (attributes != NULL)
	{
		rinq_durable_source_make(attributes, &id);
		snprintf(suffix, sizeof(suffix), "%u@1#1", id.ref.session.seq);
	}
	else
	{
		next_call_number();
		snprintf(suffix, sizeof(suffix), "%u@0#%u", last_call.ref.session.seq, last_call.seq);
	}
	put_call_value(call, CALL_SUFFIX, false, CStringGetTextDatum(suffix));
	put_call_value(call, CALL_DATABASE, false, ObjectIdGetDatum(MyDatabaseId));
	put_call_value(call, CALL_ROLE, false, ObjectIdGetDatum(GetUserId()));
	put_call_text(call, CALL_NAMESPACE, RINQ_SEND_NAMESPACE);
	put_call_text(call, CALL_COMMAND, RINQ_SEND_COMMAND);
	put_call_bytes(call, CALL_PAYLOAD, RINQ_SEND_PAYLOAD);
	put_call_text(call, CALL_TRACE, RINQ_SEND_TRACE);
	put_call_bytes(call, CALL_SPAN, RINQ_SEND_SPAN);
	put_call_bytes(call, CALL_TRACEPARENT, RINQ_SEND_TRACEPARENT);
	put_call_bytes(call, CALL_TRACESTATE, RINQ_SEND_TRACESTATE);
}

/*
 * Make the row, which gets the mailbox's id as it is now.
 */
static void
insert_durable_call(DurableCall * call)
{
	static SPIPlanPtr insert = NULL;
	Oid			types[CALL_PARAMETERS];
	RinqOwnTable table;
	char	   *id;
	int			tries;

	memcpy(types, call_types, sizeof(types));
	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	rinq_mailbox_leave_original();
	for (tries = 0; rinq_own_table_execute_kept(&insert, insert_call, CALL_PARAMETERS, types, call->values,
												call->nulls) == 0; tries++)
	{
		if (tries > 0)
			elog(ERROR, "the database has no mailbox");
		rinq_mailbox_make();
	}
	id = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (!rinq_message_id_parse(id, strlen(id), &call->message.item.id))
		elog(ERROR, "malformed id of a durable call");
	rinq_own_table_close(&table);
}

static Datum
call_durably(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	char	   *namespace;
	char	   *command;
	RinqDatabase *db;
	DurableCall call;
	char		id[RINQ_MESSAGE_ID_SIZE];

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, ARG_NAMESPACE);
	command = rinq_text_argument(fcinfo, ARG_COMMAND, "command");
	db = rinq_send_require_database(true);
	memset(&call.message, 0, sizeof(call.message));
	call.message.kind = RINQ_SEND_DURABLE_CALL;
	call.message.durable = true;
	rinq_fields_init(&call.fields, RINQ_KIND_SEND);
	rinq_put_bytes(&call.fields, RINQ_SEND_NAMESPACE, rinq_bytes_str(namespace));
	rinq_put_bytes(&call.fields, RINQ_SEND_COMMAND, rinq_command_bytes(command));
	rinq_put_bytes(&call.fields, RINQ_SEND_PAYLOAD, rinq_payload_argument(fcinfo, ARG_PAYLOAD, form));
	rinq_send_inherited(&call.fields);
	put_call_handler(&call, fcinfo);
	put_call_retry(&call, fcinfo);
	put_call_times(&call, fcinfo, rinq_wall_ms());
	put_call_request(&call, rinq_source_attributes_argument(fcinfo, ARG_ATTRIBUTES));
	insert_durable_call(&call);
	rinq_durable_call_ask(db, &call.message, &call.fields);
	if (call.nulls[CALL_DUE] == ' ')
		rinq_durable_call_due_at_commit(db, rinq_ms_of_timestamp(DatumGetTimestampTz(call.values[CALL_DUE])));
	rinq_message_id_format(&call.message.item.id, id, sizeof(id));
	PG_RETURN_DATUM(CStringGetTextDatum(id));
}

/*
 * rinq_call_durable(namespace text, command text, payload jsonb, on_response
 * regprocedure, timeout interval, resend interval, attributes jsonb, retry
 * jsonb) returns rinq_message_id
 *
 * Calls a command when and if the transaction commits.  Its outcome is handled
 * by a function, once, or kept.
 */
Datum
rinq_call_durable(PG_FUNCTION_ARGS)
{
	return call_durably(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_call_durable_raw(namespace text, command text, payload bytea,
 * on_response regprocedure, timeout interval, resend interval, attributes
 * jsonb, retry jsonb) returns rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_call_durable_raw(PG_FUNCTION_ARGS)
{
	return call_durably(fcinfo, RINQ_PAYLOAD_RAW);
}

/* Run a statement on the calls with an id that the current role may use. */
static uint64
change_call(FunctionCallInfo fcinfo, RinqOwnTable *table, const char *query)
{
	Oid			types[4] = {TEXTOID, OIDOID, INT4OID, OIDOID};
	Datum		values[4];

	values[0] = PG_GETARG_DATUM(0);
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = Int32GetDatum(rinq_result_retention);
	values[3] = ObjectIdGetDatum(MyDatabaseId);
	rinq_own_table_open(table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	return rinq_own_table_execute(query, lengthof(types), types, values, NULL);
}

/* conditions of a row "c": it is the one that is meant, and the role's; it was made by this database */
#define IS_MEANT " c.id OPERATOR(pg_catalog.=) $1 AND pg_catalog.pg_has_role($2, c.role, 'USAGE')"
#define IS_OWN " EXISTS (SELECT FROM rinq_internal.mailbox m WHERE m.database OPERATOR(pg_catalog.=) $4" \
	" AND m.id OPERATOR(pg_catalog.=) pg_catalog.split_part(c.id, '.', 1))"

/*
 * rinq_durable_call_cancel(id rinq_message_id) returns boolean
 *
 * Ends a durable call that waits for its answer, which is its outcome.  One
 * whose handler was given up, or has failed and waits for its next attempt, is
 * deleted, and so is one that came with a copy of another database.  A handler
 * that runs is waited for.
 */
Datum
rinq_durable_call_cancel(PG_FUNCTION_ARGS)
{
	RinqOwnTable table;
	bool		cancelled;
	bool		deleted = false;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	rinq_require_preloaded();
	cancelled = change_call(fcinfo, &table,
							"UPDATE rinq_internal.durable_call c SET outcome = 'cancelled',"
							" answered = pg_catalog.now(), due = CASE WHEN c.handler IS NULL"
							" THEN pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3)"
							" ELSE pg_catalog.now() END"
							" WHERE c.outcome IS NULL AND" IS_MEANT " AND" IS_OWN) > 0;
	rinq_own_table_close(&table);
	if (!cancelled)
	{
		deleted = change_call(fcinfo, &table,
							  "DELETE FROM rinq_internal.durable_call c WHERE" IS_MEANT
							  " AND ((c.outcome IS NOT NULL AND c.handler IS NOT NULL"
							  " AND (c.due IS NULL OR c.attempts OPERATOR(pg_catalog.>) 0)) OR NOT" IS_OWN ")") > 0;
		rinq_own_table_close(&table);
	}
	if (cancelled)
		rinq_durable_call_due_at_commit(rinq_my_database(), rinq_wall_ms());
	PG_RETURN_BOOL(cancelled || deleted);
}

/*
 * rinq_durable_call_retry(id rinq_message_id) returns boolean
 *
 * Has the handler of a durable call run again that was given up.
 */
Datum
rinq_durable_call_retry(PG_FUNCTION_ARGS)
{
	RinqOwnTable table;
	bool		found;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	rinq_require_preloaded();
	found = change_call(fcinfo, &table,
						"UPDATE rinq_internal.durable_call c SET attempts = 0, due = pg_catalog.now()"
						" WHERE c.outcome IS NOT NULL AND c.handler IS NOT NULL AND" IS_MEANT
						" AND" IS_OWN) > 0;
	rinq_own_table_close(&table);
	if (found)
		rinq_durable_call_due_at_commit(rinq_my_database(), rinq_wall_ms());
	PG_RETURN_BOOL(found);
}

/*
 * Tell whether the request of a call still is in the outbox.  The call's row is
 * locked, so that no other process puts it there meanwhile.
 */
static bool
is_in_outbox(Datum id)
{
	Oid			type = TEXTOID;

	return rinq_own_table_execute("SELECT x.id FROM (SELECT o.id FROM rinq_internal.outbox_0 o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_1 o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_2 o"
								  " UNION ALL SELECT o.id FROM rinq_internal.outbox_3 o) x"
								  " WHERE x.id OPERATOR(pg_catalog.=) $1 LIMIT 1", 1, &type, &id, NULL) > 0;
}

/* Note in the row of a call, which is locked, that it is asked again. */
static void
count_question(Datum id)
{
	Oid			type = TEXTOID;

	(void) rinq_own_table_execute("UPDATE rinq_internal.durable_call c SET asked = c.asked OPERATOR(pg_catalog.+) 1,"
								  " asked_last = pg_catalog.now(), due = CASE WHEN c.resend_ms IS NULL THEN c.due ELSE"
								  " LEAST(c.deadline, pg_catalog.now() OPERATOR(pg_catalog.+)"
								  " pg_catalog.make_interval(secs => c.resend_ms OPERATOR(pg_catalog./) 1000.0)) END"
								  " WHERE c.id OPERATOR(pg_catalog.=) $1", 1, &type, &id, NULL);
}

/*
 * rinq_durable_call_resend(id rinq_message_id) returns boolean
 *
 * Asks again, with the same id, for a durable call that waits for its answer.
 * One whose request still is in the outbox is about to be asked as it is: a
 * message has one row there.
 */
Datum
rinq_durable_call_resend(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	RinqDatabase *db;
	RinqOwnTable table;
	RinqOutbound message;
	RinqFields	fields;
	bool		found;
	bool		asks = false;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	db = rinq_send_require_database(true);
	found = change_call(fcinfo, &table,
						"SELECT " RINQ_DURABLE_REQUEST_COLUMNS " FROM rinq_internal.durable_call c"
						" WHERE c.outcome IS NULL AND" IS_MEANT " AND" IS_OWN " FOR NO KEY UPDATE OF c") > 0;
	if (found)
	{
		rinq_durable_call_request(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, context, &message, &fields);
		asks = !is_in_outbox(PG_GETARG_DATUM(0));
		if (asks)
			count_question(PG_GETARG_DATUM(0));
	}
	rinq_own_table_close(&table);
	if (asks)
		rinq_durable_call_ask(db, &message, &fields);
	PG_RETURN_BOOL(found);
}
