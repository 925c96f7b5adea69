/*-------------------------------------------------------------------------
 *
 * hooks.c
 *	  What happens in one part of the peer, and concerns parts above it.
 *
 * Sessions and the topology know nothing of those who use them: they announce
 * what happens through hooks, and here it says, in order, who has to hear of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/command/dispatch.h"
#include "peer/command/invoker.h"
#include "peer/hooks.h"
#include "peer/mailbox/mailbox_responses.h"
#include "peer/notification/buffer.h"
#include "peer/notification/matching.h"
#include "peer/notification/notifications.h"
#include "peer/notification/session_index.h"
#include "peer/notification/subscriptions.h"
#include "peer/operation/session_requests.h"
#include "peer/process.h"
#include "peer/sending/sent.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"

/* ---------------- sessions ---------------- */

static void
on_session_ended(RinqSession * session)
{
	rinq_notifications_unsubscribe_all(session);
	rinq_dispatch_session_ends(session);
	rinq_buffer_session_ends(session);
	rinq_durable_look(session);
}

static void
on_session_changed(RinqSession * session, RinqBytes namespace, const RinqBytes *key)
{
	if (key == NULL)
		rinq_index_namespace_changed(session, namespace);
	else
		rinq_index_changed(session, namespace, *key);
}

static const RinqSessionHooks session_hooks = {
	.ended = on_session_ended,
	.changed = on_session_changed
};

/* ---------------- topology ---------------- */

static void
on_binding_refused(RinqNamespace * ns)
{
	rinq_durable_retry();
}

static void
on_channel_lost(uint16 channel)
{
	if (channel == CHANNEL_NOTIFICATIONS)
		rinq_notifications_channel_lost();
	else if (channel == CHANNEL_MAILBOX)
		rinq_mailbox_responses_lost();
	else if (channel == CHANNEL_COMMANDS || channel >= CHANNEL_NAMESPACES)
		rinq_dispatch_channel_lost(channel);
}

static void
on_declared(RinqNamespace * ns, RinqOutcome outcome, const char *error)
{
	rinq_invoker_declared(ns, outcome, error);
	if (outcome == RINQ_OUTCOME_SUCCESS && ns->wanted)
		rinq_sent_queue_is_there();
}

static const RinqTopologyHooks topology_hooks = {
	.declared = on_declared,
	.overdue = rinq_invoker_declaring,
	.bound = rinq_operations_bound,
	.binding_refused = on_binding_refused,
	.channel_lost = on_channel_lost
};

/*
 * Make the parts that announce something, with those who hear of it.
 */
void
rinq_hooks_init(void)
{
	rinq_sessions_init(&session_hooks);
	rinq_topology_init(&topology_hooks);
	rinq_mailbox_responses_init();
}
