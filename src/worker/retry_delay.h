/*-------------------------------------------------------------------------
 *
 * retry_delay.h
 *	  When a handler that has failed is tried again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_RETRY_DELAY_H
#define RINQ_WORKER_RETRY_DELAY_H

#include "postgres.h"

#include "backend/request_context.h"
#include "protocol/retry_policy.h"

/*
 * Tell whether a handler has failed since it asks for another attempt.
 */
static inline bool
rinq_asks_for_retry(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_RINQ_RETRY;
}

extern int64 rinq_retry_delay_after(const RinqRetryPolicy *policy, int tries, bool asked_for);

#endif							/* RINQ_WORKER_RETRY_DELAY_H */
