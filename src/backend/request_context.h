/*-------------------------------------------------------------------------
 *
 * request_context.h
 *	  The request that this process is handling, whose trace id and deadline
 *	  everything sent meanwhile inherits; the failure last raised or received;
 *	  and what else of this process ends with a request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_REQUEST_CONTEXT_H
#define RINQ_BACKEND_REQUEST_CONTEXT_H

#include "postgres.h"

#include "base/bytes.h"
#include "compat.h"
#include "utils/elog.h"
#include "utils/jsonb.h"

/* class RQ is the extension's own; docs/sql.md lists all codes it uses */
#define ERRCODE_RINQ_FAILURE MAKE_SQLSTATE('R', 'Q', '0', '0', '1')
#define ERRCODE_RINQ_REMOTE_ERROR MAKE_SQLSTATE('R', 'Q', '0', '0', '2')
#define ERRCODE_RINQ_TIMEOUT MAKE_SQLSTATE('R', 'Q', '0', '0', '3')
#define ERRCODE_RINQ_STALE MAKE_SQLSTATE('R', 'Q', '0', '0', '4')
#define ERRCODE_RINQ_STALE_FETCH MAKE_SQLSTATE('R', 'Q', '0', '0', '5')
#define ERRCODE_RINQ_FROZEN MAKE_SQLSTATE('R', 'Q', '0', '0', '6')
#define ERRCODE_RINQ_NOT_FOUND MAKE_SQLSTATE('R', 'Q', '0', '0', '7')
#define ERRCODE_RINQ_RETRY MAKE_SQLSTATE('R', 'Q', '0', '1', '0')

/* what a handler's own messages inherit */
typedef struct RinqInherited
{
	uint64		serial;			/* of the request, in this process; 0 outside
								 * handlers */
	RinqBytes	trace;			/* absent outside handlers */
	RinqBytes	source;			/* session that sent it, at its revision */
	RinqBytes	span_context;	/* header "sc" */
	RinqBytes	traceparent;	/* W3C headers */
	RinqBytes	tracestate;
	int64		deadline;		/* on the monotonic clock; 0 is none */
} RinqInherited;

extern RinqInherited rinq_inherited;

/* return return return the trace id of what is sent now; absent: the message's own id */
extern RinqBytes rinq_current_trace(void);

/* the failure last raised by rinq_fail, or received in answer to a call */
typedef struct RinqFailure
{
	char	   *type;			/* NULL when there was none */
	char	   *message;
	Jsonb	   *payload;		/* NULL for nil */
} RinqFailure;

extern RinqFailure rinq_last_failure_data;

/* ms after which rinq_retry has asked for another attempt; -1: it has not, or said no time */
extern int64 rinq_retry_after;

extern void rinq_failure_forget(void);
RINQ_NORETURN extern void rinq_failure_raise(const char *type, const char *message,
											 const Jsonb *payload, const char *origin);

/* what belongs to a process, and in an executor to the request it handles */
#endif							/* RINQ_BACKEND_REQUEST_CONTEXT_H */
