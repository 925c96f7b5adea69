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
	const char *handler;		/* or a channel, in UTF-8 or whatever the
								 * database has */
	Oid			owner;			/* of the handler */
	char		mode;			/* '\0': absent */
} RinqOperationInput;

/* what it gave, in memory of the caller */
typedef struct RinqOperationResult
{
	char	   *text;
	bool		uncorrelated;	/* of RINQ_OP_ALLOCATE_ID: the session has a
								 * handler for responses */
	RinqBytes	payload;
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
extern bool rinq_may_use(RinqOperation op, const RinqSessionRef *session, const char *owner);
extern void rinq_operation_fields(const RinqOperationInput *input, RinqBytes *fields);
RINQ_NORETURN extern void rinq_operation_refused(RinqOutcome outcome, const RinqSessionRef *session,
												 const char *namespace, const char *text);
extern bool rinq_allocate_id_argument(FunctionCallInfo fcinfo, int n, RinqMessageId *id,
									  bool *uncorrelated);

#endif							/* RINQ_SQL_SESSION_REF_H */
