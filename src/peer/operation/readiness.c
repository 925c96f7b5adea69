/*-------------------------------------------------------------------------
 *
 * readiness.c
 *	  Whether all that is configured is served: what rinq_wait_ready waits for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/broker.h"
#include "peer/notification/subscriptions.h"
#include "peer/operation/readiness.h"
#include "peer/process.h"
#include "peer/replacement.h"
#include "peer/topology/namespaces.h"

#define MAX_NAMED 10			/* of a kind, in words; the rest is counted */

/* Name one more thing of a kind. */
static void
append_name(StringInfo list, const char *kind, const char *name, int count)
{
	if (count == 0)
		appendStringInfo(list, "%s%s \"%s\"", list->len > 0 ? "; " : "", kind, name);
	else if (count < MAX_NAMED)
		appendStringInfo(list, ", \"%s\"", name);
}

static void
append_rest(StringInfo list, int count)
{
	if (count > MAX_NAMED)
		appendStringInfo(list, " and %d more", count - MAX_NAMED);
}

/* Append the namespaces that the broker does not deliver requests of yet. */
static void
append_namespaces(StringInfo list)
{
	int			count = 0;
	uint32		i;

	for (i = 0; i < rinq_topology_count(); i++)
	{
		const		RinqNamespace *ns = rinq_topology_at(i);

		if (ns->listener != NULL && !(ns->consuming && ns->consumed))
			append_name(list, "listeners to", ns->name, count++);
	}
	append_rest(list, count);
}

/* Append the subscriptions that notifications do not come to. */
static void
append_subscriptions(StringInfo list)
{
	const char *name;
	int			count = 0;
	int			i;

	for (i = 0; (name = rinq_durable_unready(i)) != NULL; i++)
		if (name[0] != '\0')
			append_name(list, "subscriptions", name, count++);
	append_rest(list, count);
}

/* Append the broker, when the connection is still that of an earlier server or settings. */
static void
append_broker(StringInfo list)
{
	if (rinq_peer_broker_problem() != NULL)
		appendStringInfo(list, "a foreign server that can be used (%s)", rinq_peer_broker_problem());
	else if (rinq_replacement_wanted())
		appendStringInfoString(list, "a connection to the broker that is configured now (see rinq_peer.last_error)");
}

/*
 * Append what is configured and not served yet, in words; nothing when all is.
 */
void
rinq_unready_list(StringInfo list)
{
	if (rinq_peer.db->config_serial != rinq_peer.config_seen)
	{
		appendStringInfoString(list, "the newest listeners and subscriptions");
		return;
	}
	append_broker(list);
	append_namespaces(list);
	append_subscriptions(list);
}
