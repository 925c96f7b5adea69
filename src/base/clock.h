/*-------------------------------------------------------------------------
 *
 * base/clock.h
 *	  The two clocks, and the way from one to the other.
 *
 * Whatever waits, tries again, gives up or is kept for a while counts on the
 * monotonic clock, which no administrator and no time service steps, and which
 * all processes of the machine read alike.  The wall clock is for what other
 * machines or people read: deadlines on the wire and in the outbox, timestamps
 * that are shown, identifiers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CLOCK_H
#define RINQ_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"

/* the monotonic clock: since the machine started, and so never 0 */
extern int64 rinq_clock_ms(void);
extern int64 rinq_clock_us(void);

/* the wall clock: ms since the Unix epoch, which deadlines on the wire count in */
extern int64 rinq_wall_ms(void);
extern TimestampTz rinq_timestamp_of_ms(int64 wall);
extern int64 rinq_ms_of_timestamp(TimestampTz timestamp);

/* the wall clock minus the monotonic one, in ms */
extern int64 rinq_clock_difference(void);

/*
 * One who waits, on the monotonic clock, for times of the wall clock: what he has
 * worked out is wrong once that is stepped.
 */
typedef struct RinqClockWatch
{
	int64		difference;		/* of the clocks, when it was looked at last */
	int64		next;			/* when to look again; 0: it was never */
} RinqClockWatch;

/* ms after which those who look for it notice a step */
#define RINQ_CLOCK_CHECK 5000

extern bool rinq_clock_is_step(int64 difference, int64 before);
extern bool rinq_clock_stepped(RinqClockWatch * watch, int64 now);

/* deadlines; 0 is none on either clock */
extern int64 rinq_clock_of_wall(int64 wall);
extern int64 rinq_wall_of_clock(int64 ms);

/* Return the earlier of two deadlines. */
static inline int64
rinq_clock_earlier(int64 a, int64 b)
{
	if (a == 0 || (b != 0 && b < a))
		return b;
	return a;
}

extern void rinq_cancel_at(int64 ms);
extern void rinq_clock_share(pg_atomic_uint64 *shared);

#endif							/* RINQ_CLOCK_H */
