/*-------------------------------------------------------------------------
 *
 * backend/retry_policy.h
 *	  Reading the jsonb form of a retry policy.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_RETRY_POLICY_H
#define RINQ_BACKEND_RETRY_POLICY_H

#include "postgres.h"

#include "protocol/retry_policy.h"
#include "utils/jsonb.h"

extern char *rinq_retry_policy_read(const Jsonb *json, RinqRetryPolicy *policy);
extern void rinq_retry_policy_check(const Jsonb *json);

#endif							/* RINQ_BACKEND_RETRY_POLICY_H */
