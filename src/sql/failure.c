/*-------------------------------------------------------------------------
 *
 * failure.c
 *	  rinq_fail and rinq_last_failure: failures that an application defines; and
 *	  rinq_retry, by which a handler asks for another attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backend/parallel.h"
#include "backend/request_context.h"
#include "fmgr.h"
#include "funcapi.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(rinq_fail);
PG_FUNCTION_INFO_V1(rinq_last_failure);
PG_FUNCTION_INFO_V1(rinq_retry);

/*
 * rinq_fail(type text, message text, payload jsonb) returns void
 *
 * Raises a failure: in a handler it ends the request with that failure as
 * the response, elsewhere it is an error like others.  Everything that could
 * keep it from being sent is an error here, where it can be found.
 */
Datum
rinq_fail(PG_FUNCTION_ARGS)
{
	char	   *type;
	char	   *message = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	Jsonb	   *payload = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);

	rinq_refuse_parallel(fcinfo);
	type = rinq_text_argument(fcinfo, 0, "failure type");
	if (type[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("failure type must not be empty")));
	(void) rinq_limited_text(type, RINQ_MAX_NAME_LEN, "failure type");
	if (message != NULL)
		(void) rinq_limited_text(message, RINQ_MAX_MESSAGE_LEN, "failure message");
	if (rinq_payload_from_jsonb(payload).len == 0)
		payload = NULL;

	rinq_failure_raise(type, message, payload, NULL);
	PG_RETURN_VOID();
}

/*
 * rinq_retry(after interval, reason text) returns void
 *
 * Raises an error upon which the request that is handled is tried again, after
 * a time, if there may be another attempt; NULL is when the listener's policy
 * says.
 */
Datum
rinq_retry(PG_FUNCTION_ARGS)
{
	int64		after = -1;
	const char *reason = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));

	rinq_refuse_parallel(fcinfo);
	if (!PG_ARGISNULL(0))
		after = rinq_delay_ms(PG_GETARG_INTERVAL_P(0), "after");
	rinq_retry_after = after;
	ereport(ERROR,
			(errcode(ERRCODE_RINQ_RETRY),
			 errmsg_internal("%s", reason[0] != '\0' ? reason : "the handler asks for another attempt")));
}

/*
 * rinq_last_failure() returns (type text, message text, payload jsonb)
 *
 * The failure that this session raised or received last; all columns are
 * NULL when there was none.
 */
Datum
rinq_last_failure(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};
	const RinqFailure *failure = &rinq_last_failure_data;

	rinq_refuse_parallel_worker(fcinfo);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	if (failure->type != NULL)
	{
		values[0] = CStringGetTextDatum(failure->type);
		nulls[0] = false;
	}
	if (failure->message != NULL)
	{
		values[1] = CStringGetTextDatum(failure->message);
		nulls[1] = false;
	}
	if (failure->payload != NULL)
	{
		values[2] = JsonbPGetDatum(failure->payload);
		nulls[2] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
