/*-------------------------------------------------------------------------
 *
 * notification.h
 *	  Publishing notifications.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_NOTIFICATION_H
#define RINQ_PEER_SENDING_NOTIFICATION_H

#include "postgres.h"

#include "amqp/message.h"
#include "ipc/sendqueue.h"

extern RinqMsgStatus rinq_notification_publish(const RinqOutbound *notification,
											   const RinqFields *fields);

#endif							/* RINQ_PEER_SENDING_NOTIFICATION_H */
