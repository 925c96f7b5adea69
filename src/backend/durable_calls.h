/*-------------------------------------------------------------------------
 *
 * backend/durable_calls.h
 *	  The table of durable calls, as far as several kinds of processes use it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_DURABLE_CALLS_H
#define RINQ_BACKEND_DURABLE_CALLS_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "base/ident.h"
#include "ipc/sendqueue.h"
#include "ipc/shared.h"
#include "protocol/kinds.h"

#define RINQ_DURABLE_CALL_TABLE "durable_call"

/* what rinq_durable_call_outcome reads, of a row "c" with an outcome */
#define RINQ_DURABLE_OUTCOME_COLUMNS \
	"c.id, c.namespace, c.command, c.outcome, c.failure_type, c.message, c.result," \
	" COALESCE(c.trace_id, c.id), c.span_context, c.traceparent, c.tracestate, c.handler"
#define RINQ_DURABLE_OUTCOME_COUNT 12

/* what rinq_durable_call_request reads, of a row "c" */
#define RINQ_DURABLE_REQUEST_COLUMNS \
	"c.id, c.namespace, c.command, c.payload, c.trace_id, c.span_context, c.traceparent," \
	" c.tracestate, c.deadline"

extern void rinq_mailbox_make(void);
extern void rinq_mailbox_leave_original(void);
extern void rinq_durable_call_outcome(HeapTuple row, TupleDesc desc, MemoryContext context,
									  RinqFields *fields);
extern void rinq_durable_call_request(HeapTuple row, TupleDesc desc, MemoryContext context,
									  RinqOutbound *message, RinqFields *fields);
extern void rinq_durable_call_ask(RinqDatabase *db, RinqOutbound *message, const RinqFields *fields);
extern Oid	rinq_durable_call_table(void);
extern bool rinq_durable_call_not_sent(const RinqMessageId *id, const char *error);
extern void rinq_durable_call_due_at_commit(RinqDatabase *db, int64 due);

#endif							/* RINQ_BACKEND_DURABLE_CALLS_H */
