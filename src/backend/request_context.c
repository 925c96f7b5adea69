/*-------------------------------------------------------------------------
 *
 * request_context.c
 *	  What outlives a function call in a process: the request being handled,
 *	  the last failure, and who else remembers something until a request ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backend/request_context.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

RinqInherited rinq_inherited;
RinqFailure rinq_last_failure_data = {NULL, NULL, NULL};
int64		rinq_retry_after = -1;

/*
 * Return the trace id in use: the setting wins over what is inherited.  The
 * result lives as long as the current memory context.
 */
RinqBytes
rinq_current_trace(void)
{
	RinqBytes	trace;

	if (rinq_trace_setting == NULL || rinq_trace_setting[0] == '\0')
		return rinq_inherited.trace;
	trace = rinq_bytes_str(pg_server_to_any(rinq_trace_setting,
											(int) strlen(rinq_trace_setting), PG_UTF8));
	if (trace.len > RINQ_MAX_TRACE_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("trace id of %zu bytes is too long", trace.len),
				 errdetail("It may have up to %d bytes in UTF-8.", RINQ_MAX_TRACE_LEN)));
	return trace;
}

static MemoryContext failure_context = NULL;

void
rinq_failure_forget(void)
{
	rinq_retry_after = -1;
	memset(&rinq_last_failure_data, 0, sizeof(rinq_last_failure_data));
	if (failure_context != NULL)
		MemoryContextReset(failure_context);
}

/*
 * Raise an application-defined failure as an error, and keep it for
 * rinq_last_failure(), since an error cannot carry a payload.  "origin" is the
 * command of another peer that it came from, NULL for a failure of this process.
 */
void
rinq_failure_raise(const char *type, const char *message, const Jsonb *payload,
				   const char *origin)
{
	MemoryContext old;
	RinqFailure failure;

	if (failure_context == NULL)
		failure_context = AllocSetContextCreate(TopMemoryContext, "rinq failure",
												ALLOCSET_SMALL_SIZES);

	/* the arguments may be those of the failure that is replaced */
	old = MemoryContextSwitchTo(CurrentMemoryContext);
	failure.type = pstrdup(type);
	failure.message = message != NULL ? pstrdup(message) : NULL;
	failure.payload = NULL;
	if (payload != NULL)
	{
		failure.payload = palloc(VARSIZE(payload));
		memcpy(failure.payload, payload, VARSIZE(payload));
	}
	rinq_failure_forget();
	MemoryContextSwitchTo(failure_context);
	rinq_last_failure_data.type = pstrdup(failure.type);
	if (failure.message != NULL)
		rinq_last_failure_data.message = pstrdup(failure.message);
	if (failure.payload != NULL)
	{
		rinq_last_failure_data.payload = palloc(VARSIZE(failure.payload));
		memcpy(rinq_last_failure_data.payload, failure.payload, VARSIZE(failure.payload));
	}
	MemoryContextSwitchTo(old);

	ereport(ERROR,
			(errcode(ERRCODE_RINQ_FAILURE),
			 errmsg_internal("%s", failure.message != NULL && failure.message[0] != '\0' ?
							 failure.message : failure.type),
			 origin == NULL ? errdetail("Failure type: %s", failure.type) :
			 errdetail("Failure type: %s\nThe failure was raised by the peer that served %s.",
					   failure.type, origin)));
}
