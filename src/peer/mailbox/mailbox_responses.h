/*-------------------------------------------------------------------------
 *
 * mailbox_responses.h
 *	  Answers to durable calls, and the calls' handlers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_MAILBOX_RESPONSES_H
#define RINQ_PEER_MAILBOX_RESPONSES_H

#include "postgres.h"

#include "amqp/connection.h"

extern void rinq_mailbox_responses_init(void);
extern void rinq_mailbox_delivery(const RinqDelivery *delivery);
extern void rinq_mailbox_responses_lost(void);
extern int64 rinq_mailbox_responses_step(void);

#endif							/* RINQ_PEER_MAILBOX_RESPONSES_H */
