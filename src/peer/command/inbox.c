/*-------------------------------------------------------------------------
 *
 * inbox.c
 *	  Having commands handled that wait in the inbox for another attempt.
 *
 * Such a command takes the way of any other request of its namespace, so that the
 * limits of its listener and role hold; what it is, the executor finds in the
 * inbox.  One is on its way for each namespace with something due, and another
 * one when an executor has found that there is more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/command/dispatch.h"
#include "peer/command/due.h"
#include "peer/command/inbox.h"

/*
 * Have commands handled that are due in the inbox.  Returns when the next one
 * is, or 0.
 */
int64
rinq_inbox_step(void)
{
	RinqNamespace *ns;
	int64		next = 0;

	while ((ns = rinq_inbox_due_take(&next)) != NULL)
		rinq_dispatch_add(rinq_inbound_from_inbox(ns->name));
	return next;
}
