/*-------------------------------------------------------------------------
 *
 * mailbox.h
 *	  The mailbox: queues that outlive connections, and belong to a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_MAILBOX_H
#define RINQ_PEER_TOPOLOGY_MAILBOX_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/ident.h"

extern void rinq_mailbox_configure(const RinqPeerId *id, bool used);
extern bool rinq_mailbox_owns(const RinqPeerId *peer);
extern void rinq_mailbox_want(void);
extern bool rinq_mailbox_wanted(void);
extern bool rinq_mailbox_ready(void);
extern bool rinq_mailbox_is_request(RinqBytes consumer_tag);
extern bool rinq_mailbox_is_taken(char id[RINQ_PEER_ID_SIZE]);

extern void rinq_mailbox_open(void);
extern void rinq_mailbox_opened(void);
extern void rinq_mailbox_mend(void);
extern void rinq_mailbox_stop(void);
extern bool rinq_mailbox_cancelled(RinqBytes consumer_tag);
extern void rinq_mailbox_channel_closed(const RinqAmqpChannelClosed *info);
extern void rinq_mailbox_connection_lost(void);
extern int64 rinq_mailbox_step(void);

#endif							/* RINQ_PEER_TOPOLOGY_MAILBOX_H */
