/*-------------------------------------------------------------------------
 *
 * notifications.h
 *	  Subscriptions of sessions: which session listens to which namespace.
 *
 *	notifications.c	has them, and publishes notifications
 *	matching.c		finds those that a notification that has arrived is for
 *
 * Private to these files.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_NOTIFICATIONS_H
#define RINQ_NOTIFICATIONS_H

#include "postgres.h"

#include "peer/peer.h"

/* one session's listening to one namespace */
struct RinqSubscription
{
	dlist_node	of_session;
	dlist_node	of_namespace;
	RinqSession *session;
	RinqNamespace *ns;
	RinqReceiveMode mode;
	RinqListener handler;		/* or the channel, in place of its name */
};

/* notifications.c */
extern RinqSubscription * rinq_subscription_find(const RinqSession * session,
												 const RinqNamespace * ns);
extern void rinq_subscription_scan_begin(RinqNamespace * ns);
extern RinqSubscription * rinq_subscription_scan_next(void);
extern void rinq_subscription_scan_end(void);

#endif							/* RINQ_NOTIFICATIONS_H */
