/*-------------------------------------------------------------------------
 *
 * trace.c
 *	  rinq_trace_id: which messages belong together.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backend/parallel.h"
#include "backend/request_context.h"
#include "fmgr.h"
#include "protocol/payload.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_trace_id);

/*
 * rinq_trace_id() returns text
 *
 * The trace id that a message sent now would have: that of the setting
 * rinq.trace_id, else of the request being handled; NULL when it would be the
 * message's own id.
 */
Datum
rinq_trace_id(PG_FUNCTION_ARGS)
{
	RinqBytes	trace;

	rinq_refuse_parallel_worker(fcinfo);
	trace = rinq_current_trace();
	if (trace.len == 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(rinq_message_from_wire(trace)));
}
