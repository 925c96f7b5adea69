/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long to wait before something that has failed is tried again: twice
 *	  as long each time, within bounds.
 *
 * Plain C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_BACKOFF_H
#define RINQ_BASE_BACKOFF_H

#include <stdint.h>

#include "base/invariant.h"

/*
 * Return the delay that follows one of "delay", which is 0 when nothing has
 * failed before: at least "first", at most "last", all in ms.
 */
static inline int
rinq_backoff_next(int delay, int first, int last)
{
	int64_t		next = (int64_t) delay * 2;

	RINQ_ASSERT(delay >= 0 && first > 0 && first <= last);
	if (next < first)
		return first;
	return next > last ? last : (int) next;
}

/*
 * Return the delay after a number of failures in a row, one at least.
 */
static inline int
rinq_backoff_after(int failures, int first, int last)
{
	int			delay = first;

	RINQ_ASSERT(failures > 0);
	while (--failures > 0 && delay < last)
		delay = rinq_backoff_next(delay, first, last);
	return delay;
}

#endif							/* RINQ_BASE_BACKOFF_H */
