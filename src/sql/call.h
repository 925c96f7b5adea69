/*-------------------------------------------------------------------------
 *
 * call.h
 *	  What all forms of calls share: their arguments, and what answers become.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_CALL_H
#define RINQ_SQL_CALL_H

#include "postgres.h"

#include "calls.h"
#include "compat.h"
#include "fmgr.h"
#include "sql/arguments.h"

#define RINQ_CALL_SESSION_ARGUMENT 4

RINQ_NORETURN extern void rinq_call_raise(const RinqAnswer *answer, const char *namespace,
										  const char *command);
extern int64 rinq_call_deadline(const Interval *timeout);
extern char *rinq_answer_text(const RinqAnswer *answer);
extern int64 rinq_call_arguments(FunctionCallInfo fcinfo, RinqPayloadForm form,
								 RinqBytes *fields);
extern Datum rinq_call_result(FunctionCallInfo fcinfo, RinqDatabase *db, uint32 index,
							  RinqPayloadForm form, const char *namespace,
							  const char *command);

#endif							/* RINQ_SQL_CALL_H */
