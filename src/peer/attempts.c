/*-------------------------------------------------------------------------
 *
 * attempts.c
 *	  One round of attempts to log in at a broker: its hosts one after the
 *	  other, and the addresses of each.
 *
 * There is one round at a time, since the peer needs one connection; nothing in
 * it waits.  Each attempt has a limit of its own, and so has each look-up of a
 * name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/shared.h"
#include "peer/attempts.h"
#include "peer/encryption.h"
#include "peer/process.h"
#include "peer/resolver.h"
#include "peer/turn.h"
#include "version.h"

#define MAX_FRAMES 64			/* handled in one step */
#define MIN_BACKLOG (8 * 1024 * 1024)

typedef enum AttemptsPhase
{
	ATTEMPTS_NONE,				/* no round is under way */
	ATTEMPTS_HOST,				/* the next host is to be tried */
	ATTEMPTS_RESOLVING,
	ATTEMPTS_ADDRESS,			/* the next address is to be tried */
	ATTEMPTS_LOGIN,
	ATTEMPTS_TAKEN				/* the connection was taken over */
} AttemptsPhase;

/* what became of a host */
typedef struct HostOutcome
{
	int			addresses;		/* tried */
	char		error[RINQ_LAST_ERROR_LEN]; /* of the last; empty: it was not
											 * tried */
} HostOutcome;

static AttemptsPhase phase = ATTEMPTS_NONE;
static RinqBroker broker;		/* whose round it is */
static int	order[RINQ_BROKER_MAX_HOSTS];
static int	num_begun;			/* of the hosts, in this order */
static RinqAddresses addresses; /* of the present host */
static int	next_address;
static RinqConn *conn;			/* that logs in */
static HostOutcome outcomes[RINQ_BROKER_MAX_HOSTS];

/* the place of the connection that was taken over the last time */
static RinqBrokerHost last_host;
static RinqAddress last_address;

/* ---------------- the order ---------------- */

static int
random_below(int count)
{
	return Min((int) (rinq_random_fraction() * count), count - 1);
}

static bool
is_last_host(int host)
{
	return strcmp(broker.hosts[host].host, last_host.host) == 0 &&
		broker.hosts[host].port == last_host.port;
}

/* Begin after the host that was used the last time, which then is the last. */
static void
rotate_hosts(void)
{
	int			first = 0;

	while (first < broker.nhosts && !is_last_host(first))
		first++;
	for (int i = 0; first < broker.nhosts && i < broker.nhosts; i++)
		order[i] = (first + 1 + i) % broker.nhosts;
}

/* Put the hosts in a random order; the one used the last time comes last, if it should. */
static void
shuffle_hosts(bool other_first)
{
	for (int i = broker.nhosts - 1; i > 0; i--)
	{
		int			with = random_below(i + 1);
		int			host = order[i];

		order[i] = order[with];
		order[with] = host;
	}
	for (int i = 0; other_first && i < broker.nhosts; i++)
	{
		if (is_last_host(order[i]))
		{
			int			host = order[i];

			memmove(&order[i], &order[i + 1], (broker.nhosts - 1 - i) * sizeof(order[0]));
			order[broker.nhosts - 1] = host;
			break;
		}
	}
}

static void
swap_addresses(int a, int b)
{
	RinqAddress address = addresses.list[a];

	addresses.list[a] = addresses.list[b];
	addresses.list[b] = address;
}

/* Order the addresses of a host like the hosts. */
static void
order_addresses(void)
{
	for (int i = addresses.count - 1; broker.load_balance_random && i > 0; i--)
		swap_addresses(i, random_below(i + 1));
	for (int i = 0; i < addresses.count - 1; i++)
	{
		if (addresses.list[i].len == last_address.len &&
			memcmp(&addresses.list[i].at, &last_address.at, last_address.len) == 0)
		{
			RinqAddress address = addresses.list[i];

			memmove(&addresses.list[i], &addresses.list[i + 1],
					(addresses.count - 1 - i) * sizeof(address));
			addresses.list[addresses.count - 1] = address;
			break;
		}
	}
}

/* ---------------- what became of the hosts ---------------- */

/* Note why the present host, or one of its addresses, is of no use. */
static void
note_failure(const char *reason)
{
	HostOutcome *outcome = &outcomes[rinq_attempts_host()];

	strlcpy(outcome->error, reason, sizeof(outcome->error));
}

/* Append what became of a host, in a share of the room. */
static void
append_outcome(char *error, size_t size, int host, size_t share)
{
	const HostOutcome *outcome = &outcomes[host];
	size_t		len = strlen(error);
	char		name[RINQ_BROKER_DESCRIBE_SIZE];
	char		quoted[RINQ_BROKER_PART_SIZE + 2];
	char		text[RINQ_BROKER_DESCRIBE_SIZE + RINQ_LAST_ERROR_LEN];

	rinq_broker_describe(&broker, host, name, sizeof(name));
	snprintf(quoted, sizeof(quoted), "\"%s\"", broker.hosts[host].host);
	if (strstr(outcome->error, name) != NULL || strstr(outcome->error, quoted) != NULL)
		strlcpy(text, outcome->error, sizeof(text));
	else
		snprintf(text, sizeof(text), "%s: %s", name, outcome->error);
	if (outcome->addresses > 1)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " (the last of %d addresses)", outcome->addresses);
	if (strlen(text) > share)
		strcpy(text + share - 3, "...");
	snprintf(error + len, size - len, "%s%s", len > 0 ? "; " : "", text);
}

/*
 * Say why no host was of use, or not those that were tried until now; false
 * when none has failed.
 */
bool
rinq_attempts_error(char *error, size_t size)
{
	int			failed = 0;
	int			only = 0;

	error[0] = '\0';
	for (int i = 0; i < broker.nhosts; i++)
	{
		if (outcomes[i].error[0] != '\0')
		{
			failed++;
			only = i;
		}
	}
	if (broker.nhosts == 1 && failed == 1 && outcomes[only].addresses <= 1)
		strlcpy(error, outcomes[only].error, size);
	else
		for (int i = 0; i < broker.nhosts; i++)
		{
			if (outcomes[i].error[0] != '\0')
				append_outcome(error, size, i, Max(size / failed, 16) - 3);
		}
	return failed > 0;
}

/* ---------------- attempts ---------------- */

static int
attempt_timeout(void)
{
	return broker.connection_timeout >= 0 ? broker.connection_timeout : rinq_amqp_connection_timeout;
}

static void
close_attempt(void)
{
	if (conn != NULL)
	{
		rinq_conn_destroy(conn);
		rinq_peer.sockets_serial++;
	}
	conn = NULL;
}

/*
 * Begin a round.  With other_first, because the connection was lost, the host
 * that it led to comes last.
 */
void
rinq_attempts_begin(const RinqBroker *to, bool other_first)
{
	rinq_attempts_end();
	Assert(to->nhosts >= 1 && to->nhosts <= RINQ_BROKER_MAX_HOSTS);
	broker = *to;
	for (int i = 0; i < broker.nhosts; i++)
		order[i] = i;
	if (broker.load_balance_random)
		shuffle_hosts(other_first);
	else if (other_first)
		rotate_hosts();
	if (!other_first)
		last_address.len = 0;
	num_begun = 0;
	memset(outcomes, 0, sizeof(outcomes));
	phase = ATTEMPTS_HOST;
}

/* Go to the next host; false when there is none. */
static bool
begin_host(void)
{
	const RinqBrokerHost *host;
	int			port;

	if (num_begun == broker.nhosts)
		return false;
	num_begun++;
	host = &broker.hosts[rinq_attempts_host()];
	port = rinq_broker_port(&broker, rinq_attempts_host());
	addresses.count = 0;
	next_address = 0;
	if (rinq_resolver_literal(host->host, port, &addresses))
		phase = ATTEMPTS_ADDRESS;
	else
	{
		rinq_resolver_start(host->host, port, attempt_timeout());
		phase = ATTEMPTS_RESOLVING;
	}
	return true;
}

static void
resolve_host(void)
{
	char		error[RINQ_LAST_ERROR_LEN];

	if (!rinq_resolver_step(&addresses, error, sizeof(error)))
		return;
	if (error[0] != '\0')
		note_failure(error);
	order_addresses();
	phase = ATTEMPTS_ADDRESS;
}

static void
begin_login(const RinqConnCallbacks *callbacks, const RinqAddress *address)
{
	RinqConnConfig config;
	RinqTlsConfig tls;
	char		name[RINQ_BROKER_DESCRIBE_SIZE];

	memset(&config, 0, sizeof(config));
	config.user = broker.user;
	config.password = broker.password;
	config.vhost = broker.vhost;
	config.product = rinq_product[0] != '\0' ? rinq_product : "rinq for PostgreSQL";
	config.version = "rinq-postgresql/" RINQ_VERSION;
	config.peer = rinq_broker_describe(&broker, rinq_attempts_host(), name, sizeof(name));
	config.heartbeat = broker.heartbeat >= 0 ? broker.heartbeat : rinq_amqp_heartbeat;
	config.connection_timeout = attempt_timeout();
	config.max_body = rinq_payload_limit();
	config.max_backlog = Max(MIN_BACKLOG, 2 * rinq_payload_limit());
	config.tls = rinq_encryption_config(&broker, rinq_attempts_host(), &tls);
	config.sasl_external = broker.sasl_external;
	conn = rinq_conn_create(&config, callbacks, NULL);
	if (conn == NULL)
	{
		note_failure("out of memory");
		return;
	}
	rinq_peer.sockets_serial++;
	rinq_conn_connect(conn, (const struct sockaddr *) &address->at, address->len, rinq_peer.now);
	phase = ATTEMPTS_LOGIN;
}

static void
begin_address(const RinqConnCallbacks *callbacks)
{
	if (next_address == addresses.count)
	{
		phase = ATTEMPTS_HOST;
		return;
	}
	outcomes[rinq_attempts_host()].addresses++;
	begin_login(callbacks, &addresses.list[next_address++]);
}

/* Tell whether a broker lets the peer log in, and is of no use all the same. */
static bool
is_unfit(char *reason, size_t size)
{
	static bool told_product = false;
	const char *product = rinq_conn_server_product(conn);
	const char *version = rinq_conn_server_version(conn);

	switch (rinq_broker_version_check(product, version))
	{
		case RINQ_BROKER_TOO_OLD:
			snprintf(reason, size, "%s %s is too old, RabbitMQ 3.5 or newer is needed", product, version);
			return true;
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
	if (rinq_conn_channel_max(conn) < CHANNEL_NAMESPACES)
	{
		snprintf(reason, size, "the broker allows %u channels for one connection (channel_max), and %d are needed",
				 rinq_conn_channel_max(conn), CHANNEL_NAMESPACES);
		return true;
	}
	return false;
}

/* Go on with the login; true when it is done. */
static bool
step_login(void)
{
	char		reason[RINQ_LAST_ERROR_LEN] = "the connection was closed";

	(void) rinq_conn_step(conn, rinq_peer.now, MAX_FRAMES);
	if (rinq_conn_state(conn) == RINQ_CONN_OPEN)
	{
		if (!is_unfit(reason, sizeof(reason)))
			return true;
	}
	else if (rinq_conn_state(conn) != RINQ_CONN_CLOSED)
		return false;
	else if (rinq_conn_error(conn)[0] != '\0')
		strlcpy(reason, rinq_conn_error(conn), sizeof(reason));
	note_failure(reason);
	close_attempt();
	phase = ATTEMPTS_ADDRESS;
	return false;
}

/*
 * Go on with the round, as far as possible in this slice of the turn.
 */
RinqAttemptsResult
rinq_attempts_step(const RinqConnCallbacks *callbacks)
{
	for (;;)
	{
		AttemptsPhase before = phase;

		switch (phase)
		{
			case ATTEMPTS_HOST:
				if (!begin_host())
					return RINQ_ATTEMPTS_FAILED;
				break;
			case ATTEMPTS_RESOLVING:
				resolve_host();
				break;
			case ATTEMPTS_ADDRESS:
				begin_address(callbacks);
				break;
			case ATTEMPTS_LOGIN:
				if (step_login())
					return RINQ_ATTEMPTS_CONNECTED;
				break;
			case ATTEMPTS_NONE:
			case ATTEMPTS_TAKEN:
				return RINQ_ATTEMPTS_WAIT;
		}
		/* nothing but time or a socket moves it on, or the slice is over */
		if (phase == before || rinq_slice_over())
			return RINQ_ATTEMPTS_WAIT;
	}
}

/*
 * Take the connection over.  The round goes on only if it is said to be
 * useless.
 */
RinqConn *
rinq_attempts_take(void)
{
	RinqConn   *taken = conn;

	Assert(phase == ATTEMPTS_LOGIN && conn != NULL);
	last_host = broker.hosts[rinq_attempts_host()];
	last_address = addresses.list[next_address - 1];
	conn = NULL;
	phase = ATTEMPTS_TAKEN;
	return taken;
}

/*
 * Go on with the next address, since the connection that was taken, and has
 * been destroyed, was of no use.
 */
void
rinq_attempts_useless(const char *reason)
{
	Assert(phase == ATTEMPTS_TAKEN);
	note_failure(reason);
	phase = ATTEMPTS_ADDRESS;
}

/*
 * Forget the round, wherever it stands.
 */
void
rinq_attempts_end(void)
{
	rinq_resolver_end();
	close_attempt();
	rinq_broker_wipe(&broker);
	phase = ATTEMPTS_NONE;
}

bool
rinq_attempts_active(void)
{
	return phase != ATTEMPTS_NONE;
}

const RinqBroker *
rinq_attempts_broker(void)
{
	return &broker;
}

/*
 * Return the number of the host that is tried, or was tried last.
 */
int
rinq_attempts_host(void)
{
	return num_begun > 0 ? order[num_begun - 1] : order[0];
}

/* ---------------- for the event loop ---------------- */

/*
 * Return when the round needs a step at the latest; 0 for no particular time.
 */
int64
rinq_attempts_next_deadline(void)
{
	switch (phase)
	{
		case ATTEMPTS_NONE:
		case ATTEMPTS_TAKEN:
			return 0;
		case ATTEMPTS_RESOLVING:
			return rinq_resolver_next_deadline();
		case ATTEMPTS_LOGIN:
			return rinq_conn_next_deadline(conn);
		case ATTEMPTS_HOST:
		case ATTEMPTS_ADDRESS:
			break;
	}
	return rinq_peer.now;
}

void
rinq_attempts_sockets(RinqSockets *sockets)
{
	if (conn != NULL)
		rinq_add_socket(sockets, rinq_conn_fd(conn), rinq_conn_wants_read(conn), rinq_conn_wants_write(conn));
	rinq_resolver_sockets(sockets);
}
