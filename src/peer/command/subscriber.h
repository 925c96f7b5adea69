/*-------------------------------------------------------------------------
 *
 * subscriber.h
 *	  Durable subscriptions, as those that run their handlers know them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_SUBSCRIBER_H
#define RINQ_PEER_COMMAND_SUBSCRIBER_H

#include "postgres.h"

#include "ipc/listener_config.h"
#include "lib/ilist.h"

typedef struct RinqSubscriber
{
	char		name[RINQ_MAX_SUBSCRIPTION_NAME + 1];	/* hash key */
	uint64		number;			/* that no other one has had */
	const RinqListener *listener;	/* how its notifications are handled now;
									 * NULL: there is no such subscription any
									 * more */
	int64		due;			/* when one of its notifications that wait in
								 * the inbox may be due; 0 is never */
	dlist_node	node;			/* while that is not 0 */
	struct RinqInbound *asking; /* the latest one on its way to an executor
								 * that looks what is due, NULL for none */
	int			uses;			/* notifications that are on their way */
	int64		problem_noted;	/* when its problem was logged */
} RinqSubscriber;

extern void rinq_subscribers_begin(void);
extern RinqSubscriber * rinq_subscriber_configure(const char *name, const RinqListener *listener);
extern void rinq_subscribers_end(void);
extern void rinq_subscriber_use(RinqSubscriber * subscriber);
extern void rinq_subscriber_release(RinqSubscriber * subscriber);
extern bool rinq_subscriber_keeps(const RinqSubscriber * subscriber);
extern void rinq_subscriber_due_at(RinqSubscriber * subscriber, int64 at);
extern RinqSubscriber * rinq_subscriber_take_due(int64 time);
extern void rinq_subscribers_due_at(int64 at);
extern int64 rinq_subscriber_next_due(void);
extern void rinq_subscribers_due_configured(void);

#endif							/* RINQ_PEER_COMMAND_SUBSCRIBER_H */
