/*-------------------------------------------------------------------------
 *
 * bindings.c
 *	  What is asked of the broker for exchanges, queues and bindings: by which names,
 *	  and with which cookies.
 *
 * Nothing is remembered here, and nothing decided: when and on which channel, and
 * what a reply means, is said by those who ask.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/namespaces.h"

static const struct
{
	const char *name;
	const char *kind;
}			exchanges[] = {
	{"cmd.bal", "direct"},
	{"cmd.uc", "direct"},
	{"cmd.mc", "direct"},
	{"cmd.rsp", "topic"},
	{"ntf.uc", "direct"},
	{"ntf.mc", "direct"}
};

/*
 * Write the name of one of the peer's own queues, by its suffix.
 */
RinqBytes
rinq_own_queue(const char *suffix, char buf[RINQ_OWN_QUEUE_SIZE])
{
	snprintf(buf, RINQ_OWN_QUEUE_SIZE, "%s%s", rinq_peer.short_text, suffix);
	return rinq_bytes_str(buf);
}

/*
 * Write the name of a namespace's queue, which all peers share.
 */
RinqBytes
rinq_command_queue(const RinqNamespace * ns, char buf[RINQ_COMMAND_QUEUE_SIZE])
{
	snprintf(buf, RINQ_COMMAND_QUEUE_SIZE, "cmd.%s", ns->name);
	return rinq_bytes_str(buf);
}

static void
bind_own(const char *suffix, const char *exchange, const char *key, uint64 cookie)
{
	char		queue[RINQ_OWN_QUEUE_SIZE];

	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(suffix, queue),
					rinq_bytes_str(exchange), rinq_bytes_str(key), cookie);
}

/* Declare one of the exchanges, or bind one of the peer's own queues. */
static void
declare_own(int number, uint64 cookie)
{
	char		all_responses[RINQ_PEER_ID_SIZE + 2];

	switch (number - (int) lengthof(exchanges))
	{
		case 0:
			bind_own(".req", "cmd.uc", rinq_peer.id_text, cookie);
			break;
		case 1:
			bind_own(".req", "cmd.mc", "_sess", cookie);
			break;
		case 2:
			snprintf(all_responses, sizeof(all_responses), "%s.*", rinq_peer.id_text);
			bind_own(".rsp", "cmd.rsp", all_responses, cookie);
			break;
		default:
			rinq_exchange_declare(rinq_peer.conn, CHANNEL_TOPOLOGY,
								  rinq_bytes_str(exchanges[number].name),
								  rinq_bytes_str(exchanges[number].kind),
								  rinq_declare_exchanges == RINQ_DECLARE_PASSIVE, cookie);
			break;
	}
}

/*
 * Declare exchanges, and bind the peer's own queues to them; or do so again,
 * should any have been deleted, from a number on.
 */
void
rinq_declare_own(bool again, int first)
{
	int			last = (int) lengthof(exchanges) + 2;
	int			i;

	for (i = first; i <= last; i++)
		declare_own(i, RINQ_COOKIE(again ? STEP_AGAIN_OWN : i < last ? STEP_SETUP : STEP_SETUP_LAST, i));
}

/*
 * Bind the queue of notifications for a namespace; the replies have these steps.
 */
void
rinq_bind_notifications(RinqNamespace * ns, int step, int last_step)
{
	char		own[RINQ_OWN_QUEUE_SIZE];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	snprintf(key, sizeof(key), "%s.%s", ns->name, rinq_peer.id_text);
	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".ntf", own),
					rinq_bytes_str("ntf.uc"), rinq_bytes_str(key), RINQ_COOKIE(step, ns->index));
	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".ntf", own),
					rinq_bytes_str("ntf.mc"), rinq_bytes_str(ns->name),
					RINQ_COOKIE(last_step, ns->index));
}

/*
 * Undo the binding for notifications of a namespace.
 */
void
rinq_unbind_notifications(RinqNamespace * ns)
{
	char		own[RINQ_OWN_QUEUE_SIZE];
	char		key[RINQ_NAMESPACE_MAXLEN + RINQ_PEER_ID_SIZE + 2];

	snprintf(key, sizeof(key), "%s.%s", ns->name, rinq_peer.id_text);
	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".ntf", own),
					  rinq_bytes_str("ntf.uc"), rinq_bytes_str(key),
					  RINQ_COOKIE(STEP_NAMESPACE, ns->index));
	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".ntf", own),
					  rinq_bytes_str("ntf.mc"), rinq_bytes_str(ns->name),
					  RINQ_COOKIE(STEP_NAMESPACE, ns->index));
}

/*
 * Declare and bind a namespace's queue, unbound before if that is asked for; the
 * replies have these steps.
 */
void
rinq_bind_command_queue(RinqNamespace * ns, uint16 channel, int step, int last_step)
{
	char		buf[RINQ_COMMAND_QUEUE_SIZE];
	RinqBytes	queue = rinq_command_queue(ns, buf);

	/*
	 * A broker takes no type for "classic", unless its default is another
	 * one: so peers that do not send the argument agree, and hosts on which
	 * queues are quorum queues by default, which have no x-max-priority,
	 * work.
	 */
	rinq_queue_declare(rinq_peer.conn, channel, queue, true, false, 3, "classic",
					   RINQ_COOKIE(step, ns->index));
	if (ns->unbind_first)
		rinq_queue_unbind(rinq_peer.conn, channel, queue, rinq_bytes_str("cmd.bal"),
						  rinq_bytes_str(ns->name), RINQ_COOKIE(step, ns->index));
	rinq_queue_bind(rinq_peer.conn, channel, queue, rinq_bytes_str("cmd.bal"),
					rinq_bytes_str(ns->name), RINQ_COOKIE(last_step, ns->index));
}

/*
 * Bind the queue of requests to those that all peers of a namespace get.
 */
void
rinq_bind_multicast(RinqNamespace * ns, int step)
{
	char		own[RINQ_OWN_QUEUE_SIZE];

	rinq_queue_bind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".req", own),
					rinq_bytes_str("cmd.mc"), rinq_bytes_str(ns->name), RINQ_COOKIE(step, ns->index));
}

/*
 * Undo the binding to requests that all peers of a namespace get.
 */
void
rinq_unbind_multicast(RinqNamespace * ns)
{
	char		own[RINQ_OWN_QUEUE_SIZE];

	rinq_queue_unbind(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_own_queue(".req", own),
					  rinq_bytes_str("cmd.mc"), rinq_bytes_str(ns->name),
					  RINQ_COOKIE(STEP_NAMESPACE, ns->index));
}
