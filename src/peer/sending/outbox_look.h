/*-------------------------------------------------------------------------
 *
 * outbox_look.h
 *	  Having messages that wait sent when their time has come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_OUTBOX_LOOK_H
#define RINQ_PEER_SENDING_OUTBOX_LOOK_H

#include "postgres.h"

extern void rinq_outbox_look_init(void);
extern int64 rinq_outbox_look_when_due(void);
extern void rinq_outbox_looked(void);
extern void rinq_outbox_look_worker_lost(void);

#endif							/* RINQ_PEER_SENDING_OUTBOX_LOOK_H */
