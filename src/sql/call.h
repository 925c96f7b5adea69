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
#include "fmgr.h"
#include "utils/jsonb.h"

extern int64 rinq_call_arguments(FunctionCallInfo fcinfo, RinqBytes *fields);
extern Jsonb *rinq_call_result(RinqDatabase *db, uint32 index, const char *namespace,
							   const char *command);

#endif							/* RINQ_SQL_CALL_H */
