/*-------------------------------------------------------------------------
 *
 * session_results.h
 *	  What operations on sessions end with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_OPERATION_SESSION_RESULTS_H
#define RINQ_PEER_OPERATION_SESSION_RESULTS_H

#include "postgres.h"

#include "ipc/slots.h"
#include "protocol/attribute.h"

extern void rinq_session_finish(uint32 index, RinqOutcome outcome, RinqBytes detail);
extern void rinq_session_finish_ref(uint32 index, const RinqRef *ref);
extern void rinq_session_finish_attributes(uint32 index, const RinqAttribute *attributes,
										   int count);

#endif							/* RINQ_PEER_OPERATION_SESSION_RESULTS_H */
