/*-------------------------------------------------------------------------
 *
 * respond.h
 *	  Responding to requests that have arrived.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_RESPOND_H
#define RINQ_PEER_COMMAND_RESPOND_H

#include "postgres.h"

#include "base/bytes.h"
#include "ipc/slots.h"
#include "peer/command/delivery.h"

extern bool rinq_inbound_respond_error(RinqInbound * request, const char *text);
extern bool rinq_inbound_result(RinqSlot *slot, RinqInbound * request);
extern void rinq_inbound_respond_soon(RinqInbound * request);
extern bool rinq_inbound_too_many_unsent(void);
extern bool rinq_inbound_send_responses(void);

#endif							/* RINQ_PEER_COMMAND_RESPOND_H */
