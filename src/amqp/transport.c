/*-------------------------------------------------------------------------
 *
 * transport.c
 *	  Bytes of a connection, to and from its socket: plain, or through TLS.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "amqp/connection_internal.h"

/* ---------------- receiving ---------------- */

static RinqIoResult
receive_plain(RinqConn *conn, void *buf, size_t room, size_t *received)
{
	ssize_t		n;

	*received = 0;
	do
		n = recv(conn->fd, buf, room, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);

	if (n > 0)
	{
		*received = (size_t) n;
		conn->last_rx = conn->now;
		return RINQ_IO_DONE;
	}
	if (n == 0)
		return RINQ_IO_EOF;
	return errno == EAGAIN || errno == EWOULDBLOCK ? RINQ_IO_AGAIN : RINQ_IO_FAILED;
}

/* Receive; a part of a record is a sign of life, like a part of a frame. */
static RinqIoResult
receive_tls(RinqConn *conn, void *buf, size_t room, size_t *received)
{
	uint64_t	before = rinq_tls_bytes_in(conn->tls);
	RinqIoResult result = rinq_tls_receive(conn->tls, buf, room, received);

	if (rinq_tls_bytes_in(conn->tls) != before)
		conn->last_rx = conn->now;
	return result;
}

/* Receive what is there.  When this fails, errno or rinq_transport_error() says why. */
RinqIoResult
rinq_transport_receive(RinqConn *conn, void *buf, size_t room, size_t *received)
{
	return conn->tls != NULL ? receive_tls(conn, buf, room, received) :
		receive_plain(conn, buf, room, received);
}

/* Tell whether received bytes wait that the socket does not show. */
bool
rinq_transport_has_more(const RinqConn *conn)
{
	return conn->tls != NULL && rinq_tls_has_more(conn->tls);
}

/* ---------------- sending ---------------- */

static RinqIoResult
send_plain(RinqConn *conn, const void *data, size_t len, size_t *sent)
{
	ssize_t		n;

	*sent = 0;
	do
		n = send(conn->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);

	if (n >= 0)
	{
		*sent = (size_t) n;
		return RINQ_IO_DONE;
	}
	return errno == EAGAIN || errno == EWOULDBLOCK ? RINQ_IO_AGAIN : RINQ_IO_FAILED;
}

/* Send what the socket takes.  When this fails, errno says why. */
RinqIoResult
rinq_transport_send(RinqConn *conn, const void *data, size_t len, size_t *sent)
{
	return conn->tls != NULL ? rinq_tls_send(conn->tls, data, len, sent) :
		send_plain(conn, data, len, sent);
}

/* ---------------- beginning and end ---------------- */

/* Return why receiving failed, as a sentence of its own, or "" when errno says it. */
const char *
rinq_transport_error(const RinqConn *conn)
{
	return conn->tls != NULL ? rinq_tls_error(conn->tls) : "";
}

/* End the connection because TLS was not agreed upon. */
static void
handshake_failed(RinqConn *conn, RinqIoResult result)
{
	int			reason = errno;
	const char *error = rinq_tls_error(conn->tls);

	if (error[0] != '\0')
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS, "could not agree on TLS with %s: %s", conn->peer, error);
	else if (result == RINQ_IO_EOF || (reason == ECONNRESET && rinq_tls_bytes_in(conn->tls) == 0))
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS,
					   rinq_tls_bytes_in(conn->tls) == 0 ?
					   "could not agree on TLS with %s: it closed the connection without a word, as a server may that does not speak TLS on this port" :
					   "could not agree on TLS with %s: it closed the connection", conn->peer);
	else
		rinq_conn_fail(conn, RINQ_CONN_ERR_TLS, "could not agree on TLS with %s: %s",
					   conn->peer, strerror(reason));
}

/*
 * Get on with what comes before the first byte of AMQP.  True when it is done;
 * false when it waits, or the connection has ended.
 */
bool
rinq_transport_ready(RinqConn *conn)
{
	RinqIoResult result;
	uint64_t	before;

	if (conn->tls == NULL || rinq_tls_is_up(conn->tls))
		return true;
	before = rinq_tls_bytes_in(conn->tls);
	result = rinq_tls_handshake(conn->tls);
	if (rinq_tls_bytes_in(conn->tls) != before)
		conn->last_rx = conn->now;
	if (result == RINQ_IO_EOF || result == RINQ_IO_FAILED)
		handshake_failed(conn, result);
	return result == RINQ_IO_DONE;
}

/* Begin with a socket that has just been connected. */
void
rinq_transport_begin(RinqConn *conn)
{
	if (conn->tls != NULL && !rinq_tls_start(conn->tls, conn->fd))
		handshake_failed(conn, RINQ_IO_FAILED);
}
