/*-------------------------------------------------------------------------
 *
 * sql/async.c
 *	  rinq_call_async, rinq_await and its like, and rinq_cancel: calls that are
 *	  made now and waited for later, in the same connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/async_calls.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "protocol/payload.h"
#include "sql/call.h"
#include "sql/resultset.h"
#include "sql/session_ref.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_call_async);
PG_FUNCTION_INFO_V1(rinq_call_async_raw);
PG_FUNCTION_INFO_V1(rinq_await);
PG_FUNCTION_INFO_V1(rinq_await_raw);
PG_FUNCTION_INFO_V1(rinq_await_response);
PG_FUNCTION_INFO_V1(rinq_await_any);
PG_FUNCTION_INFO_V1(rinq_await_all);
PG_FUNCTION_INFO_V1(rinq_cancel);

/* Look up the call of an id; NULL when it is not known. */
static RinqAsyncCall *
look_up_call(const char *text)
{
	RinqMessageId id;

	return rinq_message_id_parse(text, strlen(text), &id) ? rinq_async_find(&id) : NULL;
}

/* Find the call of an id; one that is not known is an error. */
static RinqAsyncCall *
find_call(const char *text)
{
	RinqAsyncCall *call = look_up_call(text);

	if (call == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("call \"%s\" is not known", text),
				 errdetail("A call is known to the connection that has made it, until it is cancelled, or the transaction ends that has awaited it.")));
	return call;
}

static char *
id_text(const RinqAsyncCall *call)
{
	char		buf[RINQ_MESSAGE_ID_SIZE];

	rinq_message_id_format(&call->id, buf, sizeof(buf));
	return pstrdup(buf);
}

static int64
wait_until(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return PG_INT64_MAX;
	return rinq_clock_ms() + rinq_interval_ms(PG_GETARG_INTERVAL_P(n));
}

/*
 * Send a call whose response goes to the handler of the session: this process
 * cannot wait for it.
 */
static void
send_uncorrelated(FunctionCallInfo fcinfo, RinqDatabase *db, const RinqFields *fields,
				  int64 deadline, const RinqMessageId *id)
{
	char	   *namespace = rinq_namespace_argument(fcinfo, 0);
	char	   *command = rinq_text_argument(fcinfo, 1, "command");
	uint32		index = rinq_call_submit_uncorrelated(db, fields, deadline, id);

	(void) rinq_call_result(fcinfo, db, index, RINQ_PAYLOAD_RAW, namespace, command);
	fcinfo->isnull = false;
}

static Datum
call_async(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	int64		deadline;
	RinqFields	fields;
	RinqDatabase *db;
	RinqMessageId id;
	RinqAsyncCall *made;
	bool		uncorrelated;
	bool		has_id;
	char		text[RINQ_MESSAGE_ID_SIZE];

	rinq_refuse_parallel(fcinfo);
	rinq_require_preloaded();
	deadline = rinq_call_arguments(fcinfo, form, &fields);
	db = rinq_require_connection(deadline);
	has_id = rinq_allocate_id_argument(fcinfo, RINQ_CALL_SESSION_ARGUMENT, &id, &uncorrelated);
	if (uncorrelated)
	{
		send_uncorrelated(fcinfo, db, &fields, deadline, &id);
		rinq_message_id_format(&id, text, sizeof(text));
		PG_RETURN_DATUM(CStringGetTextDatum(text));
	}
	made = rinq_async_call(db, &fields, deadline, has_id ? &id : NULL);
	PG_RETURN_DATUM(CStringGetTextDatum(id_text(made)));
}

/*
 * rinq_call_async(namespace text, command text, payload jsonb, timeout
 * interval, session text) returns rinq_message_id
 *
 * Calls a command without waiting for the response.
 */
Datum
rinq_call_async(PG_FUNCTION_ARGS)
{
	return call_async(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_call_async_raw(namespace text, command text, payload bytea, timeout
 * interval, session text) returns rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_call_async_raw(PG_FUNCTION_ARGS)
{
	return call_async(fcinfo, RINQ_PAYLOAD_RAW);
}

/* Return a call's command, as text of this database. */
static char *
command_of(const RinqAsyncCall *call)
{
	return rinq_message_from_wire(rinq_bytes_str(call->command));
}

static char *
describe_pending(const RinqAsyncCall *call)
{
	return psprintf("no response to %s::%s yet", call->namespace, command_of(call));
}

static char *
describe_dropped(const RinqAsyncCall *call)
{
	return psprintf("the response to %s::%s was dropped", call->namespace, command_of(call));
}

static Datum
await_call(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	RinqAsyncCall *call;
	const RinqResult *result;

	rinq_refuse_parallel(fcinfo);
	call = find_call(rinq_text_argument(fcinfo, 0, "message id"));
	if (rinq_async_wait_any(&call, 1, wait_until(fcinfo, 1)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RINQ_TIMEOUT),
				 errmsg_internal("%s", describe_pending(call)),
				 errhint("The call goes on; it can be awaited again, or cancelled.")));
	result = rinq_async_result(call);
	if (result->outcome == RINQ_OUTCOME_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_RINQ_TIMEOUT),
				 errmsg_internal("%s", describe_dropped(call)),
				 errdetail("It was not asked for within %d seconds after its deadline.",
						   RINQ_ASYNC_GRACE / 1000)));
	return rinq_result_datum(result, form, &fcinfo->isnull, call->namespace, command_of(call));
}

/*
 * rinq_await(id rinq_message_id, timeout interval) returns jsonb
 *
 * Waits for the response to an asynchronous call, and returns its payload or
 * raises its error, as rinq_call does.  The same again until the transaction
 * ends.
 */
Datum
rinq_await(PG_FUNCTION_ARGS)
{
	return await_call(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_await_raw(id rinq_message_id, timeout interval) returns bytea
 *
 * The same, with the payload as it came.
 */
Datum
rinq_await_raw(PG_FUNCTION_ARGS)
{
	return await_call(fcinfo, RINQ_PAYLOAD_RAW);
}

/*
 * Fill in the columns of a row for a call: its result, or why there is none.
 */
static void
fill_in_result(RinqAsyncCall *call, Datum *values, bool *nulls)
{
	const RinqResult *result;

	if (!rinq_async_ended(call))
	{
		rinq_error_row(ERRCODE_RINQ_TIMEOUT, describe_pending(call), values, nulls);
		return;
	}
	result = rinq_async_result(call);
	if (result->outcome == RINQ_OUTCOME_NONE)
		rinq_error_row(ERRCODE_RINQ_TIMEOUT, describe_dropped(call), values, nulls);
	else
		rinq_result_row(result, call->namespace, command_of(call), values, nulls);
}

/*
 * rinq_await_response(id rinq_message_id, timeout interval) returns record
 *
 * Waits for the response to an asynchronous call, and returns what came, where
 * rinq_await would raise it.
 */
Datum
rinq_await_response(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[RINQ_RESULT_COLUMNS];
	bool		nulls[RINQ_RESULT_COLUMNS];
	RinqAsyncCall *call;

	rinq_refuse_parallel(fcinfo);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != RINQ_RESULT_COLUMNS)
		elog(ERROR, "return type must be a row type");
	call = find_call(rinq_text_argument(fcinfo, 0, "message id"));
	(void) rinq_async_wait_any(&call, 1, wait_until(fcinfo, 1));
	fill_in_result(call, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Return an argument that is an array of message ids, as texts. */
static char **
ids_argument(FunctionCallInfo fcinfo, int n, int *count)
{
	ArrayType  *array;
	Datum	   *ids;
	bool	   *nulls;
	char	  **texts;
	int			i;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("message ids must not be null")));

	/* its elements are of the domain, which are laid out as text is */
	array = PG_GETARG_ARRAYTYPE_P(n);
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_INT, &ids, &nulls, count);
	texts = palloc(Max(*count, 1) * sizeof(char *));
	for (i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("message ids must not be null")));
		texts[i] = TextDatumGetCString(ids[i]);
	}
	return texts;
}

/*
 * rinq_await_any(ids rinq_message_id[], timeout interval) returns
 * rinq_message_id
 *
 * Waits until one of several calls has ended, and returns its id, for
 * rinq_await; NULL when the timeout has passed.
 */
Datum
rinq_await_any(PG_FUNCTION_ARGS)
{
	RinqAsyncCall **calls;
	RinqAsyncCall *first;
	char	  **ids;
	int			count;
	int			i;

	rinq_refuse_parallel(fcinfo);
	ids = ids_argument(fcinfo, 0, &count);
	if (count == 0)
		PG_RETURN_NULL();
	calls = palloc(count * sizeof(RinqAsyncCall *));
	for (i = 0; i < count; i++)
		calls[i] = find_call(ids[i]);
	first = rinq_async_wait_any(calls, count, wait_until(fcinfo, 1));
	if (first == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(CStringGetTextDatum(id_text(first)));
}

/* wait until all that are known have ended, or the time has come */
static void
wait_for_all(RinqAsyncCall **calls, int count, int64 until)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		if (calls[i] != NULL && rinq_async_wait_any(&calls[i], 1, until) == NULL)
			return;
	}
}

/*
 * rinq_await_all(ids rinq_message_id[], timeout interval) returns setof record
 *
 * Waits until several calls have ended, and returns a row for each, in the order
 * of their ids: what came, or what was wrong.  Those that have not ended when the
 * timeout has passed can be awaited again.
 */
Datum
rinq_await_all(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqAsyncCall **calls;
	char	  **ids;
	int			count;
	int			i;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, 2 + RINQ_RESULT_COLUMNS);
	ids = ids_argument(fcinfo, 0, &count);
	calls = palloc(Max(count, 1) * sizeof(RinqAsyncCall *));
	for (i = 0; i < count; i++)
		calls[i] = look_up_call(ids[i]);
	wait_for_all(calls, count, wait_until(fcinfo, 1));
	for (i = 0; i < count; i++)
	{
		Datum		values[2 + RINQ_RESULT_COLUMNS];
		bool		nulls[2 + RINQ_RESULT_COLUMNS] = {false};

		values[0] = Int64GetDatum(i + 1);
		values[1] = CStringGetTextDatum(ids[i]);
		if (calls[i] != NULL)
			fill_in_result(calls[i], values + 2, nulls + 2);
		else
			rinq_error_row(ERRCODE_UNDEFINED_OBJECT, psprintf("call \"%s\" is not known", ids[i]),
						   values + 2, nulls + 2);
		rinq_resultset_put(&set, values, nulls);
	}
	return (Datum) 0;
}

/*
 * rinq_cancel(id rinq_message_id) returns boolean
 *
 * Gives an asynchronous call up: its response will be dropped.  False when the
 * call is not known, or was awaited already.
 */
Datum
rinq_cancel(PG_FUNCTION_ARGS)
{
	RinqAsyncCall *call;

	rinq_refuse_parallel(fcinfo);
	call = look_up_call(rinq_text_argument(fcinfo, 0, "message id"));
	if (call == NULL || call->awaited)
		PG_RETURN_BOOL(false);
	rinq_async_cancel(call);
	PG_RETURN_BOOL(true);
}
