/*-------------------------------------------------------------------------
 *
 * resultset.c
 *	  Returning a set of rows from an SQL function, all of them at once.
 *
 * PostgreSQL has a function for this too, under different names in different
 * versions, and not in all of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "sql/resultset.h"
#include "utils/memutils.h"

static ReturnSetInfo *
require_set_context(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;

	if (info == NULL || !IsA(info, ReturnSetInfo) ||
		(info->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	return info;
}

/* Make the set, whose rows are described already, what the function returns. */
static void
return_resultset(ReturnSetInfo *info, RinqResultSet *set)
{
	set->store = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0,
									   false, work_mem);
	info->returnMode = SFRM_Materialize;
	info->setResult = set->store;
	info->setDesc = set->desc;
}

/*
 * Begin the set; its rows have as many columns as the function's definition
 * in SQL has to say.
 */
void
rinq_resultset_begin(FunctionCallInfo fcinfo, RinqResultSet *set, int columns)
{
	ReturnSetInfo *info = require_set_context(fcinfo);
	MemoryContext old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);

	if (get_call_result_type(fcinfo, NULL, &set->desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (set->desc->natts != columns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the function does not fit the loaded version of rinq"),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));
	return_resultset(info, set);
	MemoryContextSwitchTo(old);
}

/*
 * Begin a set of values that are no rows.
 */
void
rinq_resultset_begin_scalar(FunctionCallInfo fcinfo, RinqResultSet *set)
{
	ReturnSetInfo *info = require_set_context(fcinfo);
	MemoryContext old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	Oid			type;

	if (get_call_result_type(fcinfo, &type, NULL) != TYPEFUNC_SCALAR)
		elog(ERROR, "return type must be a scalar type");
	set->desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(set->desc, 1, "id", type, -1, 0);
	rinq_finish_tupdesc(set->desc);
	return_resultset(info, set);
	MemoryContextSwitchTo(old);
}

void
rinq_resultset_put(RinqResultSet *set, Datum *values, bool *nulls)
{
	tuplestore_putvalues(set->store, set->desc, values, nulls);
}
