/*-------------------------------------------------------------------------
 *
 * intake.h
 *	  Which of the messages that transactions have committed are sent next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_INTAKE_H
#define RINQ_PEER_SENDING_INTAKE_H

#include "postgres.h"

#include "ipc/sendqueue.h"

/* what is to be sent of a chunk */
typedef enum RinqPart
{
	RINQ_PART_ALL,
	RINQ_PART_PLAIN,			/* messages that are not durable */
	RINQ_PART_DURABLE			/* the durable ones */
} RinqPart;

/* a chunk that is being sent */
typedef struct RinqTaken
{
	dsa_pointer chunk;			/* invalid: none */
	RinqPart	part;
	bool		defer;			/* then the durable ones wait for a scan */
	uint32		round;			/* of the transaction, if so */
} RinqTaken;

/* takes what the outbox worker reports of other things than messages */
typedef void (*RinqReportTaker) (RinqChunk *chunk);

extern void rinq_intake_set_taker(RinqReportTaker taker);
extern void rinq_intake_init(void);
extern bool rinq_intake_next(RinqTaken * taken);
extern void rinq_intake_sent(RinqTaken * taken);
extern void rinq_intake_reports(RinqTaken * current);
extern int64 rinq_intake_scan(const RinqTaken * current);
extern bool rinq_intake_busy(void);
extern bool rinq_intake_scans(void);
extern void rinq_intake_worker_lost(void);
extern void rinq_intake_connection_lost(RinqTaken * current);
extern void rinq_intake_end(void);

#endif							/* RINQ_PEER_SENDING_INTAKE_H */
