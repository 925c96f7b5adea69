/*-------------------------------------------------------------------------
 *
 * notifications.h
 *	  Subscriptions of sessions: which session listens to which namespace.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_NOTIFICATION_NOTIFICATIONS_H
#define RINQ_PEER_NOTIFICATION_NOTIFICATIONS_H

#include "postgres.h"

#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "lib/stringinfo.h"
#include "peer/command/subscriber.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"

/* one session's listening to one namespace */
typedef struct RinqSubscription
{
	dlist_node	of_session;
	dlist_node	of_namespace;
	RinqSession *session;
	RinqNamespace *ns;
	RinqReceiveMode mode;
	RinqListener handler;		/* with a handler or a channel, or neither */
	RinqSubscriber *subscriber; /* the durable subscription that the session
								 * listens for, NULL for none */
} RinqSubscription;

extern RinqSubscription * rinq_subscription_find(const RinqSession * session,
												 const RinqNamespace * ns);
extern void rinq_subscription_scan_begin(RinqNamespace * ns);
extern RinqSubscription * rinq_subscription_scan_next(void);
extern void rinq_subscription_scan_end(void);

extern void rinq_notifications_subscribe(RinqSession * session, RinqNamespace * ns, RinqReceiveMode mode,
										 RinqBytes name, Oid role, Oid owner);
extern void rinq_notifications_subscribe_durably(RinqSession * session, RinqNamespace * ns,
												 const RinqListener *listener, RinqSubscriber * subscriber);
extern bool rinq_notifications_unsubscribe(RinqSession * session, RinqNamespace * ns);
extern void rinq_notifications_unsubscribe_all(RinqSession * session);
extern bool rinq_buffers_notifications(const RinqSession * session);
extern void rinq_subscriptions_list(const RinqSession * session, StringInfo list);

#endif							/* RINQ_PEER_NOTIFICATION_NOTIFICATIONS_H */
