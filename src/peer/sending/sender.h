/*-------------------------------------------------------------------------
 *
 * sender.h
 *	  What the parts of the peer that send what transactions have committed ask
 *	  of each other.
 *
 *	sender.c	publishing, and the broker's confirmations
 *	intake.c	which messages are sent next; scans of the outbox
 *	sent.c		durable messages that were sent, until their rows are removed
 *	outbox_link.c	having an outbox worker, and telling it what to do
 *	outbox_watch.c	whether all of that is still right, and moves
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SENDER_H
#define RINQ_SENDER_H

#include "postgres.h"

#include "peer/peer.h"

#define RINQ_SENDER_RETRY 10	/* ms until something is tried again */

/* what is to be sent of a chunk */
typedef enum RinqPart
{
	RINQ_PART_ALL,
	RINQ_PART_PLAIN,			/* messages that are not durable */
	RINQ_PART_DURABLE			/* those that are */
} RinqPart;

/* a chunk that is being sent */
typedef struct RinqTaken
{
	dsa_pointer chunk;			/* invalid: none */
	RinqPart	part;
	bool		hold;			/* then the durable ones wait for a scan */
	uint32		round;			/* of the transaction, if so */
} RinqTaken;

/* intake.c */
extern void rinq_intake_init(void);
extern bool rinq_intake_next(RinqTaken * taken);
extern void rinq_intake_sent(RinqTaken * taken);
extern void rinq_intake_answers(RinqTaken * current);
extern int64 rinq_intake_scan(const RinqTaken * current);
extern bool rinq_intake_busy(void);
extern bool rinq_intake_scans(void);
extern void rinq_intake_worker_lost(void);
extern void rinq_intake_connection_lost(RinqTaken * current);
extern void rinq_intake_end(void);

/* sent.c */
typedef struct RinqSent RinqSent;

extern void rinq_sent_init(void);
extern RinqSent * rinq_sent_find(const RinqMessageId *id);
extern RinqSent * rinq_sent_begin(const RinqOutbound *outbound);
extern void rinq_sent_undo(RinqSent * message);
extern void rinq_sent_confirmed(RinqSent * message);
extern void rinq_sent_returned(RinqSent * message);
extern void rinq_sent_failed(RinqSent * message, const char *error);
extern void rinq_sent_refused(RinqSent * message, const char *error);
extern void rinq_sent_answered(const RinqMessageId *id, bool nack);
extern void rinq_sent_sift(RinqChunk *chunk);
extern void rinq_sent_removed(const RinqOutboxItem *items, uint32 count);
extern bool rinq_sent_see(const RinqOutboxItem *item);
extern bool rinq_sent_behind(void);
extern bool rinq_sent_any(void);
extern int64 rinq_sent_step(void);
extern void rinq_sent_worker_lost(void);
extern void rinq_sent_connection_lost(void);
extern void rinq_sent_note_error(const char *error);
extern void rinq_sent_retrying(int64 *count, int *attempts);
extern bool rinq_sent_waits_for_worker(void);

/* outbox_link.c */
extern bool rinq_outbox_link_up(void);
extern bool rinq_outbox_link_lost(void);
extern bool rinq_outbox_tell(RinqChunkKind kind, const void *data, Size size, uint32 count);
extern bool rinq_outbox_tell_scan(uint32 number, uint32 round);
extern bool rinq_outbox_tell_check(uint32 rows);

/* outbox_watch.c */
extern int64 rinq_outbox_watch(bool idle);
extern void rinq_outbox_listed(const RinqOutboxItem *items, uint32 count);
extern void rinq_outbox_watch_worker_lost(void);
extern void rinq_outbox_moved(void);
extern int64 rinq_outbox_look_for_stall(const char *reason);

#endif							/* RINQ_SENDER_H */
