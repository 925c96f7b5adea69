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
#include "peer/session/sessions.h"

extern void rinq_server_request(const RinqDelivery *delivery);
extern void rinq_server_response(const RinqDelivery *delivery);
extern bool rinq_server_notification(const RinqDelivery *delivery, RinqSession * session,
									 const RinqListener *handler, RinqReceiveMode mode);

#endif							/* RINQ_PEER_COMMAND_SERVER_H */
