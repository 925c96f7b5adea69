/*-------------------------------------------------------------------------
 *
 * parallel.h
 *	  Which SQL functions may be used in a parallel operation.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PARALLEL_H
#define RINQ_PARALLEL_H

#include "postgres.h"

#include "fmgr.h"

extern void rinq_refuse_parallel(FunctionCallInfo fcinfo);
extern void rinq_refuse_parallel_worker(FunctionCallInfo fcinfo);

#endif							/* RINQ_PARALLEL_H */
