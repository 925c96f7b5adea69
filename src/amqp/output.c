/*-------------------------------------------------------------------------
 *
 * output.c
 *	  The output buffer of a connection.
 *
 * Whole frames are appended; the socket takes from the front what it can.  An
 * append either succeeds completely or leaves the buffer as it was.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/connection_internal.h"

#define OUT_INITIAL		16384

/*
 * What may wait beyond the messages that are published, which have a limit of
 * their own: settlements, requests, and replies that the broker asks for.  One
 * that sends, and does not read, could make it grow for ever.
 */
#define OUT_UNPUBLISHED	(8 * 1024 * 1024)

/* A drained buffer larger than this is given back. */
#define OUT_KEEP		(1024 * 1024)

/*
 * Return the bytes that may wait in the output: the last message is published
 * when the backlog is just below its limit.
 */
static size_t
out_limit(const RinqConn *conn)
{
	return conn->max_backlog + conn->max_body + OUT_UNPUBLISHED;
}

/*
 * Make room for len more bytes at the end.  False when there is no memory, or so
 * much waits that the next step has to end the connection.
 */
bool
rinq_out_reserve(RinqConn *conn, size_t len)
{
	size_t		pending = conn->out_end - conn->out_start;
	size_t		cap;
	char	   *grown;

	RINQ_ASSERT(conn->out_start <= conn->out_end && conn->out_end <= conn->out_cap);

	if (pending + len > out_limit(conn))
	{
		conn->out_full = true;
		return false;
	}
	if (conn->out_cap - conn->out_end >= len)
		return true;

	/* moving pays off only when it frees at least as much as it moves */
	if (conn->out_start >= pending && conn->out_cap - pending >= len)
	{
		memcpy(conn->out, conn->out + conn->out_start, pending);
		conn->out_start = 0;
		conn->out_end = pending;
		return true;
	}

	cap = conn->out_cap > 0 ? conn->out_cap : OUT_INITIAL;
	while (cap - pending < len)
	{
		if (cap > SIZE_MAX / 2)
			return false;
		cap *= 2;
	}
	grown = malloc(cap);
	if (grown == NULL)
		return false;
	if (pending > 0)
		memcpy(grown, conn->out + conn->out_start, pending);
	rinq_out_free(conn);
	conn->out = grown;
	conn->out_cap = cap;
	conn->out_end = pending;
	return true;
}

/*
 * Free the output buffer, wiped: it has had the password in it, so it does not
 * go back to the heap as is.
 */
void
rinq_out_free(RinqConn *conn)
{
	if (conn->out != NULL && conn->user != NULL)
		explicit_bzero(conn->out, conn->out_cap);
	free(conn->out);
	conn->out = NULL;
	conn->out_cap = 0;
	conn->out_start = 0;
	conn->out_end = 0;
}

void
rinq_out_frame_head(char *at, uint8_t type, uint16_t channel, size_t payload)
{
	RINQ_ASSERT(payload <= RINQ_FRAME_MAX);
	at[0] = (char) type;
	at[1] = (char) (channel >> 8);
	at[2] = (char) channel;
	at[3] = (char) (payload >> 24);
	at[4] = (char) (payload >> 16);
	at[5] = (char) (payload >> 8);
	at[6] = (char) payload;
}

/*
 * Append a method frame; max_args is an upper bound for the encoded size of
 * the arguments.  False if out of memory.
 */
bool
rinq_out_method(RinqConn *conn, uint16_t channel, amqp_method_number_t id,
				void *method, size_t max_args)
{
	amqp_bytes_t target;
	char	   *at;
	int			args;

	if (!rinq_out_reserve(conn, RINQ_FRAME_OVERHEAD + 4 + max_args))
		return false;
	at = conn->out + conn->out_end;
	target.bytes = at + RINQ_FRAME_HEAD + 4;
	target.len = max_args;
	args = amqp_encode_method(id, method, target);
	if (args < 0)
		return false;
	RINQ_ASSERT((size_t) args <= max_args);

	rinq_out_frame_head(at, AMQP_FRAME_METHOD, channel, 4 + (size_t) args);
	at[7] = (char) (id >> 24);
	at[8] = (char) (id >> 16);
	at[9] = (char) (id >> 8);
	at[10] = (char) id;
	at[11 + args] = (char) RINQ_FRAME_END;
	conn->out_end += RINQ_FRAME_OVERHEAD + 4 + (size_t) args;
	return true;
}

void
rinq_out_heartbeat(RinqConn *conn)
{
	char	   *at;

	/* without memory for eight bytes the broker will miss a heartbeat */
	if (!rinq_out_reserve(conn, RINQ_FRAME_OVERHEAD))
		return;
	at = conn->out + conn->out_end;
	rinq_out_frame_head(at, AMQP_FRAME_HEARTBEAT, 0, 0);
	at[RINQ_FRAME_HEAD] = (char) RINQ_FRAME_END;
	conn->out_end += RINQ_FRAME_OVERHEAD;
}

static void
reset_drained(RinqConn *conn)
{
	RINQ_ASSERT(conn->out_start == conn->out_end);
	conn->out_start = 0;
	conn->out_end = 0;
	if (conn->out_cap > OUT_KEEP)
		rinq_out_free(conn);
}

/*
 * Send what the socket takes.  An error is only noted: the broker may have
 * told the reason before it closed, and that is still to be read.
 */
void
rinq_out_send(RinqConn *conn)
{
	while (conn->out_start < conn->out_end && conn->send_errno == 0)
	{
		size_t		sent;
		RinqIoResult result = rinq_transport_send(conn, conn->out + conn->out_start,
												  conn->out_end - conn->out_start, &sent);

		if (result == RINQ_IO_AGAIN)
			return;
		if (result != RINQ_IO_DONE)
			conn->send_errno = errno;
		else
		{
			conn->out_start += sent;
			RINQ_ASSERT(conn->out_start <= conn->out_end);
			conn->last_tx = conn->now;
		}
	}
	if (conn->out_start == conn->out_end)
		reset_drained(conn);
}
