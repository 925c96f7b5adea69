/*-------------------------------------------------------------------------
 *
 * refuse.c
 *	  Requests whose handlers cannot be run, for a reason that is known.
 *
 * A caller is told so.  Commands, of which no caller hears, and notifications
 * that are kept go to an executor without a role, which writes them down.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "peer/command/refuse.h"
#include "peer/command/respond.h"
#include "peer/process.h"

#define PROBLEM_INTERVAL 5000	/* ms between looks at a listener with a
								 * problem */

/* requests that the connection had no room to refuse */
static dlist_head refused = DLIST_STATIC_INIT(refused);

/*
 * Log that a listener cannot be served, unless that was lately, and look into it
 * again: of the end of the reason, this process is not told.
 */
static void
note_refusal(const char *what, const char *name, const RinqListener *listener, int64 *noted)
{
	if (*noted != 0 && rinq_peer.now - *noted < PROBLEM_INTERVAL)
		return;
	*noted = rinq_peer.now;
	ereport(LOG,
			(errmsg("rinq cannot run the handler of %s \"%s\": %s", what, name, listener->problem)));
	rinq_peer_ask_for_reading();
}

/*
 * Note, now and then, that the requests of a namespace are refused.
 */
void
rinq_refuse_note(RinqNamespace * ns)
{
	note_refusal("namespace", ns->name, ns->listener, &ns->problem_noted);
}

/*
 * Note the same of the notifications of a subscription.
 */
void
rinq_refuse_note_subscriber(RinqSubscriber * subscriber)
{
	note_refusal("subscription", subscriber->name, subscriber->listener, &subscriber->problem_noted);
}

/*
 * Return the role of the executors that get requests of a listener: none, if its
 * handler cannot be run, since it is only written down then that they failed.
 */
Oid
rinq_refuse_role(const RinqListener *listener)
{
	return listener->problem != NULL ? InvalidOid : listener->role;
}

/* Respond that the handler cannot be run; false when the connection has no room for it. */
static bool
respond_refusal(RinqInbound * request)
{
	if (!rinq_inbound_respond_error(request, "the handler cannot be run"))
		return false;
	rinq_count(rinq_peer.db, RINQ_REQUESTS_UNHANDLED);
	return true;
}

/*
 * Tell the caller of a request that its handler cannot be run, as soon as the
 * connection has room for it.
 */
void
rinq_refuse_request(RinqInbound * request)
{
	if (!respond_refusal(request))
		dlist_push_tail(&refused, &request->node);
}

/*
 * Refuse those that wait, as far as the connection has room; of one that is over,
 * its end is all that there is to settle.  Returns whether some still wait.
 */
bool
rinq_refuse_step(void)
{
	while (!dlist_is_empty(&refused))
	{
		RinqInbound *request = dlist_container(RinqInbound, node, dlist_pop_head_node(&refused));

		if (respond_refusal(request))
			continue;
		dlist_push_head(&refused, &request->node);
		return true;
	}
	return false;
}
