/*-------------------------------------------------------------------------
 *
 * burst.h
 *	  How often something happens.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_BURST_H
#define RINQ_BASE_BURST_H

#include "postgres.h"

/* how many events of a kind there were lately; all zero at first */
typedef struct RinqBurst
{
	int64		since;
	uint64		count;
} RinqBurst;

extern bool rinq_too_often(RinqBurst *burst, int64 now, int most);
extern bool rinq_may_log(RinqBurst *burst, int64 now, uint64 *suppressed);

#endif							/* RINQ_BASE_BURST_H */
