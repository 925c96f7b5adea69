/*-------------------------------------------------------------------------
 *
 * call_outcome.h
 *	  What calls and operations on sessions share: when they have to be over,
 *	  and the error that each outcome other than success becomes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_CALL_OUTCOME_H
#define RINQ_SQL_CALL_OUTCOME_H

#include "postgres.h"

#include "backend/calls.h"
#include "compat.h"
#include "utils/timestamp.h"

RINQ_NORETURN extern void rinq_call_raise(const RinqResult *result, const char *namespace,
										  const char *command);
extern int64 rinq_call_deadline(const Interval *timeout);

#endif							/* RINQ_SQL_CALL_OUTCOME_H */
