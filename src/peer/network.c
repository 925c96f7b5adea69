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

#include <netdb.h>
#include <sys/socket.h>

#include "base/backoff.h"
#include "base/burst.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/session_ids.h"
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
#include "peer/sending/publisher.h"
#include "peer/sending/sender.h"
#include "peer/session/sessions.h"
#include "peer/topology/bindings.h"
#include "peer/topology/consume.h"
#include "peer/topology/topology.h"
#include "peer/turn.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "version.h"

#define FIRST_DELAY 100			/* ms between attempts */
#define LAST_DELAY 30000		/* ms */
#define STABLE_AFTER 10000		/* ms a connection lasts before it counts as
								 * good */
#define MAX_ID_ATTEMPTS 1000
#define MAX_FRAMES 64			/* handled before other work gets its turn */
#define MIN_BACKLOG (8 * 1024 * 1024)
#define MAX_BLOCKS_LOGGED 10	/* changes in a few seconds */

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
static unsigned address_turn;	/* which of several addresses is next */
static int	id_attempts;
static int64 setup_deadline;	/* for all that comes between login and ready */
static char broker[RINQ_BROKER_DESCRIBE_SIZE];
static char told_error[RINQ_LAST_ERROR_LEN];	/* last one in the log */
static RinqBroker in_use;		/* what the connection was made with */
static char server_in_use[NAMEDATALEN]; /* that has said so; empty: none */
static unsigned host_turn;		/* which of several hosts is next */
static int	host_in_use;
static bool told_product;

static void
set_state(RinqNetState state, const char *error)
{
	RinqStatus *status = &rinq_peer.db->status;
	TimestampTz now = GetCurrentTimestamp();
	const char *version = state == RINQ_NET_CONNECTED ? rinq_conn_server_version(rinq_peer.conn) : "";
	RinqEncryption encryption;

	memset(&encryption, 0, sizeof(encryption));
	if (state == RINQ_NET_CONNECTED)
		rinq_encryption_describe(rinq_peer.conn, &encryption);

	SpinLockAcquire(&rinq_peer.db->mutex);
	status->net = state;
	status->blocked = false;
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
	told_product = false;

	/*
	 * keeps the resolver's waiting short, unless the environment says
	 * otherwise
	 */
	(void) setenv("RES_OPTIONS", "timeout:1 attempts:1", 0);
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

static void
on_open(void *arg)
{
	const char *product = rinq_conn_server_product(rinq_peer.conn);
	const char *version = rinq_conn_server_version(rinq_peer.conn);
	char		reason[RINQ_LAST_ERROR_LEN];

	switch (rinq_broker_version_check(product, version))
	{
		case RINQ_BROKER_TOO_OLD:
			snprintf(reason, sizeof(reason),
					 "%s %s is too old, RabbitMQ 3.5 or newer is needed", product, version);
			rinq_peer_fail(reason);
			return;
		case RINQ_BROKER_OTHER_PRODUCT:
			if (!told_product)
				ereport(WARNING,
						(errmsg("rinq has not been tested with broker \"%s %s\"",
								product, version)));
			told_product = true;
			break;
		case RINQ_BROKER_OK:
			break;
	}
	if (rinq_conn_channel_max(rinq_peer.conn) < CHANNEL_NAMESPACES)
	{
		rinq_peer_fail("the broker allows too few channels for one connection");
		return;
	}
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
	rinq_conn_flush(rinq_peer.conn, rinq_peer.now);
	connected_at = rinq_peer.now;
	rinq_identity_set(rinq_peer.db, &rinq_peer.id);
	told_error[0] = '\0';
	set_state(RINQ_NET_CONNECTED, NULL);
	ereport(LOG,
			(errmsg("rinq peer %s for database \"%s\" connected to broker %s",
					rinq_peer.id_text, NameStr(rinq_peer.db->name), broker)));
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
	.on_open = on_open,
	.on_reply = on_reply,
	.on_channel_closed = on_channel_closed,
	.on_delivery = on_delivery,
	.on_cancel = on_cancel,
	.on_confirm = on_confirm,
	.on_return = on_return,
	.on_blocked = on_blocked,
	.is_enough = is_enough
};

/*
 * End everything that hangs on the connection; "reason" is for the log, the
 * view and those who wait.
 */
static void
connection_ended(const char *reason)
{
	bool		was_ready = rinq_peer.ready;

	rinq_peer.ready = false;
	rinq_identity_clear(rinq_peer.db);
	if (rinq_peer.conn != NULL)
		rinq_conn_destroy(rinq_peer.conn);
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

	if (was_ready)
	{
		rinq_count(rinq_peer.db, RINQ_RECONNECTS);
		/* how long it took to connect says nothing about the next attempt */
		delay = rinq_peer.now - connected_at > STABLE_AFTER ? 0 : lost_delay;
	}
	delay = rinq_backoff_next(delay, FIRST_DELAY, LAST_DELAY);
	if (was_ready)
		lost_delay = delay;
	next_attempt = rinq_peer.now +
		Min(LAST_DELAY, delay + (int) (rinq_random_fraction() * delay / 2));
	set_state(RINQ_NET_DISCONNECTED, reason);

	if (was_ready)
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("rinq peer %s for database \"%s\" lost its connection to broker %s",
						rinq_peer.id_text, NameStr(rinq_peer.db->name), broker),
				 errdetail_internal("%s", reason)));
	else if (strcmp(told_error, reason) != 0)
		ereport(WARNING,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("rinq peer for database \"%s\" cannot connect to broker %s",
						NameStr(rinq_peer.db->name), broker),
				 errdetail_internal("%s", reason),
				 errhint("The peer goes on trying.")));
	strlcpy(told_error, reason, sizeof(told_error));
}

/*
 * Find an address of the broker's host.  Names of this machine and literal
 * addresses are found at once.  A name server that does not answer holds the
 * peer up for a second, the one place where it waits for anything else than
 * its latch and its socket.
 */
static bool
resolve_broker(const RinqBroker *from, int host_index, struct sockaddr_storage *address, socklen_t *len,
			   char *error, size_t size)
{
	struct addrinfo hints;
	struct addrinfo *found;
	struct addrinfo *it;
	char		port[16];
	int			rc;
	int			count = 0;
	int			turn;

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICSERV;
	snprintf(port, sizeof(port), "%d", rinq_broker_port(from, host_index));
	found = NULL;
	rc = getaddrinfo(from->hosts[host_index].host, port, &hints, &found);
	if (rc == 0 && found == NULL)
		rc = EAI_NONAME;
	if (rc != 0)
	{
		snprintf(error, size, "could not resolve host \"%s\": %s", from->hosts[host_index].host,
				 gai_strerror(rc));
		return false;
	}
	for (it = found; it != NULL; it = it->ai_next)
		count++;
	Assert(count > 0);
	turn = (int) (address_turn++ % (unsigned) count);
	for (it = found; turn > 0 && it->ai_next != NULL; turn--)
		it = it->ai_next;
	Assert(it->ai_addrlen <= sizeof(*address));
	memcpy(address, it->ai_addr, it->ai_addrlen);
	*len = it->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

/* Show why the connection that there is could not be made again. */
static void
tell_broker_problem(const char *problem)
{
	RinqStatus *status = &rinq_peer.db->status;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(status->last_error, problem, sizeof(status->last_error));
	status->last_error_at = now;
	SpinLockRelease(&rinq_peer.db->mutex);
	ereport(WARNING,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("%s", problem),
			 errhint("The peer cannot connect again after its connection is lost.")));
}

/* Tell whether the broker is another one than that of the connection, or the login there. */
static bool
broker_changed(void)
{
	RinqBroker	now;
	char		error[RINQ_LAST_ERROR_LEN];
	bool		changed;

	if (!rinq_peer_broker(&now, error, sizeof(error)))
	{
		if (rinq_peer.conn == NULL)
			return true;
		tell_broker_problem(error);
		return false;
	}
	changed = memcmp(&now, &in_use, sizeof(now)) != 0;
	rinq_broker_wipe(&now);
	return changed;
}

static void
connect_to(const RinqBroker *to, const struct sockaddr_storage *address, socklen_t address_len)
{
	RinqConnConfig config;
	RinqTlsConfig tls;

	memset(&config, 0, sizeof(config));
	config.user = to->user;
	config.password = to->password;
	config.vhost = to->vhost;
	config.product = rinq_product[0] != '\0' ? rinq_product : "rinq for PostgreSQL";
	config.version = "rinq-postgresql/" RINQ_VERSION;
	config.peer = broker;
	config.heartbeat = to->heartbeat >= 0 ? to->heartbeat : rinq_amqp_heartbeat;
	config.connection_timeout = to->connection_timeout >= 0 ?
		to->connection_timeout : rinq_amqp_connection_timeout;
	config.max_body = rinq_payload_limit();
	config.max_backlog = Max(MIN_BACKLOG, 2 * rinq_payload_limit());
	config.tls = rinq_encryption_config(to, host_in_use, &tls);
	config.sasl_external = to->sasl_external;
	rinq_peer.conn = rinq_conn_create(&config, &callbacks, NULL);
	if (rinq_peer.conn != NULL)
		rinq_conn_connect(rinq_peer.conn, (const struct sockaddr *) address, address_len, rinq_peer.now);
}

static void
start_connecting(void)
{
	struct sockaddr_storage address;
	socklen_t	address_len = 0;
	char		error[RINQ_LAST_ERROR_LEN];
	int			host;

	strlcpy(server_in_use, rinq_peer_broker_server(), sizeof(server_in_use));
	if (!rinq_peer_broker(&in_use, error, sizeof(error)))
	{
		broker[0] = '\0';
		connection_ended(error);
		return;
	}
	host = (int) (host_turn++ % (unsigned) in_use.nhosts);
	host_in_use = host;
	rinq_broker_describe(&in_use, host, broker, sizeof(broker));
	set_state(RINQ_NET_CONNECTING, NULL);

	if (!resolve_broker(&in_use, host, &address, &address_len, error, sizeof(error)))
	{
		connection_ended(error);
		return;
	}
	connect_to(&in_use, &address, address_len);
	if (rinq_peer.conn == NULL)
		connection_ended("out of memory");
}

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

/*
 * Run one turn of the network; true when there is more to do at once.
 */
bool
rinq_network_step(void)
{
	bool		more = false;

	if (rinq_peer.conn == NULL)
	{
		if (rinq_peer.stopping || rinq_peer.now < next_attempt)
			return false;
		start_connecting();
		if (rinq_peer.conn == NULL)
			return false;
	}
	more = rinq_conn_step(rinq_peer.conn, rinq_peer.now, MAX_FRAMES);
	if (setting_up() && rinq_peer.now >= setup_deadline)
		rinq_peer_fail("the broker did not set up queues in time");
	if (rinq_peer.failure[0] != '\0')
	{
		char		reason[RINQ_LAST_ERROR_LEN];

		strlcpy(reason, rinq_peer.failure, sizeof(reason));
		connection_ended(reason);
		return false;
	}
	if (rinq_conn_state(rinq_peer.conn) == RINQ_CONN_CLOSED)
	{
		char		reason[RINQ_LAST_ERROR_LEN];

		strlcpy(reason, rinq_conn_error(rinq_peer.conn), sizeof(reason));
		if (rinq_peer.stopping)
		{
			rinq_conn_destroy(rinq_peer.conn);
			rinq_peer.conn = NULL;
			rinq_peer.ready = false;
		}
		else
		{
			if (rinq_peer.ready && rinq_conn_closed_by_declaration(rinq_peer.conn))
				rinq_consume_closed_connection();
			connection_ended(reason[0] != '\0' ? reason : "the connection was closed");
		}
		return false;
	}
	return more;
}

void
rinq_network_flush(void)
{
	if (rinq_peer.conn != NULL)
		rinq_conn_flush(rinq_peer.conn, rinq_peer.now);
}

/*
 * Look at reloaded settings, or another server, and at files that may have
 * changed: another broker, or other credentials, need another connection.
 * Without one, what was in the way may have been mended: that is tried at once.
 */
void
rinq_network_reload(void)
{
	char		reason[RINQ_LAST_ERROR_LEN];

	if (rinq_peer.stopping)
		return;
	if (rinq_peer.conn != NULL)
		rinq_conn_set_max_body(rinq_peer.conn, rinq_payload_limit());
	if (broker_changed())
		strlcpy(reason, "address or password of the broker was changed", sizeof(reason));
	else if (rinq_peer.conn != NULL && !rinq_encryption_reload(rinq_peer.conn, &in_use, host_in_use, reason, sizeof(reason)))
		return;
	rinq_topology_another_broker();
	lost_delay = 0;
	delay = 0;
	next_attempt = 0;
	if (rinq_peer.conn != NULL)
	{
		connection_ended(reason);
		lost_delay = 0;
		delay = 0;
		next_attempt = 0;
	}
}

/*
 * Start the orderly end of the connection.
 */
void
rinq_network_stop(void)
{
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

	if (rinq_peer.conn == NULL)
		return rinq_peer.stopping ? 0 : Max(next_attempt, 1);
	deadline = rinq_conn_next_deadline(rinq_peer.conn);
	if (setting_up())
		deadline = Min(deadline, setup_deadline);
	return deadline == RINQ_CONN_NO_DEADLINE ? 0 : deadline;
}
