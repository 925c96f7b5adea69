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

extern void rinq_server_request(const RinqDelivery *delivery);
extern bool rinq_server_response(const RinqDelivery *delivery, const RinqListener *handler);
extern bool rinq_server_notification(const RinqDelivery *delivery, RinqSession * session,
									 const RinqListener *handler, RinqReceiveMode mode);
extern void rinq_server_respond_later(RinqInbound * request);
extern bool rinq_server_send_responses(void);

#endif							/* RINQ_PEER_COMMAND_SERVER_H */
