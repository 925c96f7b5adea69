/*-------------------------------------------------------------------------
 *
 * retry_delay.c
 *	  When a handler that has failed is tried again.
 *
 * It is the same for requests and for outcomes of durable calls: what the
 * handler has asked for, what the policy says, or what is usual.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/backoff.h"
#include "worker/retry_delay.h"

/* without a policy, longer each time, in ms */
#define FIRST_DELAY 1000
#define LAST_DELAY 300000

/*
 * Return the ms until the next attempt, after "tries" of them; a policy
 * without attempts is none.
 */
int64
rinq_retry_delay_after(const RinqRetryPolicy *policy, int tries, bool asked_for)
{
	Assert(tries > 0);
	if (asked_for && rinq_retry_after >= 0)
		return rinq_retry_after;
	if (policy->attempts > 0)
		return rinq_retry_policy_delay(policy, tries, rinq_random_fraction());
	return rinq_backoff_after(tries, FIRST_DELAY, LAST_DELAY);
}
