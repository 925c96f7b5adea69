/*-------------------------------------------------------------------------
 *
 * inbox_rows.h
 *	  The rows of commands and notifications that have failed, and of requests that
 *	  were set aside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_INBOX_ROWS_H
#define RINQ_WORKER_INBOX_ROWS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ipc/slots.h"

#define RINQ_INBOX_WAITING "inbox_waiting"

/* columns that both tables have, in the order in which they are written and returned */
enum
{
	RINQ_INBOX_ID,
	RINQ_INBOX_DIGEST,
	RINQ_INBOX_SOURCE,
	RINQ_INBOX_NAMESPACE,
	RINQ_INBOX_COMMAND,			/* or the type of a notification */
	RINQ_INBOX_PAYLOAD,
	RINQ_INBOX_TRACE_ID,
	RINQ_INBOX_DEADLINE,
	RINQ_INBOX_SPAN_CONTEXT,
	RINQ_INBOX_TRACEPARENT,
	RINQ_INBOX_TRACESTATE,
	RINQ_INBOX_HANDLER,
	RINQ_INBOX_ATTEMPTS,
	RINQ_INBOX_FIRST_RECEIVED,
	RINQ_INBOX_LAST_ATTEMPT,
	RINQ_INBOX_SQLSTATE,
	RINQ_INBOX_ERROR,
	RINQ_INBOX_DETAIL,
	RINQ_INBOX_HINT,
	RINQ_INBOX_CONTEXT,
	RINQ_INBOX_SUBSCRIPTION,	/* these three of notifications */
	RINQ_INBOX_TARGET,
	RINQ_INBOX_FILTER,
	RINQ_INBOX_COMMON_END,

	/* of those that wait */
	RINQ_INBOX_TRIES = RINQ_INBOX_COMMON_END,
	RINQ_INBOX_DUE,
	RINQ_INBOX_DATABASE,
	RINQ_INBOX_WAITING_END
};

/* why an attempt has failed, as text of this database */
typedef struct RinqInboxCause
{
	const char *sqlstate;		/* NULL: it was no error */
	const char *message;
	const char *detail;
	const char *hint;
	const char *context;
} RinqInboxCause;

/* what is to be written about a request */
typedef struct RinqInboxFailure
{
	const RinqSlot *slot;
	const RinqFields *fields;
	RinqInboxCause cause;
	TimestampTz began;			/* the attempt */
	int			tries;
	int64		delay;			/* ms until the next attempt; -1: set it aside */
} RinqInboxFailure;

#define RINQ_INBOX_COMMON_COLUMNS \
	"id, digest, source, namespace, command, payload, trace_id, deadline," \
	" span_context, traceparent, tracestate, handler, attempts, first_received, last_attempt," \
	" sqlstate, error, detail, hint, context, subscription, target, filter"

extern const Oid rinq_inbox_types[RINQ_INBOX_WAITING_END];

extern Datum rinq_inbox_digest(const RinqSlot *slot, const RinqFields *fields);
extern void rinq_inbox_write(void *arg);
extern bool rinq_inbox_claim(const RinqFields *fields);
extern bool rinq_inbox_has(const RinqSlot *slot, const RinqFields *fields);

#endif							/* RINQ_WORKER_INBOX_ROWS_H */
