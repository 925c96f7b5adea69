/*-------------------------------------------------------------------------
 *
 * call.c
 *	  rinq_call: calling a command of another peer from SQL; and what all calls
 *	  have in common.
 *
 * Here are the arguments, the deadline, and what each result becomes; how a
 * call reaches the peer and how it is waited for is backend/calls.h's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/calls.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/ident.h"
#include "fmgr.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/call.h"
#include "sql/call_outcome.h"
#include "sql/session_ref.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_call);
PG_FUNCTION_INFO_V1(rinq_call_raw);

/*
 * Return the payload of a result, or raise what the result stands for.
 */
Datum
rinq_result_datum(const RinqResult *result, RinqPayloadForm form, bool *isnull,
				  const char *namespace, const char *command)
{
	if (result->outcome != RINQ_OUTCOME_SUCCESS)
		rinq_call_raise(result, namespace, command);
	return rinq_payload_result(rinq_get_bytes(&result->fields, RINQ_RESULT_PAYLOAD), form, isnull);
}

/*
 * Fill in the columns of a row that has an error instead of a payload.
 */
void
rinq_error_row(int code, const char *message, Datum *values, bool *nulls)
{
	int			i;

	for (i = 0; i < RINQ_RESULT_COLUMNS; i++)
		nulls[i] = true;
	values[RINQ_RESULT_COLUMN_SQLSTATE] = CStringGetTextDatum(unpack_sql_state(code));
	nulls[RINQ_RESULT_COLUMN_SQLSTATE] = false;
	values[RINQ_RESULT_COLUMN_MESSAGE] = CStringGetTextDatum(message);
	nulls[RINQ_RESULT_COLUMN_MESSAGE] = false;
}

/* Fill in the columns that only a failure has. */
static void
fill_in_failure(Datum *values, bool *nulls)
{
	const RinqFailure *failure = &rinq_last_failure_data;

	values[RINQ_RESULT_COLUMN_TYPE] = CStringGetTextDatum(failure->type);
	nulls[RINQ_RESULT_COLUMN_TYPE] = false;
	nulls[RINQ_RESULT_COLUMN_MESSAGE] = failure->message == NULL;
	if (failure->message != NULL)
		values[RINQ_RESULT_COLUMN_MESSAGE] = CStringGetTextDatum(failure->message);
	nulls[RINQ_RESULT_COLUMN_PAYLOAD] = failure->payload == NULL;
	if (failure->payload != NULL)
		values[RINQ_RESULT_COLUMN_PAYLOAD] = PointerGetDatum(PG_DETOAST_DATUM_COPY(JsonbPGetDatum(failure->payload)));
}

/*
 * Fill in the columns of a row with a result: what would be raised elsewhere
 * is a value here.  Interrupts and a lack of memory are errors all the same.
 */
void
rinq_result_row(const RinqResult *result, const char *namespace, const char *command,
				Datum *values, bool *nulls)
{
	MemoryContext context = CurrentMemoryContext;

	memset(nulls, true, RINQ_RESULT_COLUMNS * sizeof(bool));

	/*
	 * no subtransaction: nothing is acquired here that an error would leave
	 * behind
	 */
	PG_TRY();
	{
		values[RINQ_RESULT_COLUMN_PAYLOAD] =
			rinq_result_datum(result, RINQ_PAYLOAD_JSONB, &nulls[RINQ_RESULT_COLUMN_PAYLOAD],
							  namespace, command);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_OPERATOR_INTERVENTION ||
			geterrcode() == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		rinq_error_row(error->sqlerrcode, error->message, values, nulls);
		if (error->sqlerrcode == ERRCODE_RINQ_FAILURE)
			fill_in_failure(values, nulls);
		FreeErrorData(error);
	}
	PG_END_TRY();
}

/*
 * Fill in the fields of a call, but for its payload.
 */
void
rinq_call_fields(const char *namespace, const char *command, RinqFields *fields)
{
	rinq_fields_init(fields, RINQ_KIND_CALL);
	rinq_put_bytes(fields, RINQ_CALL_NAMESPACE, rinq_bytes_str(namespace));
	rinq_put_bytes(fields, RINQ_CALL_COMMAND, rinq_command_bytes(command));
	rinq_put_bytes(fields, RINQ_CALL_TRACE, rinq_current_trace());
	rinq_put_bytes(fields, RINQ_CALL_SPAN, rinq_inherited.span_context);
	rinq_put_bytes(fields, RINQ_CALL_TRACEPARENT, rinq_inherited.traceparent);
	rinq_put_bytes(fields, RINQ_CALL_TRACESTATE, rinq_inherited.tracestate);
}

/*
 * Return the arguments (namespace, command, payload, timeout) as the fields of
 * a call, and its deadline as the result.
 */
int64
rinq_call_arguments(FunctionCallInfo fcinfo, RinqPayloadForm form, RinqFields *fields)
{
	char	   *namespace = rinq_namespace_argument(fcinfo, 0);
	char	   *command = rinq_text_argument(fcinfo, 1, "command");
	int64		deadline = rinq_call_deadline(PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3));

	rinq_call_fields(namespace, command, fields);
	rinq_put_bytes(fields, RINQ_CALL_PAYLOAD, rinq_payload_argument(fcinfo, 2, form));
	return deadline;
}

/*
 * Wait for the result of a call, and release the call whatever happens.
 * Returns the payload, or raises what the result stands for.
 */
Datum
rinq_call_result(FunctionCallInfo fcinfo, RinqDatabase *db, uint32 index, RinqPayloadForm form,
				 const char *namespace, const char *command)
{
	volatile Datum datum = (Datum) 0;

	PG_TRY();
	{
		RinqResult	result;

		rinq_call_wait(db, index, &result);
		datum = rinq_result_datum(&result, form, &fcinfo->isnull, namespace, command);
	}
	PG_CATCH();
	{
		rinq_call_release(db, index);
		PG_RE_THROW();
	}
	PG_END_TRY();
	rinq_call_release(db, index);
	return datum;
}

static Datum
call_command(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	int64		deadline;
	RinqFields	fields;
	RinqDatabase *db;
	RinqMessageId id;
	bool		uncorrelated;
	bool		has_id;
	uint32		index;

	rinq_refuse_parallel(fcinfo);
	rinq_require_preloaded();
	deadline = rinq_call_arguments(fcinfo, form, &fields);
	db = rinq_require_connection(deadline);
	has_id = rinq_allocate_id_argument(fcinfo, RINQ_CALL_SESSION_ARGUMENT, &id, &uncorrelated);
	index = rinq_call_submit(db, &fields, deadline, false, has_id ? &id : NULL);
	return rinq_call_result(fcinfo, db, index, form, rinq_get_bytes(&fields, RINQ_CALL_NAMESPACE).data,
							text_to_cstring(PG_GETARG_TEXT_PP(1)));
}

/*
 * rinq_call(namespace text, command text, payload jsonb, timeout interval,
 * session text) returns jsonb
 *
 * Calls a command, waits for the response and returns its payload, NULL for
 * nil.  docs/sql.md has the errors.
 */
Datum
rinq_call(PG_FUNCTION_ARGS)
{
	return call_command(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_call_raw(namespace text, command text, payload bytea, timeout
 * interval, session text) returns bytea
 *
 * The same with CBOR, which is passed on untouched, both ways.
 */
Datum
rinq_call_raw(PG_FUNCTION_ARGS)
{
	return call_command(fcinfo, RINQ_PAYLOAD_RAW);
}
