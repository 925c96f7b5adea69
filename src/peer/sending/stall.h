/*-------------------------------------------------------------------------
 *
 * stall.h
 *	  Whether messages that are to be sent move.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_STALL_H
#define RINQ_PEER_SENDING_STALL_H

#include "postgres.h"

extern void rinq_outbox_moved(void);
extern int64 rinq_outbox_look_for_stall(const char *reason);

#endif							/* RINQ_PEER_SENDING_STALL_H */
