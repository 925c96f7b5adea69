/*-------------------------------------------------------------------------
 *
 * order.h
 *	  Requests that are handled one at a time for each value of their payload, and
 *	  notifications, which are for each session or durable subscription.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_ORDER_H
#define RINQ_PEER_COMMAND_ORDER_H

#include "postgres.h"

#include "peer/command/delivery.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"

extern bool rinq_order_waits(RinqInbound * request, const RinqNamespace * ns);
extern void rinq_order_leave(RinqInbound * request);
extern RinqInbound * rinq_order_next(void);
extern bool rinq_order_extract_session(const RinqSession * session,
									   bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
									   dlist_head *into);
extern void rinq_order_extract(bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
							   dlist_head *into);

#endif							/* RINQ_PEER_COMMAND_ORDER_H */
