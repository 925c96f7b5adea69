/*-------------------------------------------------------------------------
 *
 * outbox_link.h
 *	  Having an outbox worker, and telling it what to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_OUTBOX_LINK_H
#define RINQ_PEER_SENDING_OUTBOX_LINK_H

#include "postgres.h"

#include "ipc/sendqueue.h"

#define RINQ_SENDER_RETRY 10	/* ms until something is tried again */

extern bool rinq_outbox_is_ours(void);
extern bool rinq_outbox_link_up(void);
extern bool rinq_outbox_link_lost(void);
extern uint32 rinq_outbox_link_losses(void);
extern bool rinq_outbox_tell(RinqChunkKind kind, const void *data, Size size, uint32 count);
extern bool rinq_outbox_tell_scan(uint32 number, uint32 round);
extern bool rinq_outbox_tell_check(uint32 rows);

#endif							/* RINQ_PEER_SENDING_OUTBOX_LINK_H */
