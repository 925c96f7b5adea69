/*-------------------------------------------------------------------------
 *
 * answers.h
 *	  Answers to durable calls, and the calls' handlers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_MAILBOX_ANSWERS_H
#define RINQ_PEER_MAILBOX_ANSWERS_H

#include "postgres.h"

#include "amqp/connection.h"

extern void rinq_answers_init(void);
extern void rinq_answers_delivery(const RinqDelivery *delivery);
extern void rinq_answers_channel_lost(void);
extern int64 rinq_answers_step(void);

#endif							/* RINQ_PEER_MAILBOX_ANSWERS_H */
