/*-------------------------------------------------------------------------
 *
 * resultset.h
 *	  Returning a set of rows from an SQL function, all of them at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_RESULTSET_H
#define RINQ_RESULTSET_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/tuplestore.h"

typedef struct RinqResultSet
{
	TupleDesc	desc;
	Tuplestorestate *store;
} RinqResultSet;

extern void rinq_resultset_begin(FunctionCallInfo fcinfo, RinqResultSet *set, int columns);
extern void rinq_resultset_begin_scalar(FunctionCallInfo fcinfo, RinqResultSet *set);
extern void rinq_resultset_put(RinqResultSet *set, Datum *values, bool *nulls);

#endif							/* RINQ_RESULTSET_H */
