/*-------------------------------------------------------------------------
 *
 * connection.c
 *	  Life of a connection: creation, event loop step, deadlines, end.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "amqp/connection_internal.h"

/* Longest wait for the answer to an orderly close. */
#define CLOSE_TIMEOUT_MS	3000

#define METHOD_POOL_PAGE	4096

/* Reads in one step: records of TLS may be tiny, and many of them wait. */
#define MAX_RECEIVES		256

/* ---------------- creation and destruction ---------------- */

/* Copies at most as much as fits into a short string. */
static char *
copy_short(const char *text)
{
	return strndup(text, RINQ_SHORT_STRING_MAX);
}

static bool
copy_config(RinqConn *conn, const RinqConnConfig *config)
{
	conn->user = copy_short(config->user);
	conn->password = strdup(config->password);
	conn->vhost = copy_short(config->vhost);
	conn->product = copy_short(config->product);
	conn->version = copy_short(config->version);
	conn->peer = strdup(config->peer);
	conn->want_heartbeat = config->heartbeat;
	conn->connection_timeout = config->connection_timeout;
	conn->max_body = config->max_body;
	conn->max_backlog = config->max_backlog;
	conn->sasl_external = config->sasl_external;
	return conn->user != NULL && conn->password != NULL &&
		conn->vhost != NULL && conn->product != NULL &&
		conn->version != NULL && conn->peer != NULL;
}

/*
 * Read what TLS needs.  Files that are no good do not keep the connection from
 * being made, but from being connected: that is where errors are told.  False
 * when out of memory.
 */
static bool
prepare_tls(RinqConn *conn, const RinqTlsConfig *config)
{
	char		problem[RINQ_TLS_ERROR_SIZE];
	RinqTlsContext *context;

	if (config == NULL)
		return true;
	context = rinq_tls_context_new(config, problem, sizeof(problem));
	if (context == NULL)
	{
		conn->tls_problem = strdup(problem);
		return conn->tls_problem != NULL;
	}
	conn->tls = rinq_tls_new(context);
	return conn->tls != NULL;
}

RinqConn *
rinq_conn_create(const RinqConnConfig *config, const RinqConnCallbacks *callbacks,
				 void *arg)
{
	RinqConn   *conn = calloc(1, sizeof(*conn));

	if (conn == NULL)
		return NULL;
	conn->fd = -1;
	conn->cb = *callbacks;
	conn->cb_arg = arg;
	conn->state = RINQ_CONN_CONNECTING;
	conn->frame_max = RINQ_FRAME_MAX;
	init_amqp_pool(&conn->pool, METHOD_POOL_PAGE);
	conn->in = malloc(RINQ_INPUT_SIZE);
	if (conn->in == NULL || !copy_config(conn, config) || !prepare_tls(conn, config->tls))
	{
		rinq_conn_destroy(conn);
		return NULL;
	}
	return conn;
}

void
rinq_conn_destroy(RinqConn *conn)
{
	if (conn == NULL)
		return;
	rinq_conn_end(conn);
	for (int i = 1; i <= RINQ_CONN_MAX_CHANNEL; i++)
		rinq_amqp_channel_free(&conn->channels[i]);
	empty_amqp_pool(&conn->pool);
	rinq_out_free(conn);
	rinq_conn_forget_credentials(conn);
	rinq_tls_free(conn->tls);
	free(conn->tls_problem);
	free(conn->in);
	free(conn->vhost);
	free(conn->product);
	free(conn->version);
	free(conn->peer);
	free(conn);
}

/* ---------------- connecting ---------------- */

static void
set_socket_options(int fd)
{
	int			on = 1;

	/* these fail on sockets other than TCP, where they are not needed */
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

void
rinq_conn_connect(RinqConn *conn, const struct sockaddr *addr, socklen_t addrlen,
				  int64_t now_ms)
{
	int			rc;

	if (conn->state != RINQ_CONN_CONNECTING || conn->fd >= 0)
		return;
	conn->now = now_ms;
	conn->last_rx = now_ms;
	conn->last_tx = now_ms;
	conn->give_up_at = now_ms + conn->connection_timeout;

	if (conn->tls_problem != NULL)
	{
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS, "could not set up TLS for %s: %s",
					   conn->peer, conn->tls_problem);
		return;
	}
	conn->fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->fd < 0)
	{
		rinq_conn_fail(conn, RINQ_CONN_ERR_RESOURCE,
					   "could not create a socket for %s: %s",
					   conn->peer, strerror(errno));
		return;
	}
	set_socket_options(conn->fd);

	do
		rc = connect(conn->fd, addr, addrlen);
	while (rc < 0 && errno == EINTR);
	if (rc < 0 && errno != EINPROGRESS && errno != EALREADY && errno != EISCONN)
		rinq_conn_fail(conn, RINQ_CONN_ERR_REFUSED, "could not connect to %s: %s",
					   conn->peer, strerror(errno));
}

/* Tell whether the connect has succeeded. */
static bool
finish_connect(RinqConn *conn)
{
	struct pollfd pfd = {.fd = conn->fd,.events = POLLOUT};
	int			error = 0;
	socklen_t	len = sizeof(error);

	if (conn->fd < 0 || poll(&pfd, 1, 0) <= 0)
		return false;
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error != 0)
	{
		rinq_conn_fail(conn, RINQ_CONN_ERR_REFUSED, "could not connect to %s: %s",
					   conn->peer, strerror(error));
		return false;
	}
	conn->state = RINQ_CONN_HANDSHAKE;
	rinq_transport_begin(conn);
	return conn->state != RINQ_CONN_CLOSED;
}

/* Tell whether AMQP has begun, and begin with it as soon as that can be. */
static bool
finish_transport(RinqConn *conn)
{
	if (conn->greeted)
		return true;
	if (!rinq_transport_ready(conn))
		return false;
	conn->greeted = true;
	rinq_handshake_begin(conn);
	return conn->state != RINQ_CONN_CLOSED;
}

/* ---------------- the event loop step ---------------- */

typedef enum ReceiveResult
{
	RECEIVE_MORE,				/* the buffer is full, or there is more */
	RECEIVE_SHORT,				/* got all there was */
	RECEIVE_NOTHING,
	RECEIVE_FAILED
} ReceiveResult;

/*
 * Tell whether the other side has ended the connection before it said anything.
 * One that has not read all that it was sent resets it.
 */
static bool
ended_without_word(const RinqConn *conn, RinqIoResult result, int error)
{
	return conn->state == RINQ_CONN_HANDSHAKE && conn->in_end == 0 && !conn->start_seen && conn->tls == NULL &&
		(result == RINQ_IO_EOF || error == ECONNRESET);
}

/* End the connection that gives no more input, for the reason there is. */
static void
receive_failed(RinqConn *conn, RinqIoResult result)
{
	int			error = errno;
	const char *text = rinq_transport_error(conn);

	if (conn->state == RINQ_CONN_CLOSING)
		rinq_conn_end(conn);	/* good enough for a goodbye */
	else if (text[0] != '\0')
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS, "TLS with %s failed: %s", conn->peer, text);
	else if (ended_without_word(conn, result, error))
		rinq_conn_fail(conn, RINQ_CONN_ERR_IO,
					   "%s closed the connection without giving a reason, as a server may that expects TLS on this port",
					   conn->peer);
	else if (result == RINQ_IO_FAILED)
		rinq_conn_fail(conn, RINQ_CONN_ERR_IO, "lost the connection to %s: %s",
					   conn->peer, strerror(error));
	else
		rinq_conn_fail(conn, RINQ_CONN_ERR_IO,
					   "%s closed the connection without giving a reason",
					   conn->peer);
}

static ReceiveResult
receive_bytes(RinqConn *conn)
{
	size_t		room;
	size_t		received;
	RinqIoResult result;

	if (conn->in_start > 0)
	{
		memmove(conn->in, conn->in + conn->in_start, conn->in_end - conn->in_start);
		conn->in_end -= conn->in_start;
		conn->in_start = 0;
	}
	room = RINQ_INPUT_SIZE - conn->in_end;
	RINQ_ASSERT(room > 0);
	result = rinq_transport_receive(conn, conn->in + conn->in_end, room, &received);
	if (result == RINQ_IO_AGAIN)
		return RECEIVE_NOTHING;
	if (result != RINQ_IO_DONE)
	{
		receive_failed(conn, result);
		return RECEIVE_FAILED;
	}
	conn->in_end += received;
	RINQ_ASSERT(conn->in_end <= RINQ_INPUT_SIZE);
	return received == room || rinq_transport_has_more(conn) ? RECEIVE_MORE : RECEIVE_SHORT;
}

/* Read and handles up to max_frames frames.  True if the input has run dry. */
static bool
read_frames(RinqConn *conn, int max_frames)
{
	bool		got_all = false;
	int			frames = 0;

	for (int receives = 0; receives < MAX_RECEIVES;)
	{
		RinqFrameResult result = rinq_frame_next(conn);

		if (result == RINQ_FRAME_FAILED)
			return false;
		if (result == RINQ_FRAME_HANDLED)
		{
			if (++frames >= max_frames ||
				(conn->cb.is_enough != NULL && conn->cb.is_enough(conn->cb_arg)))
				return false;
			continue;
		}

		/*
		 * After a short read the socket is empty, most likely; asking again
		 * would cost a system call, and the owner's wait finds out anyway.
		 */
		if (got_all && conn->send_errno == 0)
			return false;
		receives++;
		switch (receive_bytes(conn))
		{
			case RECEIVE_MORE:
				break;
			case RECEIVE_SHORT:
				got_all = true;
				break;
			case RECEIVE_NOTHING:
				return !rinq_transport_has_more(conn);
			case RECEIVE_FAILED:
				return false;
		}
	}
	return false;
}

/*
 * Act on deadlines that have passed.  A silent broker is given up only when
 * a read has just shown that there really is nothing: if the owner was away
 * for long, the proof of life may wait in the socket.
 */
static void
check_deadlines(RinqConn *conn, bool input_dry)
{
	switch (conn->state)
	{
		case RINQ_CONN_CONNECTING:
		case RINQ_CONN_HANDSHAKE:
			if (conn->fd >= 0 && conn->now >= conn->give_up_at)
				rinq_conn_fail(conn, RINQ_CONN_ERR_TIMEOUT,
							   "timed out after %d ms while %s %s",
							   conn->connection_timeout,
							   conn->state == RINQ_CONN_CONNECTING ? "connecting to" :
							   conn->greeted ? "logging in at" : "agreeing on TLS with",
							   conn->peer);
			break;
		case RINQ_CONN_CLOSING:
			if (conn->now >= conn->give_up_at)
				rinq_conn_end(conn);
			break;
		case RINQ_CONN_OPEN:
			if (conn->heartbeat == 0)
				break;
			if (input_dry && conn->now - conn->last_rx >= conn->heartbeat * INT64_C(2000))
				rinq_conn_fail(conn, RINQ_CONN_ERR_HEARTBEAT,
							   "heard nothing from %s for %d seconds",
							   conn->peer, 2 * conn->heartbeat);
			else if (conn->out_start == conn->out_end &&
					 conn->now - conn->last_tx >= conn->heartbeat * INT64_C(500))
				rinq_out_heartbeat(conn);
			break;
		case RINQ_CONN_CLOSED:
			break;
	}
}

bool
rinq_conn_step(RinqConn *conn, int64_t now_ms, int max_frames)
{
	bool		input_dry = false;

	conn->now = now_ms;
	if (conn->state == RINQ_CONN_CONNECTING && !finish_connect(conn))
	{
		check_deadlines(conn, true);
		return false;
	}
	if (conn->state == RINQ_CONN_CLOSED)
		return false;
	if (!finish_transport(conn))
	{
		check_deadlines(conn, true);
		return rinq_transport_has_more(conn);
	}

	rinq_out_send(conn);
	input_dry = read_frames(conn, max_frames);

	if (conn->state != RINQ_CONN_CLOSED && conn->send_errno != 0 && input_dry)
		rinq_conn_fail(conn, RINQ_CONN_ERR_IO, "lost the connection to %s: %s",
					   conn->peer, strerror(conn->send_errno));
	if (conn->state != RINQ_CONN_CLOSED && conn->out_full)
		rinq_conn_does_not_read(conn);
	check_deadlines(conn, input_dry);
	if (conn->state == RINQ_CONN_CLOSED)
		return false;

	/* of an open one, the owner says when all that it has to send is there */
	if (conn->state != RINQ_CONN_OPEN)
		rinq_out_send(conn);
	return rinq_frame_ready(conn) || rinq_transport_has_more(conn);
}

void
rinq_conn_flush(RinqConn *conn, int64_t now_ms)
{
	if (conn->state == RINQ_CONN_CLOSED || !conn->greeted)
		return;
	conn->now = now_ms;
	rinq_out_send(conn);
}

void
rinq_conn_close(RinqConn *conn, int64_t now_ms)
{
	int			timeout = conn->connection_timeout < CLOSE_TIMEOUT_MS ?
		conn->connection_timeout : CLOSE_TIMEOUT_MS;

	if (conn->state == RINQ_CONN_CLOSED || conn->state == RINQ_CONN_CLOSING)
		return;
	if (conn->state != RINQ_CONN_OPEN)
	{
		rinq_conn_end(conn);
		return;
	}
	conn->now = now_ms;
	conn->give_up_at = now_ms + timeout;
	rinq_send_connection_close(conn);
	conn->state = RINQ_CONN_CLOSING;
}
