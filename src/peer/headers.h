/*-------------------------------------------------------------------------
 *
 * headers.h
 *	  Headers that messages of all kinds have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_HEADERS_H
#define RINQ_PEER_HEADERS_H

#include "postgres.h"

#include "amqp/message.h"
#include "base/bytes.h"

#define RINQ_EXPIRATION_SIZE 24

extern void rinq_message_set_deadline(RinqMessage *msg, int64 deadline,
									  char expiration[RINQ_EXPIRATION_SIZE]);
extern void rinq_message_set_trace(RinqMessage *msg, RinqBytes trace);

#endif							/* RINQ_PEER_HEADERS_H */
