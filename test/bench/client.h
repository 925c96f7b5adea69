/*-------------------------------------------------------------------------
 *
 * client.h
 *	  What the benchmark programs share: a connection and its event loop.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "amqp/connection.h"
#include "base/broker.h"
#include "base/ident.h"

#define CHANNEL			1
#define FRAMES_PER_STEP	64
#define PREFETCH		1000

static inline int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static inline int64_t
now_ms(void)
{
	return now_ns() / 1000000;
}

static inline void
die(const char *what, const char *detail)
{
	fprintf(stderr, "%s: %s\n", what, detail);
	exit(1);
}

static inline void
must(RinqMsgStatus status)
{
	if (status != RINQ_MSG_OK)
		die("request failed", rinq_msg_status_text(status));
}

static inline RinqConn *
connect_to(const RinqBroker *dsn, const RinqConnCallbacks *callbacks, void *arg)
{
	RinqConnConfig config = {0};
	char		peer[RINQ_BROKER_DESCRIBE_SIZE];
	char		port[16];
	struct addrinfo *addr;
	RinqConn   *conn;

	snprintf(port, sizeof(port), "%d", rinq_broker_port(dsn, 0));
	if (getaddrinfo(dsn->hosts[0].host, port, NULL, &addr) != 0)
		die("cannot resolve", dsn->hosts[0].host);
	config.user = dsn->user;
	config.password = dsn->password;
	config.vhost = dsn->vhost;
	config.product = "raw";
	config.version = "1";
	config.peer = rinq_broker_describe(dsn, 0, peer, sizeof(peer));
	config.heartbeat = 20;
	config.connection_timeout = 10000;
	config.max_body = 1024 * 1024;
	config.max_backlog = 8 * 1024 * 1024;
	conn = rinq_conn_create(&config, callbacks, arg);
	if (conn == NULL)
		die("connect", "out of memory");
	rinq_conn_connect(conn, addr->ai_addr, addr->ai_addrlen, now_ms());
	freeaddrinfo(addr);
	return conn;
}

/* One turn of the event loop; does not wait when there is nothing to wait for. */
static inline void
turn_loop(RinqConn *conn, const bool *done)
{
	struct pollfd pfd;
	int64_t		deadline;
	bool		more = rinq_conn_step(conn, now_ms(), FRAMES_PER_STEP);

	rinq_conn_flush(conn, now_ms());
	if (!more)
	{
		if (rinq_conn_state(conn) == RINQ_CONN_CLOSED)
			die("connection", rinq_conn_error(conn));
		if (*done)
			return;
		pfd.fd = rinq_conn_fd(conn);
		pfd.events = POLLIN | (rinq_conn_wants_write(conn) ? POLLOUT : 0);
		deadline = rinq_conn_next_deadline(conn) - now_ms();
		poll(&pfd, 1, deadline < 0 ? 0 : deadline > 1000 ? 1000 : (int) deadline);
	}
}

static inline int
compare_times(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

#endif							/* BENCH_CLIENT_H */
