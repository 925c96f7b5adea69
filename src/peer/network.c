/*-------------------------------------------------------------------------
 *
 * network.c
 *	  The connection to the broker: making it, reserving the peer's identity,
 *	  noticing its loss, and making it again.
 *
 * Nothing here waits; all of it is states that the event loop moves on.  Each
 * connection has a new identity, reserved on the broker by exclusive queues:
 * if another peer has one of them, another random number is tried.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/backoff.h"
#include "base/burst.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "peer/attempts.h"
#include "peer/broker.h"
#include "peer/command/dispatch.h"
#include "peer/command/invoker.h"
#include "peer/command/pending_calls.h"
#include "peer/command/server.h"
#include "peer/encryption.h"
#include "peer/mailbox/mailbox_responses.h"
#include "peer/network.h"
#include "peer/notification/matching.h"
#include "peer/notification/subscriptions.h"
#include "peer/process.h"
#include "peer/replacement.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sender.h"
#include "peer/session/sessions.h"
#include "peer/topology/bindings.h"
#include "peer/topology/consume.h"
#include "peer/topology/topology.h"
#include "peer/turn.h"
#include "pgstat.h"
#include "utils/memutils.h"

#define STABLE_AFTER 10000		/* ms a connection lasts before it counts as
								 * good */
#define MAX_ID_ATTEMPTS 1000
#define MAX_FRAMES 64			/* handled before other work gets its turn */
#define MAX_BLOCKS_LOGGED 10	/* changes in a few seconds */
#define CHANGED "address or password of the broker was changed"

/* cookies of the requests that reserve the identity, beside topology/bindings.h's */
#define STEP_IDENTITY 16
#define IDENTITY_COOKIE(n) (((uint64) STEP_IDENTITY << 32) | (uint64) (n))
#define IS_IDENTITY(cookie) (((cookie) >> 32) == STEP_IDENTITY)

static const char *const own_suffixes[] = {"", ".req", ".rsp", ".ntf"};

static int	delay;				/* ms, before the next attempt */
static int	lost_delay;			/* what it was when a connection was lost the
								 * last time */
static int64 next_attempt;
static int64 connected_at;
static int	id_attempts;
static int64 setup_deadline;	/* for all that comes between login and ready */
static char broker[RINQ_BROKER_DESCRIBE_SIZE];	/* the host that is used, or
												 * tried */
static char told_error[RINQ_LAST_ERROR_LEN];	/* last one in the log */
static RinqBroker in_use;		/* what the connection was made with, or the
								 * last round of attempts */
static char server_in_use[NAMEDATALEN]; /* that names it; empty: the settings
										 * do */
static bool lost;				/* the next round is the first after a loss */


static void
set_state(RinqNetState state, const char *error)
{
	RinqStatus *status = &rinq_peer.db->status;
	TimestampTz now = GetCurrentTimestamp();
	const char *version = state == RINQ_NET_CONNECTED ? rinq_conn_server_version(rinq_peer.conn) : "";
	bool		blocked = rinq_peer.conn != NULL && rinq_conn_blocked(rinq_peer.conn);
	RinqEncryption encryption;

	memset(&encryption, 0, sizeof(encryption));
	if (state == RINQ_NET_CONNECTED)
		rinq_encryption_describe(rinq_peer.conn, &encryption);

	SpinLockAcquire(&rinq_peer.db->mutex);
	status->net = state;
	status->blocked = blocked;
	strlcpy(status->broker, broker, sizeof(status->broker));
	status->encryption = encryption;
	strlcpy(status->server, server_in_use, sizeof(status->server));
	if (state == RINQ_NET_CONNECTED)
	{
		strlcpy(status->peer_id, rinq_peer.id_text, sizeof(status->peer_id));
		strlcpy(status->broker_version, version, sizeof(status->broker_version));
		status->connected_since = now;
		status->ever_failed = false;
	}
	else
		status->peer_id[0] = '\0';
	if (error != NULL)
	{
		strlcpy(status->last_error, error, sizeof(status->last_error));
		status->last_error_at = now;
		status->next_attempt = next_attempt;
		status->ever_failed = true;
	}
	SpinLockRelease(&rinq_peer.db->mutex);
	ConditionVariableBroadcast(&rinq_peer.db->changed);
	pgstat_report_activity(state == RINQ_NET_CONNECTED ? STATE_IDLE : STATE_RUNNING,
						   state == RINQ_NET_CONNECTED ? "rinq: connected" :
						   state == RINQ_NET_CONNECTING ? "rinq: connecting" :
						   "rinq: waiting to connect again");
}

void
rinq_network_init(void)
{
	delay = 0;
	lost_delay = 0;
	next_attempt = 0;
	told_error[0] = '\0';
	lost = false;
}

/* draws an identity, and asks the broker for its four queues */
static void
try_identity(void)
{
	int			i;

	if (++id_attempts > MAX_ID_ATTEMPTS)
	{
		rinq_peer_fail("no free peer id was found on the broker");
		return;
	}
	rinq_peer.id.clock = (uint64) (rinq_wall_ms() / 1000);
	do
	{
		if (!pg_strong_random(&rinq_peer.id.rand, sizeof(rinq_peer.id.rand)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random peer id")));
	} while (rinq_peer.id.rand == 0);
	rinq_peer_id_format(&rinq_peer.id, rinq_peer.id_text, sizeof(rinq_peer.id_text));
	rinq_peer_short_format(&rinq_peer.id, rinq_peer.short_text, sizeof(rinq_peer.short_text));

	for (i = 0; i < (int) lengthof(own_suffixes); i++)
	{
		char		queue[RINQ_OWN_QUEUE_SIZE];

		(void) rinq_own_queue(own_suffixes[i], queue);
		rinq_queue_declare(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_bytes_str(queue),
						   false, true, strcmp(own_suffixes[i], ".req") == 0 ? 3 : 0, NULL,
						   IDENTITY_COOKIE(i));
	}
}

/* give up the queues of an identity of which another peer has one */
static void
release_identity(int declared)
{
	int			i;

	for (i = 0; i < declared; i++)
	{
		char		queue[RINQ_OWN_QUEUE_SIZE];

		(void) rinq_own_queue(own_suffixes[i], queue);
		rinq_queue_delete(rinq_peer.conn, CHANNEL_TOPOLOGY, rinq_bytes_str(queue), 0);
	}
}

/* Set up the connection that rinq_peer.conn now is. */
static void
begin_setup(void)
{
	rinq_encryption_check_plain(rinq_peer.conn, &in_use, broker);
	setup_deadline = rinq_peer.now + rinq_amqp_connection_timeout;
	rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_COMMANDS, 0);
	rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_RESPONSES, 0);
	rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_TOPOLOGY, 0);
	rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_NOTIFICATIONS, 0);
	rinq_publisher_opened();
	rinq_sender_opened();
	id_attempts = 0;
	try_identity();
}

static void
became_connected(void)
{
	char		others[RINQ_LAST_ERROR_LEN];
	bool		some_failed = rinq_attempts_error(others, sizeof(others));

	rinq_attempts_end();
	lost = false;
	rinq_conn_flush(rinq_peer.conn, rinq_peer.now);
	connected_at = rinq_peer.now;
	rinq_identity_set(rinq_peer.db, &rinq_peer.id);
	told_error[0] = '\0';
	set_state(RINQ_NET_CONNECTED, NULL);
	if (some_failed)
		rinq_peer_show_error(others);
	ereport(LOG,
			(errmsg("rinq peer %s for database \"%s\" connected to broker %s",
					rinq_peer.id_text, NameStr(rinq_peer.db->name), broker),
			 some_failed ? errdetail_internal("Not to others: %s", others) : 0));
}

static void
on_reply(void *arg, const RinqReply *reply)
{
	bool		was_ready = rinq_peer.ready;

	if (!IS_IDENTITY(reply->cookie))
	{
		rinq_topology_reply(reply);
		if (rinq_peer.ready && !was_ready)
			became_connected();
	}
	else if (reply->cookie == IDENTITY_COOKIE(lengthof(own_suffixes) - 1))
		rinq_topology_opened();
}

static void
on_channel_closed(void *arg, const RinqAmqpChannelClosed *info)
{
	bool		is_identity = info->request_failed && IS_IDENTITY(info->cookie);
	char		reason[RINQ_LAST_ERROR_LEN];

	if (!is_identity && rinq_publisher_channel_closed(info))
		return;
	if (rinq_peer.ready)
	{
		rinq_topology_channel_closed(info);
		return;
	}
	if (is_identity && info->code == 405)
	{
		rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_TOPOLOGY, 0);
		release_identity((int) (uint32) info->cookie);
		try_identity();
		return;
	}
	snprintf(reason, sizeof(reason), "the broker refused %s: %u %s",
			 info->method, info->code, info->text);
	rinq_peer_fail(reason);
}

static void
on_delivery(void *arg, const RinqDelivery *delivery)
{
	RinqBytes	reply_to = delivery->message.reply_to;

	if (delivery->channel == CHANNEL_RESPONSES && reply_to.len == 1 && reply_to.data[0] == 'u')
		rinq_server_response(delivery);
	else if (delivery->channel == CHANNEL_RESPONSES)
		rinq_pending_response(delivery);
	else if (delivery->channel == CHANNEL_NOTIFICATIONS)
		rinq_notification(delivery);
	else if (delivery->channel == CHANNEL_MAILBOX)
		rinq_mailbox_delivery(delivery);
	else
		rinq_server_request(delivery);
}

static void
on_cancel(void *arg, uint16_t channel, RinqBytes consumer_tag)
{
	rinq_topology_cancelled(consumer_tag);
}

static void
on_confirm(void *arg, uint16_t channel, uint64_t tag, bool multiple, bool nack)
{
	rinq_publisher_confirmed(channel, tag, multiple, nack);
}

static void
on_return(void *arg, const RinqReturn *ret)
{
	if (ret->channel == CHANNEL_PUBLISH)
		rinq_publisher_returned(ret);
	else
		rinq_sender_returned(ret);
}

static void
on_blocked(void *arg, bool blocked, const char *reason)
{
	static RinqBurst logged;

	/* not of one that logs in: set_state() looks by itself */
	if (rinq_peer.conn == NULL || rinq_conn_blocked(rinq_peer.conn) != blocked)
		return;
	SpinLockAcquire(&rinq_peer.db->mutex);
	rinq_peer.db->status.blocked = blocked;
	SpinLockRelease(&rinq_peer.db->mutex);
	if (rinq_too_often(&logged, rinq_peer.now, MAX_BLOCKS_LOGGED))
		return;
	if (blocked)
		ereport(WARNING,
				(errmsg("broker %s blocks the messages of rinq peer %s: %s",
						broker, rinq_peer.id_text, reason)));
	else
		ereport(LOG,
				(errmsg("broker %s takes messages of rinq peer %s again",
						broker, rinq_peer.id_text)));
}

static bool
is_enough(void *arg)
{
	return rinq_slice_over();
}

static const RinqConnCallbacks callbacks = {
	.on_reply = on_reply,
	.on_channel_closed = on_channel_closed,
	.on_delivery = on_delivery,
	.on_cancel = on_cancel,
	.on_confirm = on_confirm,
	.on_return = on_return,
	.on_blocked = on_blocked,
	.is_enough = is_enough
};

/* Forget the connection, and end everything that hangs on it. */
static void
drop_connection(const char *reason)
{
	rinq_peer.ready = false;
	rinq_identity_clear(rinq_peer.db);
	if (rinq_peer.conn != NULL)
	{
		/* what this turn has settled need not come again */
		rinq_network_flush();
		rinq_conn_destroy(rinq_peer.conn);
		rinq_peer.sockets_serial++;
	}
	rinq_peer.conn = NULL;
	rinq_peer.failure[0] = '\0';

	rinq_topology_connection_lost();
	rinq_mailbox_responses_lost();
	rinq_publisher_connection_lost();
	rinq_invoker_fail_all(reason, true);
	rinq_sender_connection_lost();
	rinq_dispatch_connection_lost();
	rinq_notifications_drop();
	rinq_sessions_clear();
	rinq_durable_look(NULL);
}

/*
 * End the connection, or the round of attempts to get one; "reason" is for the
 * log, the view and those who wait.
 */
static void
connection_ended(const char *reason)
{
	bool		was_ready = rinq_peer.ready;
	bool		at_once;

	rinq_attempts_end();
	rinq_replacement_end();
	drop_connection(reason);
	lost = was_ready;
	if (was_ready)
	{
		rinq_count(rinq_peer.db, RINQ_RECONNECTS);
		/* how long it took to connect says nothing about the next attempt */
		delay = rinq_peer.now - connected_at > STABLE_AFTER ? 0 : lost_delay;
	}

	/* there may be another host that is there already */
	at_once = was_ready && delay == 0 && in_use.nhosts > 1;
	delay = rinq_backoff_next(delay, RINQ_FIRST_PAUSE, RINQ_LAST_PAUSE);
	if (was_ready)
		lost_delay = delay;
	next_attempt = rinq_peer.now +
		(at_once ? 0 : Min(RINQ_LAST_PAUSE, delay + (int) (rinq_random_fraction() * delay / 2)));
	set_state(RINQ_NET_DISCONNECTED, reason);

	if (was_ready)
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("rinq peer %s for database \"%s\" lost its connection to broker %s",
						rinq_peer.id_text, NameStr(rinq_peer.db->name), broker),
				 errdetail_internal("%s", reason)));
	else if (!rinq_same_but_peers(told_error, reason))
		ereport(WARNING,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("rinq peer for database \"%s\" cannot connect to broker %s",
						NameStr(rinq_peer.db->name), broker),
				 errdetail_internal("%s", reason),
				 errhint("The peer goes on trying.")));
	strlcpy(told_error, reason, sizeof(told_error));
}

/*
 * Give up the connection for a reason; one that was being set up is followed by
 * the next host.
 */
static void
connection_failed(const char *why)
{
	char		reason[RINQ_LAST_ERROR_LEN];

	strlcpy(reason, why, sizeof(reason));
	if (rinq_peer.ready || !rinq_attempts_active() || rinq_replacement_wanted())
	{
		connection_ended(reason);
		return;
	}
	drop_connection(reason);
	rinq_attempts_useless(reason);
}

/* ---------------- a connection where there is none ---------------- */

/* Show which host is tried. */
static void
show_attempt(void)
{
	char		name[RINQ_BROKER_DESCRIBE_SIZE];

	rinq_broker_describe(rinq_attempts_broker(), rinq_attempts_host(), name, sizeof(name));
	if (rinq_peer.db->status.net == RINQ_NET_CONNECTING && strcmp(name, broker) == 0)
		return;
	strlcpy(broker, name, sizeof(broker));
	set_state(RINQ_NET_CONNECTING, NULL);
}

static void
start_connecting(void)
{
	char		error[RINQ_LAST_ERROR_LEN];

	strlcpy(server_in_use, rinq_peer_broker_server(), sizeof(server_in_use));
	if (!rinq_peer_broker(&in_use, error, sizeof(error)))
	{
		broker[0] = '\0';
		connection_ended(error);
		return;
	}
	rinq_attempts_begin(&in_use, lost);
	lost = false;
}

/* Take over the connection that was made. */
static void
take_connection(void)
{
	show_attempt();
	rinq_peer.conn = rinq_attempts_take();
	begin_setup();
}

/* End a round in which no host was of use. */
static void
round_failed(void)
{
	char		reason[RINQ_LAST_ERROR_LEN];

	(void) rinq_attempts_error(reason, sizeof(reason));
	rinq_broker_describe_all(&in_use, broker, sizeof(broker));
	connection_ended(reason);
}

/* Go on with a round of attempts, or begin one when it is time. */
static void
go_on_connecting(void)
{
	if (rinq_peer.stopping)
		return;
	if (!rinq_attempts_active())
	{
		if (rinq_peer.now < next_attempt)
			return;
		start_connecting();
		if (!rinq_attempts_active())
			return;
		show_attempt();
	}
	switch (rinq_attempts_step(&callbacks))
	{
		case RINQ_ATTEMPTS_WAIT:
			show_attempt();
			break;
		case RINQ_ATTEMPTS_CONNECTED:
			take_connection();
			break;
		case RINQ_ATTEMPTS_FAILED:
			round_failed();
			break;
	}
}

/* End the connection, or the attempts to get one, and begin anew at once. */
static void
connect_anew(const char *reason)
{
	rinq_topology_another_broker();
	if (rinq_peer.conn != NULL || rinq_attempts_active())
		connection_ended(reason);
	lost_delay = 0;
	delay = 0;
	next_attempt = 0;
}

/* Put the connection that was made by new settings in the place of the old one. */
static void
replace_connection(void)
{
	int			host = rinq_attempts_host();
	RinqConn   *taken = rinq_attempts_take();
	RinqBroker	next = *rinq_attempts_broker();

	connect_anew(CHANGED);
	in_use = next;
	strlcpy(server_in_use, rinq_peer_broker_server(), sizeof(server_in_use));
	rinq_broker_wipe(&next);
	rinq_broker_describe(&in_use, host, broker, sizeof(broker));
	rinq_peer.conn = taken;
	set_state(RINQ_NET_CONNECTING, NULL);
	begin_setup();
}

/*
 * Look at reloaded settings or another server, and at files that may have changed.  Another
 * broker, or another login, needs another connection; one that is logged in is kept
 * until that is there, unless its certificates are not valid any more.  In a
 * pause, what was in the way may have been mended: that is tried at once.
 */
void
rinq_network_reload(void)
{
	RinqBroker	wanted;
	char		reason[RINQ_LAST_ERROR_LEN];
	bool		changed = !rinq_peer_broker(&wanted, reason, sizeof(reason)) ||
		(rinq_peer.ready ? !rinq_replacement_adopt(&in_use, broker, &wanted) :
		 memcmp(&wanted, &in_use, sizeof(wanted)) != 0);

	rinq_broker_wipe(&wanted);
	if (rinq_peer.stopping)
		return;
	if (rinq_peer.conn != NULL)
		rinq_conn_set_max_body(rinq_peer.conn, rinq_payload_limit());
	if (rinq_amqp_dsn_refused[0] != '\0' && rinq_peer_broker_server()[0] == '\0')
		rinq_peer_show_error(rinq_amqp_dsn_refused);
	if (rinq_peer.conn == NULL && (changed || !rinq_attempts_active()))
		connect_anew(CHANGED);
	else if (rinq_peer.conn != NULL &&
			 rinq_encryption_reload(rinq_peer.conn, &in_use, rinq_broker_find_host(&in_use, broker), changed,
									reason, sizeof(reason)))
		connect_anew(reason);
	else if (rinq_peer.ready || changed)
		rinq_replacement_begin();
}

/* ---------------- turns ---------------- */

/*
 * Tell whether the connection is logged in, but without identity and queues as
 * yet.
 */
static bool
setting_up(void)
{
	return rinq_peer.conn != NULL && !rinq_peer.ready && !rinq_peer.stopping &&
		rinq_conn_state(rinq_peer.conn) == RINQ_CONN_OPEN;
}

/* Run one turn of the connection; true when there is more to do at once. */
static bool
step_connection(void)
{
	bool		more = rinq_conn_step(rinq_peer.conn, rinq_peer.now, MAX_FRAMES);

	if (setting_up() && rinq_peer.now >= setup_deadline)
		rinq_peer_fail("the broker did not set up queues in time");
	if (rinq_peer.failure[0] != '\0')
	{
		connection_failed(rinq_peer.failure);
		return false;
	}
	if (rinq_conn_state(rinq_peer.conn) != RINQ_CONN_CLOSED)
		return more;
	if (rinq_peer.stopping)
	{
		rinq_conn_destroy(rinq_peer.conn);
		rinq_peer.conn = NULL;
		rinq_peer.sockets_serial++;
		rinq_peer.ready = false;
	}
	else
	{
		if (rinq_peer.ready && rinq_conn_closed_by_declaration(rinq_peer.conn))
			rinq_consume_closed_connection();
		connection_failed(rinq_conn_error(rinq_peer.conn)[0] != '\0' ?
						  rinq_conn_error(rinq_peer.conn) : "the connection was closed");
	}
	return false;
}

/* Show the server that names the broker now, which may be another one with the same options. */
static void
show_server(void)
{
	if (strcmp(server_in_use, rinq_peer_broker_server()) == 0)
		return;
	strlcpy(server_in_use, rinq_peer_broker_server(), sizeof(server_in_use));
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.server, server_in_use, sizeof(rinq_peer.db->status.server));
	SpinLockRelease(&rinq_peer.db->mutex);
}

/*
 * Run one turn of the network; true when there is more to do at once.
 */
bool
rinq_network_step(void)
{
	bool		more = false;

	if (rinq_peer.conn == NULL)
		go_on_connecting();
	if (rinq_peer.conn != NULL)
		more = step_connection();
	if (rinq_peer.ready && rinq_replacement_step(&in_use, broker, &callbacks))
		replace_connection();
	else if (rinq_peer.ready && !rinq_replacement_wanted())
		show_server();
	return more;
}

void
rinq_network_flush(void)
{
	if (rinq_peer.conn != NULL)
		rinq_conn_flush(rinq_peer.conn, rinq_peer.now);
}

/*
 * Start the orderly end of the connection.
 */
void
rinq_network_stop(void)
{
	rinq_replacement_end();
	rinq_attempts_end();
	if (rinq_peer.conn != NULL)
		rinq_conn_close(rinq_peer.conn, rinq_peer.now);
}

bool
rinq_network_stopped(void)
{
	return rinq_peer.conn == NULL ||
		rinq_conn_state(rinq_peer.conn) == RINQ_CONN_CLOSED;
}

/*
 * Return when the network needs a turn at the latest; 0 for no particular
 * time.
 */
int64
rinq_network_next_deadline(void)
{
	int64		deadline;

	if (rinq_peer.conn == NULL && !rinq_attempts_active())
		return rinq_peer.stopping ? 0 : Max(next_attempt, 1);
	deadline = rinq_attempts_next_deadline();
	if (rinq_peer.ready)
		deadline = rinq_clock_earlier(deadline, rinq_replacement_next_deadline());
	if (rinq_peer.conn != NULL && rinq_conn_next_deadline(rinq_peer.conn) != RINQ_CONN_NO_DEADLINE)
		deadline = rinq_clock_earlier(deadline, rinq_conn_next_deadline(rinq_peer.conn));
	return setting_up() ? rinq_clock_earlier(deadline, setup_deadline) : deadline;
}

/*
 * Tell which sockets the event loop waits for.
 */
void
rinq_network_sockets(RinqSockets *sockets)
{
	sockets->count = 0;
	sockets->serial = rinq_peer.sockets_serial;
	if (rinq_peer.conn != NULL)
		rinq_add_socket(sockets, rinq_conn_fd(rinq_peer.conn), rinq_conn_wants_read(rinq_peer.conn), rinq_conn_wants_write(rinq_peer.conn));
	rinq_attempts_sockets(sockets);
}
