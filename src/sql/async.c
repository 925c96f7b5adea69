/*-------------------------------------------------------------------------
 *
 * async.c
 *	  rinq_call_async, rinq_await, rinq_await_any and rinq_cancel: calls that
 *	  are made now and waited for later, in the same connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "async.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "fmgr.h"
#include "payload.h"
#include "request.h"
#include "sql/call.h"
#include "sql/target.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_call_async);
PG_FUNCTION_INFO_V1(rinq_call_async_text);
PG_FUNCTION_INFO_V1(rinq_call_async_raw);
PG_FUNCTION_INFO_V1(rinq_await);
PG_FUNCTION_INFO_V1(rinq_await_raw);
PG_FUNCTION_INFO_V1(rinq_await_any);
PG_FUNCTION_INFO_V1(rinq_cancel);

/* ms after which a waiting backend looks around without having been woken */
#define RECHECK 1000

static RinqDatabase *
require_database(void)
{
	RinqDatabase *db;

	rinq_require_preloaded();
	db = rinq_my_database();
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq does not serve this database")));
	return db;
}

static RinqAsyncCall *
find_call(const char *text)
{
	RinqMessageId id;
	RinqAsyncCall *call = NULL;

	if (rinq_message_id_parse(text, strlen(text), &id))
		call = rinq_async_find(&id);
	if (call == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("call \"%s\" is not known", text),
				 errdetail("A call is known to the connection that has made it, until it is awaited or cancelled.")));
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
 * Waits until one of some calls has ended, or the time has come; returns the
 * call, or NULL.
 */
static RinqAsyncCall *
wait_for_any(RinqDatabase *db, RinqAsyncCall **calls, int count, int64 until)
{
	static uint32 wait_event = 0;

	for (;;)
	{
		int64		now = rinq_clock_ms();
		int64		next = until;
		int			i;

		for (i = 0; i < count; i++)
		{
			int64		deadline = rinq_channel_of(db)->slots[calls[i]->index].deadline;

			if (rinq_async_answered(db, calls[i]) || deadline <= now)
				return calls[i];
			next = Min(next, deadline);
		}
		if (until <= now)
			return NULL;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(next - now, RECHECK),
						 RINQ_WAIT_EVENT(wait_event, "RinqCallResponse"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* the response goes to the handler of the session: nobody here can wait for it */
static void
send_uncorrelated(FunctionCallInfo fcinfo, RinqDatabase *db, const RinqBytes *fields,
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
	RinqBytes	fields[RINQ_CALL_FIELDS];
	RinqDatabase *db;
	RinqMessageId id;
	RinqAsyncCall *made;
	bool		uncorrelated;
	bool		drawn;
	char		text[RINQ_MESSAGE_ID_SIZE];

	rinq_require_preloaded();
	deadline = rinq_call_arguments(fcinfo, form, fields);
	db = rinq_require_connection(deadline);
	drawn = rinq_draw_argument(fcinfo, RINQ_CALL_SESSION_ARGUMENT, &id, &uncorrelated);
	if (uncorrelated)
	{
		send_uncorrelated(fcinfo, db, fields, deadline, &id);
		rinq_message_id_format(&id, text, sizeof(text));
		PG_RETURN_DATUM(CStringGetTextDatum(text));
	}
	made = rinq_async_call(db, fields, deadline, drawn ? &id : NULL);
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
 * The same with a payload of type text, which holds JSON.
 */
Datum
rinq_call_async_text(PG_FUNCTION_ARGS)
{
	return call_async(fcinfo, RINQ_PAYLOAD_TEXT);
}

/*
 * The same with a payload of type bytea, which is CBOR.
 */
Datum
rinq_call_async_raw(PG_FUNCTION_ARGS)
{
	return call_async(fcinfo, RINQ_PAYLOAD_RAW);
}

static Datum
await(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	char	   *id = rinq_text_argument(fcinfo, 0, "message id");
	int64		until = wait_until(fcinfo, 1);
	RinqDatabase *db = require_database();
	RinqAsyncCall *call = find_call(id);
	char	   *namespace = pstrdup(call->namespace);
	char	   *command = rinq_message_from_wire(rinq_bytes_str(call->command));
	uint32		index = call->index;
	bool		taken;

	if (wait_for_any(db, &call, 1, until) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RINQ_TIMEOUT),
				 errmsg("no response to %s::%s yet", namespace, command),
				 errhint("The call goes on; it can be awaited again, or cancelled.")));
	taken = rinq_async_take(db, call);
	rinq_async_forget(call);
	if (!taken)
		ereport(ERROR,
				(errcode(ERRCODE_RINQ_TIMEOUT),
				 errmsg("the response to %s::%s was dropped", namespace, command),
				 errdetail("Nobody has asked for it within %d seconds after its deadline.",
						   RINQ_ASYNC_GRACE / 1000)));
	return rinq_call_result(fcinfo, db, index, form, namespace, command);
}

/*
 * rinq_await(id rinq_message_id, timeout interval) returns jsonb
 *
 * Waits for the response to an asynchronous call, and returns its payload or
 * raises its error, as rinq_call does.
 */
Datum
rinq_await(PG_FUNCTION_ARGS)
{
	return await(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_await_raw(id rinq_message_id, timeout interval) returns bytea
 *
 * The same, with the payload as it came.
 */
Datum
rinq_await_raw(PG_FUNCTION_ARGS)
{
	return await(fcinfo, RINQ_PAYLOAD_RAW);
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
	RinqDatabase *db = require_database();
	int64		until = wait_until(fcinfo, 1);
	RinqAsyncCall **calls;
	RinqAsyncCall *first;
	Datum	   *ids;
	bool	   *nulls;
	int			count;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("message ids must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &ids, &nulls, &count);
	if (count == 0)
		PG_RETURN_NULL();
	calls = palloc(count * sizeof(RinqAsyncCall *));
	for (i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("message ids must not be null")));
		calls[i] = find_call(TextDatumGetCString(ids[i]));
	}
	first = wait_for_any(db, calls, count, until);
	if (first == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(CStringGetTextDatum(id_text(first)));
}

/*
 * rinq_cancel(id rinq_message_id) returns boolean
 *
 * Gives an asynchronous call up: its response will be dropped.  False when the
 * call is not known.
 */
Datum
rinq_cancel(PG_FUNCTION_ARGS)
{
	char	   *text = rinq_text_argument(fcinfo, 0, "message id");
	RinqDatabase *db = require_database();
	RinqMessageId id;
	RinqAsyncCall *call = NULL;

	if (rinq_message_id_parse(text, strlen(text), &id))
		call = rinq_async_find(&id);
	if (call == NULL)
		PG_RETURN_BOOL(false);
	if (rinq_async_take(db, call))
		rinq_call_release(db, call->index);
	rinq_async_forget(call);
	PG_RETURN_BOOL(true);
}
