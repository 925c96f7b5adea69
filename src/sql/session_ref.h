/*-------------------------------------------------------------------------
 *
 * session_ref.h
 *	  Operations on sessions as SQL functions ask for them: on a session, or on
 *	  a session at one revision.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_SESSION_REF_H
#define RINQ_SQL_SESSION_REF_H

#include "postgres.h"

#include "backend/calls.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "protocol/attribute.h"
#include "protocol/kinds.h"

typedef struct RinqSessionRef
{
	RinqRef		ref;
	bool		current;		/* a session was given, and no revision */
	const char *text;
} RinqSessionRef;

/* what an operation works on; what is not set is absent */
typedef struct RinqOperationInput
{
	const char *namespace;
	RinqAttribute *attributes;
	int			count;
	const char *handler;		/* reference to a function */
	Oid			handler_owner;	/* whom that belongs to */
	const char *channel;		/* of LISTEN and NOTIFY, in UTF-8 or whatever
								 * the database has */
	bool		wait;			/* of RINQ_OP_FETCH: for the next one */
	uint32		after;			/* of lists: number of the session before */
} RinqOperationInput;

/* what it gave, in memory of the caller */
typedef struct RinqOperationResult
{
	RinqFields	fields;			/* RINQ_KIND_OPERATION_RESULT */
} RinqOperationResult;

extern void rinq_session_ref_parse(const char *text, RinqSessionRef *session);
extern void rinq_session_ref_argument(FunctionCallInfo fcinfo, int n, RinqSessionRef *session);
extern void rinq_session_ref_own(RinqDatabase *db, RinqSessionRef *session);
extern void rinq_session_argument(FunctionCallInfo fcinfo, int n, RinqSessionRef *session);
extern void rinq_operate(RinqOperation op, const RinqSessionRef *session,
						 const RinqOperationInput *input, RinqOperationResult *result);
extern bool rinq_operate_unless_stale(RinqOperation op, const RinqSessionRef *session,
									  const RinqOperationInput *input,
									  RinqOperationResult *result);
extern void rinq_change_session(RinqOperation op, const RinqSessionRef *session,
								const RinqOperationInput *input, RinqOperationResult *result);
extern bool rinq_may_use(RinqOperation op, const RinqSessionRef *session, Oid owner);
extern void rinq_operation_fields(const RinqOperationInput *input, RinqFields *fields);
RINQ_NORETURN extern void rinq_operation_refused(RinqOutcome outcome, const RinqSessionRef *session,
												 const char *namespace, const RinqFields *result);
extern Datum rinq_operation_ref_datum(const RinqOperationResult *result);
extern bool rinq_allocate_id_argument(FunctionCallInfo fcinfo, int n, RinqMessageId *id,
									  bool *uncorrelated);

#endif							/* RINQ_SQL_SESSION_REF_H */
