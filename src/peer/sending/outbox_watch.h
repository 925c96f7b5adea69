/*-------------------------------------------------------------------------
 *
 * outbox_watch.h
 *	  Whether what the peer knows of the outbox is right.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_OUTBOX_WATCH_H
#define RINQ_PEER_SENDING_OUTBOX_WATCH_H

#include "postgres.h"

#include "ipc/sendqueue.h"

extern int64 rinq_outbox_watch(bool idle, bool scans);
extern int64 rinq_outbox_watch_space(void);
extern int64 rinq_outbox_watch_records(void);
extern void rinq_outbox_watch_reload(void);
extern void rinq_outbox_listed(const RinqOutboxItem *items, uint32 count);
extern void rinq_outbox_watch_worker_lost(void);

#endif							/* RINQ_PEER_SENDING_OUTBOX_WATCH_H */
