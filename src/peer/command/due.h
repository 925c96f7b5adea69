/*-------------------------------------------------------------------------
 *
 * due.h
 *	  When commands that wait in the inbox are due, by namespace; and when
 *	  notifications are, by subscription.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_DUE_H
#define RINQ_PEER_COMMAND_DUE_H

#include "postgres.h"

#include "peer/command/subscriber.h"
#include "peer/topology/namespaces.h"

/* one of these has something due */
typedef struct RinqDue
{
	RinqNamespace *ns;
	RinqSubscriber *subscriber;
} RinqDue;

extern void rinq_inbox_due_at(RinqNamespace * ns, int64 at);
extern void rinq_inbox_due_configured(void);
extern void rinq_inbox_subscriber_due_at(RinqSubscriber * subscriber, int64 at);
extern bool rinq_inbox_due_take(RinqDue * due, int64 *next);

#endif							/* RINQ_PEER_COMMAND_DUE_H */
