/*-------------------------------------------------------------------------
 *
 * sources.h
 *	  Questions about sessions of the mailbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_MAILBOX_SOURCES_H
#define RINQ_PEER_MAILBOX_SOURCES_H

#include "postgres.h"

#include "amqp/connection.h"
#include "ipc/sendqueue.h"

extern void rinq_sources_request(const RinqDelivery *delivery);
extern void rinq_sources_take(const RinqSourceRead * read);
extern void rinq_sources_worker_lost(void);
extern int64 rinq_sources_step(void);

#endif							/* RINQ_PEER_MAILBOX_SOURCES_H */
