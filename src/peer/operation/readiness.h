/*-------------------------------------------------------------------------
 *
 * readiness.h
 *	  Whether all that is configured is served.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_OPERATION_READINESS_H
#define RINQ_PEER_OPERATION_READINESS_H

#include "lib/stringinfo.h"

extern void rinq_unready_list(StringInfo list);

#endif							/* RINQ_PEER_OPERATION_READINESS_H */
