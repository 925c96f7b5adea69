/*-------------------------------------------------------------------------
 *
 * lanes.h
 *	  What waits for executors, by role, kind of work and namespace, and whose
 *	  turn it is.
 *
 * Private to dispatch.c and lanes.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_LANES_H
#define RINQ_LANES_H

#include "postgres.h"

#include "peer/command/delivery.h"
#include "peer/topology/namespaces.h"

typedef bool (*RinqLaneFilter) (const RinqInbound * request, void *arg);

extern void rinq_lanes_init(int num_slots);
extern int	rinq_lanes_add(RinqInbound * request, Oid role, RinqNamespace * ns);
extern RinqInbound * rinq_lanes_take(void);
extern void rinq_lanes_put_back(RinqInbound * request);
extern void rinq_lanes_dropped(RinqLane * lane);
extern void rinq_lanes_started(RinqInbound * request);
extern void rinq_lanes_ended(RinqLane * lane);
extern void rinq_lanes_extract(RinqLaneFilter wanted, void *arg, dlist_head *into);

#endif							/* RINQ_LANES_H */
