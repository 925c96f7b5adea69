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

typedef struct RinqDemand
{
	Oid			role;
	int64		oldest;			/* when its oldest request came into the
								 * dispatch queue */
} RinqDemand;

extern void rinq_dispatch_add(RinqInbound * request);
extern int	rinq_dispatch_demand(RinqDemand * demand, int max);
extern void rinq_dispatch_init(void);
extern void rinq_dispatch_result(uint32 index, uint32 serial);
extern void rinq_dispatch_channel_lost(uint16 channel);
extern void rinq_dispatch_connection_lost(void);
extern void rinq_dispatch_configured(void);
extern void rinq_dispatch_session_ends(RinqSession * session);
extern void rinq_dispatch_role_failed(Oid role);
extern void rinq_dispatch_give_back_queued(void);
extern int64 rinq_dispatch_expire(void);
extern bool rinq_dispatch_busy(void);

#endif							/* RINQ_PEER_COMMAND_DISPATCH_H */
