/*-------------------------------------------------------------------------
 *
 * sender.h
 *	  Sending what transactions have committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_SENDER_H
#define RINQ_PEER_SENDING_SENDER_H

#include "postgres.h"

#include "amqp/connection.h"

extern void rinq_sender_init(void);
extern int64 rinq_sender_step(bool calls);
extern bool rinq_sender_streams(void);
extern bool rinq_sender_busy(void);
extern void rinq_sender_opened(void);
extern void rinq_sender_connection_lost(void);
extern void rinq_sender_returned(const RinqReturn *ret);
extern void rinq_sender_end(void);

#endif							/* RINQ_PEER_SENDING_SENDER_H */
