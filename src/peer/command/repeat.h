/*-------------------------------------------------------------------------
 *
 * repeat.h
 *	  What is run again by this peer, after a while.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_REPEAT_H
#define RINQ_PEER_COMMAND_REPEAT_H

#include "postgres.h"

#include "peer/command/delivery.h"

extern bool rinq_repeat_unfinished(RinqInbound * request);
extern void rinq_repeat_call(RinqInbound * request, int64 at);
extern RinqInbound * rinq_repeat_take(int64 *next);
extern void rinq_repeat_extract(bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
								dlist_head *into);

#endif							/* RINQ_PEER_COMMAND_REPEAT_H */
