/*-------------------------------------------------------------------------
 *
 * turn.c
 *	  Sharing the peer's time: what one kind of work may take in a turn of the
 *	  event loop, and how long turns have lasted.
 *
 * Work whose cost follows its input, or what is stored, is done in steps that
 * are short each.  It asks between two steps whether its slice of the turn is
 * over, and goes on in the next turn if so: the connection, calls and other work
 * get their slices meanwhile, whatever arrives.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "peer/process.h"
#include "peer/turn.h"
#include "portability/instr_time.h"

#define SLICE 2000				/* µs */
#define WINDOW 60000000			/* µs: the longest turn is told of one to two
								 * of these */

/* a turn's length, or a time, in µs */
typedef struct TurnTimes
{
	uint64		elapsed;
	uint64		cpu;
} TurnTimes;

static instr_time slice_start;
static TurnTimes turn_start;
static uint64 window_start;
static TurnTimes longest;		/* in this window */
static TurnTimes longest_before;	/* in the one before */

static TurnTimes
read_clocks(void)
{
	TurnTimes	now;
	instr_time	elapsed;
	struct timespec cpu;

	INSTR_TIME_SET_CURRENT(elapsed);
	now.elapsed = INSTR_TIME_GET_MICROSEC(elapsed);
	now.cpu = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu) != 0 ? 0 :
		(uint64) cpu.tv_sec * 1000000 + cpu.tv_nsec / 1000;
	return now;
}

/*
 * Begin a turn of the event loop.
 */
void
rinq_turn_begin(void)
{
	turn_start = read_clocks();
}

/*
 * End the turn, and publish the length of the longest one.
 */
void
rinq_turn_end(void)
{
	TurnTimes	now = read_clocks();

	if (now.elapsed - window_start > WINDOW)
	{
		longest_before = longest;
		if (now.elapsed - window_start > 2 * (uint64) WINDOW)
			memset(&longest_before, 0, sizeof(longest_before));
		memset(&longest, 0, sizeof(longest));
		window_start = now.elapsed;
	}
	Assert(now.elapsed >= turn_start.elapsed);
	longest.elapsed = Max(longest.elapsed, now.elapsed - turn_start.elapsed);
	longest.cpu = Max(longest.cpu, now.cpu - turn_start.cpu);
	pg_atomic_write_u64(&rinq_peer.db->longest_turn,
						Max(longest.elapsed, longest_before.elapsed));
	pg_atomic_write_u64(&rinq_peer.db->longest_turn_cpu, Max(longest.cpu, longest_before.cpu));
}

/*
 * Begin the slice of one kind of work.
 */
void
rinq_slice_begin(void)
{
	INSTR_TIME_SET_CURRENT(slice_start);
}

/*
 * Tell whether the slice is over, and what is left has to wait for the next turn.
 */
bool
rinq_slice_over(void)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, slice_start);
	return INSTR_TIME_GET_MICROSEC(elapsed) >= SLICE;
}
