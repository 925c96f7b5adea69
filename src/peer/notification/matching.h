/*-------------------------------------------------------------------------
 *
 * matching.h
 *	  Notifications that arrive, and the sessions that they are for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_NOTIFICATION_MATCHING_H
#define RINQ_PEER_NOTIFICATION_MATCHING_H

#include "postgres.h"

#include "amqp/connection.h"

extern void rinq_notification(const RinqDelivery *delivery);
extern bool rinq_notifications_step(void);
extern void rinq_notifications_channel_lost(void);
extern void rinq_notifications_drop(void);

#endif							/* RINQ_PEER_NOTIFICATION_MATCHING_H */
