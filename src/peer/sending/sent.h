/*-------------------------------------------------------------------------
 *
 * sent.h
 *	  Durable messages that were sent, until their rows are removed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_SENT_H
#define RINQ_PEER_SENDING_SENT_H

#include "postgres.h"

#include "ipc/sendqueue.h"

typedef struct RinqSent RinqSent;

extern void rinq_sent_init(void);
extern RinqSent * rinq_sent_find(const RinqMessageId *id);
extern RinqSent * rinq_sent_begin(const RinqOutbound *outbound);
extern void rinq_sent_undo(RinqSent * message);
extern void rinq_sent_confirmed(RinqSent * message);
extern void rinq_sent_postponed(RinqSent * message);
extern void rinq_sent_returned(RinqSent * message);
extern void rinq_sent_failed(RinqSent * message, const char *error);
extern void rinq_sent_waits(RinqSent * message, const char *error);
extern void rinq_sent_queue_is_there(void);
extern void rinq_sent_refused(RinqSent * message, const char *error, bool for_good);
extern void rinq_sent_reported(const RinqMessageId *id, bool nack);
extern void rinq_sent_expect(RinqChunk *chunk);
extern void rinq_sent_sift(RinqChunk *chunk);
extern void rinq_sent_removed(const RinqOutboxItem *items, uint32 count);
extern bool rinq_sent_see(const RinqOutboxItem *item);
extern bool rinq_sent_behind(void);
extern bool rinq_sent_any(void);
extern int64 rinq_sent_step(void);
extern void rinq_sent_worker_lost(void);
extern void rinq_sent_connection_lost(void);
extern void rinq_sent_dropped(const char *error);
extern void rinq_sent_retrying(int64 *count, int *attempts);
extern bool rinq_sent_waits_for_worker(void);

#endif							/* RINQ_PEER_SENDING_SENT_H */
