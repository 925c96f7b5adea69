/*-------------------------------------------------------------------------
 *
 * failure.c
 *	  The end of a connection: for a reason that is noted, and without leaving
 *	  secrets behind.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "amqp/connection_internal.h"

static void
wipe_and_free(char **text)
{
	if (*text != NULL)
	{
		explicit_bzero(*text, strlen(*text));
		free(*text);
		*text = NULL;
	}
}

/* Login is over: nothing of the secrets stays in memory. */
void
rinq_conn_forget_credentials(RinqConn *conn)
{
	if (conn->out != NULL && conn->user != NULL)
	{
		/* sent bytes before, free space after what is still waiting */
		explicit_bzero(conn->out, conn->out_start);
		explicit_bzero(conn->out + conn->out_end, conn->out_cap - conn->out_end);
	}
	wipe_and_free(&conn->user);
	wipe_and_free(&conn->password);
}

/* End the connection, for the reason already noted, if any. */
void
rinq_conn_end(RinqConn *conn)
{
	if (conn->fd >= 0)
	{
		if (conn->tls != NULL)
			rinq_tls_goodbye(conn->tls);
		close(conn->fd);
	}
	conn->fd = -1;
	conn->state = RINQ_CONN_CLOSED;
	conn->blocked = false;
}

/*
 * Tell whether the login may have ended because the frame with the password was
 * larger than what the broker takes before it has agreed to more.
 */
static bool
password_too_long(const RinqConn *conn, RinqConnErrorClass error_class)
{
	return conn->state == RINQ_CONN_HANDSHAKE && !conn->tune_seen && conn->login_oversize &&
		(error_class == RINQ_CONN_ERR_IO || error_class == RINQ_CONN_ERR_CLOSED_BY_BROKER ||
		 error_class == RINQ_CONN_ERR_TIMEOUT);
}

static void
note_error(RinqConn *conn, RinqConnErrorClass error_class, const char *text)
{
	if (conn->state == RINQ_CONN_CLOSED)
		return;
	conn->error_class = error_class;
	if (password_too_long(conn, error_class))
		snprintf(conn->error, sizeof(conn->error),
				 "%s, most likely for the length of the password: the login takes %zu bytes, and RabbitMQ before 4.1 allows 4096, from 4.1 on 8192",
				 text, conn->login_size);
	else
		snprintf(conn->error, sizeof(conn->error), "%s", text);
	rinq_conn_end(conn);
}

void
rinq_conn_fail(RinqConn *conn, RinqConnErrorClass error_class, const char *fmt,...)
{
	char		text[sizeof(conn->error) - 160];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	note_error(conn, error_class, text);
}

/* End the connection because the other side broke the rules of AMQP. */
void
rinq_conn_protocol_error(RinqConn *conn, const char *fmt,...)
{
	char		detail[256];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	rinq_conn_fail(conn, RINQ_CONN_ERR_PROTOCOL,
				   "protocol error on the connection to %s: %s",
				   conn->peer, detail);
}

/* End a connection whose other side does not read. */
void
rinq_conn_does_not_read(RinqConn *conn)
{
	rinq_conn_fail(conn, RINQ_CONN_ERR_IO,
				   "%s does not read what it is sent, of which %zu bytes wait",
				   conn->peer, rinq_conn_backlog(conn));
}

void
rinq_conn_no_memory(RinqConn *conn)
{
	if (conn->out_full)
		rinq_conn_does_not_read(conn);
	else
		rinq_conn_fail(conn, RINQ_CONN_ERR_RESOURCE,
					   "out of memory on the connection to %s", conn->peer);
}
