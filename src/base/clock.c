/*-------------------------------------------------------------------------
 *
 * base/clock.c
 *	  The two clocks, and the way from one to the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>

#include "base/clock.h"
#include "common/int.h"
#include "utils/timestamp.h"

#define EPOCH_DIFFERENCE_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

#define MAX_DRIFT 2000			/* µs that the difference may be out of date */
#define CLOCK_STEP 500			/* ms of the wall clock that are a step, and
								 * no adjustment */
#define MAX_READING 50			/* µs between the readings of a good pair */
#define MAX_READINGS 5

/* the wall clock minus the monotonic one, in ms: this process's, or that of all */
static pg_atomic_uint64 own_difference;
static pg_atomic_uint64 *difference = NULL;

int64
rinq_clock_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

int64
rinq_clock_ms(void)
{
	return rinq_clock_us() / 1000;
}

static int64
wall_us(void)
{
	return GetCurrentTimestamp() + EPOCH_DIFFERENCE_US;
}

int64
rinq_wall_ms(void)
{
	return wall_us() / 1000;
}

/*
 * Have all processes use the same difference of the clocks, from here on.
 */
void
rinq_clock_share(pg_atomic_uint64 *shared_difference)
{
	difference = shared_difference;
}

/* read both clocks at the same moment, as far as a process can */
static int64
measure_difference(void)
{
	int64		found = 0;
	int			i;

	for (i = 0; i < MAX_READINGS; i++)
	{
		int64		before = rinq_clock_us();
		int64		wall = wall_us();
		int64		after = rinq_clock_us();

		found = wall - (before + after) / 2;
		if (after - before <= MAX_READING)
			break;
	}
	return found;
}

/*
 * Return the wall clock minus the monotonic one in ms.  The value in use stays
 * until it is wrong by more than what comes from reading and rounding, so that
 * a deadline that goes from one clock to the other and back, in whatever
 * processes, is what it was.
 */
int64
rinq_clock_difference(void)
{
	int64		found = measure_difference();
	int64		used;

	if (difference == NULL)
	{
		pg_atomic_init_u64(&own_difference, 0);
		difference = &own_difference;
	}
	used = (int64) pg_atomic_read_u64(difference);
	if (found - used * 1000 > MAX_DRIFT || found - used * 1000 < -MAX_DRIFT)
	{
		used = found / 1000;
		pg_atomic_write_u64(difference, (uint64) used);
	}
	return used;
}

/*
 * Tell whether two differences of the clocks are as far apart as a step of the wall
 * clock makes them.
 */
bool
rinq_clock_is_step(int64 difference, int64 before)
{
	return difference - before > CLOCK_STEP || before - difference > CLOCK_STEP;
}

/*
 * Tell whether the wall clock was stepped since the last look, which there is one
 * of every few seconds; true also when it may have been.
 */
bool
rinq_clock_stepped(RinqClockWatch * watch, int64 now)
{
	int64		before = watch->difference;
	bool		first = watch->next == 0;

	if (now < watch->next)
		return false;
	watch->next = now + RINQ_CLOCK_CHECK;
	watch->difference = rinq_clock_difference();
	return !first && rinq_clock_is_step(watch->difference, before);
}

/*
 * Turn a deadline that came from elsewhere into one to wait by.  The far future
 * and the far past stay what they are.
 */
int64
rinq_clock_of_wall(int64 wall)
{
	int64		ms;

	if (wall == 0)
		return 0;
	if (pg_sub_s64_overflow(wall, rinq_clock_difference(), &ms))
		return wall > 0 ? PG_INT64_MAX : 1;
	return Max(ms, 1);
}

/*
 * Turn a deadline to wait by into one that others can read.
 */
int64
rinq_wall_of_clock(int64 ms)
{
	int64		wall;

	Assert(ms >= 0);
	if (ms == 0)
		return 0;
	if (pg_add_s64_overflow(ms, rinq_clock_difference(), &wall))
		return PG_INT64_MAX;
	return Max(wall, 1);
}

/*
 * Cancel what this process is doing at a time of the monotonic clock, as
 * SIGINT would then; 0 takes that back.
 */
void
rinq_cancel_at(int64 ms)
{
	static timer_t timer;
	static bool made = false;
	struct itimerspec when;

	if (!made && ms != 0)
	{
		struct sigevent event;

		memset(&event, 0, sizeof(event));
		event.sigev_notify = SIGEV_SIGNAL;
		event.sigev_signo = SIGINT;
		if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not create a timer: %m")));
		made = true;
	}
	if (!made)
		return;
	memset(&when, 0, sizeof(when));
	when.it_value.tv_sec = ms / 1000;
	when.it_value.tv_nsec = ms % 1000 * 1000000;
	(void) timer_settime(timer, TIMER_ABSTIME, &when, NULL);
}

/*
 * Convert ms to a timestamp; times that a timestamp cannot express become
 * infinite.
 */
TimestampTz
rinq_timestamp_of_ms(int64 wall)
{
	if (wall < 0)
		return DT_NOBEGIN;
	if (wall > (END_TIMESTAMP / 1000))
		return DT_NOEND;
	return wall * 1000 - EPOCH_DIFFERENCE_US;
}

int64
rinq_ms_of_timestamp(TimestampTz timestamp)
{
	if (timestamp == DT_NOBEGIN)
		return 1;
	if (timestamp == DT_NOEND)
		return PG_INT64_MAX;
	return timestamp / 1000 + EPOCH_DIFFERENCE_US / 1000;
}
