/*-------------------------------------------------------------------------
 *
 * turn.h
 *	  Sharing the peer's time: turns of the event loop, and slices of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TURN_H
#define RINQ_PEER_TURN_H

#include "postgres.h"

extern void rinq_turn_begin(void);
extern void rinq_turn_end(void);
extern void rinq_slice_begin(void);
extern bool rinq_slice_over(void);

#endif							/* RINQ_PEER_TURN_H */
