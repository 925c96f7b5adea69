/*-------------------------------------------------------------------------
 *
 * server.h
 *	  Calls in, and what else arrives for executors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_SERVER_H
#define RINQ_PEER_COMMAND_SERVER_H

#include "postgres.h"

#include "amqp/connection.h"
#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "peer/command/delivery.h"
#include "peer/session/sessions.h"

/* room for fields of a notification that are not in its delivery */
typedef struct RinqNotificationTexts
{
	char		source[RINQ_REF_SIZE];
	char		target[RINQ_SESSION_ID_SIZE];
} RinqNotificationTexts;

extern void rinq_server_request(const RinqDelivery *delivery);
extern const char *rinq_server_outcome(const RinqMessage *msg);
extern void rinq_server_stored_outcome(const RinqMessageId *id, Oid role, bool redelivered,
									   void (*ended) (RinqInbound * request));
extern RinqInbound * rinq_server_mailbox_request(const RinqDelivery *delivery);
extern void rinq_server_mailbox_respond(RinqInbound * request, char type, RinqBytes response);
extern void rinq_server_response(const RinqDelivery *delivery);
extern bool rinq_server_notification_fields(RinqFields *fields, const RinqDelivery *delivery,
											const RinqSession * session,
											RinqNotificationTexts *texts);
extern bool rinq_server_notification(const RinqDelivery *delivery, const RinqSession * session,
									 const RinqListener *handler, RinqSubscriber * subscriber);

#endif							/* RINQ_PEER_COMMAND_SERVER_H */
