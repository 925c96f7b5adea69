/*-------------------------------------------------------------------------
 *
 * dispatch.h
 *	  What has arrived and waits for executors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_DISPATCH_H
#define RINQ_PEER_COMMAND_DISPATCH_H

#include "postgres.h"

#include "peer/command/delivery.h"
#include "peer/session/sessions.h"

extern void rinq_dispatch_add(RinqInbound * request);
extern void rinq_dispatch_result(uint32 index, uint32 serial);
extern void rinq_dispatch_more_due(uint32 index, uint32 serial);
extern void rinq_dispatch_channel_lost(uint16 channel);
extern void rinq_dispatch_connection_lost(void);
extern void rinq_dispatch_configured(void);
extern void rinq_dispatch_session_ends(RinqSession * session);
extern void rinq_dispatch_role_failed(Oid role);
extern void rinq_dispatch_give_back_queued(void);
extern int64 rinq_dispatch_expire(void);

#endif							/* RINQ_PEER_COMMAND_DISPATCH_H */
