/*-------------------------------------------------------------------------
 *
 * follow.h
 *	  Keeping up with the primary, for the launcher of a standby.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_FOLLOW_H
#define RINQ_WORKER_FOLLOW_H

#include "postgres.h"

extern void rinq_follow_begin(void);
extern bool rinq_is_following(void);
extern void rinq_look_again(bool recheck);
extern long rinq_follow_primary(void);

#endif							/* RINQ_WORKER_FOLLOW_H */
