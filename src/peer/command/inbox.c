/*-------------------------------------------------------------------------
 *
 * inbox.c
 *	  Having commands and notifications handled that wait in the inbox for another
 *	  attempt.
 *
 * Such a command takes the way of any other request of its namespace, so that the
 * limits of its listener and role hold, and a notification that of others of its
 * subscription; what it is, the executor finds in the inbox.  One is on its way for
 * each namespace or subscription with something due, and another one when an
 * executor has taken that, and has found that there is more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/command/dispatch.h"
#include "peer/command/due.h"
#include "peer/command/inbox.h"
#include "peer/command/request_slots.h"

/* Have the first one that is due handled, unless one is on its way that will find it: no executor has that yet. */
static void
ask_for_due(const char *namespace, RinqSubscriber * subscriber, RinqInbound * *asking)
{
	if (*asking != NULL && !rinq_is_in_executor(*asking))
		return;
	*asking = rinq_inbound_from_inbox(namespace, subscriber);
	rinq_dispatch_add(*asking);
}

/*
 * Have what is due in the inbox handled.  Returns when the next one is, or 0.
 */
int64
rinq_inbox_step(void)
{
	RinqDue		due;
	int64		next = 0;

	while (rinq_inbox_due_take(&due, &next))
	{
		if (due.ns != NULL)
			ask_for_due(due.ns->name, NULL, &due.ns->asking);
		else
			ask_for_due(due.subscriber->listener->namespace, due.subscriber, &due.subscriber->asking);
	}
	return next;
}
