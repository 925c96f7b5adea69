/*-------------------------------------------------------------------------
 *
 * burst.c
 *	  How often something happens, so that what others can cause is neither done
 *	  nor logged as fast as they can.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/burst.h"

#define BURST_WINDOW 10000		/* ms in which events of a kind are counted */

/*
 * Note an event at this time, in ms, and tell whether there were more than "most"
 * of its kind in a few seconds.
 */
bool
rinq_too_often(RinqBurst *burst, int64 now, int most)
{
	Assert(most > 0);
	if (burst->count == 0 || now - burst->since > BURST_WINDOW)
	{
		burst->since = now;
		burst->count = 0;
	}
	return ++burst->count > (uint64) most;
}

/*
 * Tell whether an event of a kind may be logged, of which the first one in a few
 * seconds is.  Then *suppressed is how many were not since the last that was.
 */
bool
rinq_may_log(RinqBurst *burst, int64 now, uint64 *suppressed)
{
	uint64		before = burst->count;

	if (rinq_too_often(burst, now, 1))
		return false;
	*suppressed = before > 0 ? before - 1 : 0;
	return true;
}
