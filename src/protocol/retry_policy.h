/*-------------------------------------------------------------------------
 *
 * retry_policy.h
 *	  How often, and when, a command that has failed is tried again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PROTOCOL_RETRY_POLICY_H
#define RINQ_PROTOCOL_RETRY_POLICY_H

#include "postgres.h"

typedef struct RinqRetryPolicy
{
	int32		attempts;		/* the first one included; 0: there is no
								 * policy */
	int32		first_delay;	/* ms after the first attempt */
	int32		max_delay;		/* ms, at most */
	double		factor;			/* each further delay is so much longer */
	double		jitter;			/* part of a delay that chance adds or takes
								 * away */
	bool		calls;			/* also of requests that a caller waits for */
} RinqRetryPolicy;

/*
 * Return the ms between an attempt, which is that number, and the next one;
 * "chance" is from 0 to 1.
 */
static inline int64
rinq_retry_policy_delay(const RinqRetryPolicy *policy, int attempt, double chance)
{
	double		delay = policy->first_delay;

	Assert(policy->attempts > 0 && attempt > 0);
	while (--attempt > 0 && delay < policy->max_delay && policy->factor > 1)
		delay *= policy->factor;
	if (delay > policy->max_delay)
		delay = policy->max_delay;
	return (int64) (delay * (1 + policy->jitter * (2 * chance - 1)));
}

#endif							/* RINQ_PROTOCOL_RETRY_POLICY_H */
