/*-------------------------------------------------------------------------
 *
 * call.h
 *	  What all forms of calls share: their arguments, and what results become.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_CALL_H
#define RINQ_SQL_CALL_H

#include "postgres.h"

#include "backend/calls.h"
#include "compat.h"
#include "fmgr.h"
#include "protocol/kinds.h"
#include "sql/arguments.h"

#define RINQ_CALL_SESSION_ARGUMENT 4

/* a result as columns of a row, in this order: a payload, and what is wrong with it */
enum
{
	RINQ_RESULT_COLUMN_PAYLOAD,
	RINQ_RESULT_COLUMN_SQLSTATE,
	RINQ_RESULT_COLUMN_TYPE,
	RINQ_RESULT_COLUMN_MESSAGE,
	RINQ_RESULT_COLUMNS
};

extern Datum rinq_result_datum(const RinqResult *result, RinqPayloadForm form, bool *isnull,
							   const char *namespace, const char *command);
extern void rinq_result_row(const RinqResult *result, const char *namespace, const char *command,
							Datum *values, bool *nulls);
extern void rinq_error_row(int code, const char *message, Datum *values, bool *nulls);
extern void rinq_call_fields(const char *namespace, const char *command, RinqFields *fields);
extern int64 rinq_call_arguments(FunctionCallInfo fcinfo, RinqPayloadForm form,
								 RinqFields *fields);
extern Datum rinq_call_result(FunctionCallInfo fcinfo, RinqDatabase *db, uint32 index,
							  RinqPayloadForm form, const char *namespace,
							  const char *command);

#endif							/* RINQ_SQL_CALL_H */
