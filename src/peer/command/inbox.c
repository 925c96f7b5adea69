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
 * executor has found that there is more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/command/dispatch.h"
#include "peer/command/due.h"
#include "peer/command/inbox.h"

/*
 * Have what is due in the inbox handled.  Returns when the next one is, or 0.
 */
int64
rinq_inbox_step(void)
{
	RinqDue		due;
	int64		next = 0;

	while (rinq_inbox_due_take(&due, &next))
		rinq_dispatch_add(due.ns != NULL ? rinq_inbound_from_inbox(due.ns->name, NULL) :
						  rinq_inbound_from_inbox(due.subscriber->listener->namespace, due.subscriber));
	return next;
}
