/*-------------------------------------------------------------------------
 *
 * info.c
 *	  What the owner of a connection may ask, and which brokers will do.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "amqp/connection_internal.h"

/* RabbitMQ has had priority queues since 3.5. */
#define OLDEST_MAJOR	3
#define OLDEST_MINOR	5

/* ---------------- accessors ---------------- */

int
rinq_conn_fd(const RinqConn *conn)
{
	return conn->fd;
}

/* Tell whether input is of use; without that, waiting for it would not wait. */
bool
rinq_conn_wants_read(const RinqConn *conn)
{
	return conn->fd >= 0 && (conn->tls == NULL || !rinq_tls_holds_read(conn->tls));
}

bool
rinq_conn_wants_write(const RinqConn *conn)
{
	if (conn->fd < 0)
		return false;
	return conn->state == RINQ_CONN_CONNECTING ||
		(conn->tls != NULL && rinq_tls_wants_write(conn->tls)) ||
		(conn->out_start < conn->out_end && conn->send_errno == 0 && (conn->tls == NULL || !rinq_tls_holds_write(conn->tls)));
}

int64_t
rinq_conn_next_deadline(const RinqConn *conn)
{
	int64_t		dead;
	int64_t		beat;

	if (conn->fd < 0)
		return RINQ_CONN_NO_DEADLINE;
	if (conn->send_errno != 0)
		return conn->now;		/* the next step reports it */
	if (conn->state != RINQ_CONN_OPEN)
		return conn->give_up_at;
	if (conn->heartbeat == 0)
		return RINQ_CONN_NO_DEADLINE;

	/* bytes that wait to be sent are as good as a heartbeat */
	dead = conn->last_rx + conn->heartbeat * INT64_C(2000);
	if (conn->out_start < conn->out_end)
		return dead;
	beat = conn->last_tx + conn->heartbeat * INT64_C(500);
	return beat < dead ? beat : dead;
}

RinqConnState
rinq_conn_state(const RinqConn *conn)
{
	return conn->state;
}

RinqConnErrorClass
rinq_conn_error_class(const RinqConn *conn)
{
	return conn->error_class;
}

bool
rinq_conn_closed_by_declaration(const RinqConn *conn)
{
	return conn->declaring_closed;
}

const char *
rinq_conn_error(const RinqConn *conn)
{
	return conn->error;
}

size_t
rinq_conn_backlog(const RinqConn *conn)
{
	return conn->out_end - conn->out_start;
}

bool
rinq_conn_blocked(const RinqConn *conn)
{
	return conn->blocked;
}

const char *
rinq_conn_server_product(const RinqConn *conn)
{
	return conn->server_product;
}

const char *
rinq_conn_server_version(const RinqConn *conn)
{
	return conn->server_version;
}

const char *
rinq_conn_tls_version(const RinqConn *conn)
{
	return conn->tls != NULL ? rinq_tls_version(conn->tls) : "";
}

const char *
rinq_conn_tls_cipher(const RinqConn *conn)
{
	return conn->tls != NULL ? rinq_tls_cipher(conn->tls) : "";
}

int64_t
rinq_conn_tls_certificate_end(const RinqConn *conn)
{
	return conn->tls != NULL ? rinq_tls_certificate_end(conn->tls) : 0;
}

/* Tell whether an address is of the loopback interface, or of no network at all. */
static bool
is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) address;

	if (address->sa_family == AF_INET)
		return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
	if (address->sa_family != AF_INET6)
		return true;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
		(IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
}

/* Tell whether two addresses are the same but for ports. */
static bool
same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *) a)->sin_addr.s_addr ==
			((const struct sockaddr_in *) b)->sin_addr.s_addr;
	return a->sa_family == AF_INET6 &&
		IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *) a)->sin6_addr,
						   &((const struct sockaddr_in6 *) b)->sin6_addr);
}

/* Tell whether what goes from one address to the other leaves the machine. */
bool
rinq_leaves_machine(const struct sockaddr *ours, const struct sockaddr *theirs)
{
	return !is_loopback(theirs) && !same_host(ours, theirs);
}

bool
rinq_conn_leaves_machine(const RinqConn *conn)
{
	struct sockaddr_storage ours = {0};
	struct sockaddr_storage theirs = {0};
	socklen_t	ours_len = sizeof(ours);
	socklen_t	theirs_len = sizeof(theirs);

	return conn->fd >= 0 &&
		getsockname(conn->fd, (struct sockaddr *) &ours, &ours_len) == 0 &&
		getpeername(conn->fd, (struct sockaddr *) &theirs, &theirs_len) == 0 &&
		rinq_leaves_machine((struct sockaddr *) &ours, (struct sockaddr *) &theirs);
}

RinqTlsChange
rinq_conn_tls_compare(const RinqConn *conn, const RinqTlsConfig *config, char *error, size_t size)
{
	return conn->tls != NULL ? rinq_tls_compare(conn->tls, config, error, size) : RINQ_TLS_SAME;
}

uint32_t
rinq_conn_frame_max(const RinqConn *conn)
{
	return conn->frame_max;
}

int
rinq_conn_heartbeat(const RinqConn *conn)
{
	return conn->heartbeat;
}

uint16_t
rinq_conn_channel_max(const RinqConn *conn)
{
	return conn->channel_max;
}

RinqBrokerVerdict
rinq_broker_version_check(const char *product, const char *version)
{
	char	   *end;
	long		major;
	long		minor;

	if (strcmp(product, "RabbitMQ") != 0)
		return RINQ_BROKER_OTHER_PRODUCT;
	if (version[0] < '0' || version[0] > '9')
		return RINQ_BROKER_OTHER_PRODUCT;
	major = strtol(version, &end, 10);
	if (end[0] != '.' || end[1] < '0' || end[1] > '9')
		return RINQ_BROKER_OTHER_PRODUCT;
	minor = strtol(end + 1, NULL, 10);
	if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
		return RINQ_BROKER_TOO_OLD;
	return RINQ_BROKER_OK;
}

/* ---------------- texts of the broker ---------------- */

/*
 * Overwrite every occurrence of a secret in a text.  One or two characters
 * are no secret, and masking them would make most texts unreadable.
 */
static void
mask_secret(char *text, const char *secret)
{
	size_t		len = secret != NULL ? strlen(secret) : 0;
	char	   *at = text;

	if (len < 3)
		return;
	while ((at = strstr(at, secret)) != NULL)
	{
		memset(at, '*', len);
		at += len;
	}
}

/*
 * Copy a text of the broker's into buf, fit for a log of any encoding and
 * without the credentials, should the broker repeat them.
 */
void
rinq_conn_clean_text(const RinqConn *conn, RinqBytes text, char *buf, size_t size)
{
	size_t		len = text.len < size - 1 ? text.len : size - 1;

	memcpy(buf, text.data, len);
	for (size_t i = 0; i < len; i++)
	{
		if (buf[i] == '\0')
			buf[i] = '?';
	}
	buf[len] = '\0';

	/* before other bytes are replaced: a password need not be ASCII */
	mask_secret(buf, conn->password);
	mask_secret(buf, conn->user);
	for (size_t i = 0; i < len; i++)
	{
		if (buf[i] < ' ' || buf[i] > '~')
			buf[i] = '?';
	}
}

void
rinq_conn_set_max_body(RinqConn *conn, size_t max_body)
{
	conn->max_body = max_body;
}
