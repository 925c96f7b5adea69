/*-------------------------------------------------------------------------
 *
 * parallel.c
 *	  Which SQL functions may be used in a parallel operation.
 *
 * A parallel worker has a transaction and a memory of its own that end with it:
 * what is to be sent at commit, the connection's session, its asynchronous calls
 * and the last failure would be lost there without a word.  The markings in the
 * install script keep queries serial that call these functions directly, but
 * not those that call them by a function that its author has marked PARALLEL
 * SAFE; so each of them asks here before it does anything else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "backend/parallel.h"
#include "utils/lsyscache.h"

RINQ_NORETURN static void
refuse(FunctionCallInfo fcinfo)
{
	char	   *name = get_func_name(fcinfo->flinfo->fn_oid);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
			 errmsg("cannot execute %s() during a parallel operation",
					name != NULL ? name : "a function of rinq"),
			 errhint("Mark functions that use it PARALLEL UNSAFE.")));
}

/*
 * Raise an error in a parallel operation, in its leader too, so that a function
 * with an effect does not depend on which process happens to call it.
 */
void
rinq_refuse_parallel(FunctionCallInfo fcinfo)
{
	if (IsInParallelMode())
		refuse(fcinfo);
}

/*
 * Raise an error in a parallel worker only, for a function that reads what only
 * the leader has in its memory.
 */
void
rinq_refuse_parallel_worker(FunctionCallInfo fcinfo)
{
	if (IsParallelWorker())
		refuse(fcinfo);
}
