/*-------------------------------------------------------------------------
 *
 * broker_test.c
 *	  The connection layer against a real broker.
 *
 * usage: broker_test DSN
 *
 * Not part of "make check", which needs no broker; see the Makefile.
 *
 *-------------------------------------------------------------------------
 */
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "amqp/connection.h"
#include "base/broker.h"
#include "check.h"

#define TEXT(s) rinq_bytes_str(s)
#define PATIENCE_MS 10000

static RinqBroker dsn;
static RinqConn *conn;
static char said[65536];
static size_t said_len;
static char *last_body;
static size_t last_body_len;

static void note(const char *fmt,...) __attribute__((format(printf, 1, 2)));

static void
note(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	said_len += (size_t) vsnprintf(said + said_len, sizeof(said) - said_len, fmt, args);
	va_end(args);
	if (said_len > sizeof(said) - 1000)
		said_len = 0;
}

static void
on_open(void *arg)
{
	(void) arg;
	note("open\n");
}

static void
on_reply(void *arg, const RinqReply *r)
{
	(void) arg;
	note("reply %u kind=%d cookie=%llu counts=%u,%u\n", r->channel, r->kind,
		 (unsigned long long) r->cookie, r->message_count, r->consumer_count);
}

static void
on_channel_closed(void *arg, const RinqAmqpChannelClosed *c)
{
	(void) arg;
	note("closed %u %u %s request=%d cookie=%llu\n", c->channel, c->code, c->method,
		 c->request_failed, (unsigned long long) c->cookie);
}

static void
on_delivery(void *arg, const RinqDelivery *d)
{
	(void) arg;
	note("delivery %u tag=%llu%s ns=%.*s c=%.*s dl=%lld prio=%d size=%llu%s\n",
		 d->channel,
		 (unsigned long long) d->delivery_tag, d->redelivered ? " again" : "",
		 (int) d->message.ns.len, d->message.ns.data != NULL ? d->message.ns.data : "",
		 (int) d->message.command.len, d->message.command.data != NULL ? d->message.command.data : "",
		 (long long) d->message.deadline, d->message.has_priority ? d->message.priority : -1,
		 (unsigned long long) d->body_size, d->oversize ? " oversize" : "");
	if (d->body.data != NULL)
	{
		last_body = realloc(last_body, d->body.len + 1);
		memcpy(last_body, d->body.data, d->body.len);
		last_body_len = d->body.len;
	}
	(void) rinq_basic_ack(conn, d->channel, d->delivery_tag, false);
}

static void
on_return(void *arg, const RinqReturn *r)
{
	(void) arg;
	note("return %u %u %s\n", r->channel, r->code, r->text);
}

static void
on_confirm(void *arg, uint16_t channel, uint64_t tag, bool multiple, bool nack)
{
	(void) arg;
	(void) multiple;
	note("confirm %u %llu%s\n", channel, (unsigned long long) tag, nack ? " nack" : "");
}

static void
on_cancel(void *arg, uint16_t channel, RinqBytes tag)
{
	(void) arg;
	note("cancel %u %.*s\n", channel, (int) tag.len, tag.data);
}

static const RinqConnCallbacks callbacks = {
	.on_open = on_open,.on_reply = on_reply,.on_channel_closed = on_channel_closed,
	.on_delivery = on_delivery,.on_return = on_return,.on_confirm = on_confirm,
	.on_cancel = on_cancel
};

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* Runs the event loop until the callbacks have said this, or all is over. */
static bool
wait_for(const char *what)
{
	int64_t		give_up = now_ms() + PATIENCE_MS;

	while (rinq_conn_state(conn) != RINQ_CONN_CLOSED && now_ms() < give_up)
	{
		struct pollfd pfd;

		said[said_len] = '\0';
		if (what != NULL && strstr(said, what) != NULL)
			return check_that(true, what, __FILE__, __LINE__);
		if (rinq_conn_step(conn, now_ms(), 64))
			continue;
		rinq_conn_flush(conn, now_ms());
		pfd.fd = rinq_conn_fd(conn);
		pfd.events = POLLIN | (rinq_conn_wants_write(conn) ? POLLOUT : 0);
		said[said_len] = '\0';
		if (pfd.fd >= 0 && (what == NULL || strstr(said, what) == NULL))
			poll(&pfd, 1, 100);
	}
	said[said_len] = '\0';
	if (what == NULL)
		return check_that(rinq_conn_state(conn) == RINQ_CONN_CLOSED, "closed", __FILE__, __LINE__);
	return check_contains(said, what, "what was said", __FILE__, __LINE__);
}

static void
forget(void)
{
	said_len = 0;
	said[0] = '\0';
}

static void
start(const RinqBroker *where)
{
	RinqConnConfig config = {0};
	char		peer[RINQ_BROKER_DESCRIBE_SIZE];
	char		port[16];
	struct addrinfo *addr;

	forget();
	config.user = where->user;
	config.password = where->password;
	config.vhost = where->vhost;
	config.product = "broker_test";
	config.version = "0";
	config.peer = rinq_broker_describe(where, 0, peer, sizeof(peer));
	config.heartbeat = 1;
	config.connection_timeout = 5000;
	config.max_body = 20 * 1024 * 1024;
	config.max_backlog = 64 * 1024 * 1024;
	conn = rinq_conn_create(&config, &callbacks, NULL);
	snprintf(port, sizeof(port), "%d", rinq_broker_port(where, 0));
	if (getaddrinfo(where->hosts[0].host, port, NULL, &addr) != 0)
	{
		printf("cannot resolve %s\n", where->hosts[0].host);
		exit(1);
	}
	rinq_conn_connect(conn, addr->ai_addr, addr->ai_addrlen, now_ms());
	freeaddrinfo(addr);
}

static void
start_open(void)
{
	start(&dsn);
	wait_for("open\n");
	forget();
}

static void
test_refused_logins(void)
{
	RinqBroker	wrong = dsn;

	strcpy(wrong.password, "wrong-s3cret");
	start(&wrong);
	wait_for(NULL);
	CHECK_INT(rinq_conn_error_class(conn), RINQ_CONN_ERR_AUTH);
	CHECK_CONTAINS(rinq_conn_error(conn), "403 ACCESS_REFUSED");
	CHECK(strstr(rinq_conn_error(conn), "s3cret") == NULL);
	rinq_conn_destroy(conn);

	wrong = dsn;
	strcpy(wrong.vhost, "no-such-vhost");
	start(&wrong);
	wait_for(NULL);
	CHECK_INT(rinq_conn_error_class(conn), RINQ_CONN_ERR_AUTH);
	CHECK_CONTAINS(rinq_conn_error(conn), "530 NOT_ALLOWED");
	rinq_conn_destroy(conn);
}

/* Declares an exclusive queue with a binding and a consumer, all pipelined. */
static void
test_messages(void)
{
	RinqMessage m = {0};
	char	   *big = malloc(16 * 1024 * 1024);

	start_open();
	CHECK_STR(rinq_conn_server_product(conn), "RabbitMQ");
	CHECK_INT(rinq_broker_version_check(rinq_conn_server_product(conn),
										rinq_conn_server_version(conn)), RINQ_BROKER_OK);
	CHECK_INT(rinq_conn_heartbeat(conn), 1);
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_amqp_channel_open(conn, 2, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_exchange_declare(conn, 1, TEXT("cmd.bal"), TEXT("direct"), false, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_exchange_declare(conn, 1, TEXT("cmd.rsp"), TEXT("topic"), false, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(conn, 1, TEXT("bt.req"), false, true, 3, NULL, 1), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_bind(conn, 1, TEXT("bt.req"), TEXT("cmd.bal"), TEXT("bt"), 2), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_qos(conn, 1, 10, false, 3), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_consume(conn, 1, TEXT("bt.req"), TEXT("bt.req"), true, 4), RINQ_MSG_OK);
	CHECK_INT(rinq_confirm_select(conn, 2, 5), RINQ_MSG_OK);
	wait_for("kind=10 cookie=5");
	wait_for("kind=8 cookie=4");	/* channels are not in step */

	m.message_id = TEXT("58AEE146-191C.1@0#1");
	m.ns = TEXT("bt");
	m.command = TEXT("cmd");
	m.priority = 1;
	m.has_priority = true;
	m.deadline = -42;
	m.has_deadline = true;
	CHECK_INT(rinq_basic_publish(conn, 2, TEXT("cmd.bal"), TEXT("bt"), true, &m, "hello", 5), RINQ_MSG_OK);
	wait_for("delivery 1 tag=1 ns=bt c=cmd dl=-42 prio=1 size=5\n");
	wait_for("confirm 2 1\n");
	CHECK(last_body_len == 5 && memcmp(last_body, "hello", 5) == 0);

	CHECK_INT(rinq_basic_publish(conn, 2, TEXT("cmd.bal"), TEXT("nobody"), true, &m, "", 0), RINQ_MSG_OK);
	wait_for("return 2 312 NO_ROUTE\n");
	wait_for("confirm 2 2\n");

	for (size_t i = 0; i < 16 * 1024 * 1024; i++)
		big[i] = (char) (i * 2654435761u >> 13);
	CHECK_INT(rinq_basic_publish(conn, 2, TEXT("cmd.bal"), TEXT("bt"), true, &m, big, 16 * 1024 * 1024), RINQ_MSG_OK);
	wait_for("delivery 1 tag=2 ns=bt c=cmd dl=-42 prio=1 size=16777216\n");
	CHECK(last_body_len == 16 * 1024 * 1024 && memcmp(last_body, big, last_body_len) == 0);
	free(big);

	/* the consumer is told when its queue goes */
	CHECK_INT(rinq_queue_delete(conn, 1, TEXT("bt.req"), 6), RINQ_MSG_OK);
	wait_for("kind=6 cookie=6");
	wait_for("cancel 1 bt.req\n");
	rinq_conn_close(conn, now_ms());
	wait_for(NULL);
	CHECK_INT(rinq_conn_error_class(conn), RINQ_CONN_ERR_NONE);
	rinq_conn_destroy(conn);
}

static void
test_channel_errors(void)
{
	RinqMessage m = {0};
	RinqConn   *other;

	start_open();
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(conn, 1, TEXT("BT01"), false, true, 0, NULL, 0), RINQ_MSG_OK);
	wait_for("kind=3");
	other = conn;

	/* a peer id that is taken */
	start_open();
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(conn, 1, TEXT("BT01"), false, true, 0, NULL, 7), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(conn, 1, TEXT("BT02"), false, true, 0, NULL, 8), RINQ_MSG_OK);
	wait_for("closed 1 405 queue.declare request=1 cookie=7\n");
	forget();
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 9), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(conn, 1, TEXT("BT03"), false, true, 0, NULL, 10), RINQ_MSG_OK);
	wait_for("kind=3 cookie=10");

	/* without a request: an exchange that is not there, while one waits */
	CHECK_INT(rinq_basic_publish(conn, 1, TEXT("no-such-exchange"), TEXT("k"), false, &m, "", 0), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_qos(conn, 1, 1, false, 11), RINQ_MSG_OK);
	wait_for("closed 1 404 basic.publish request=0 cookie=0\n");
	forget();

	/* a close that crosses the broker's, and the same number again at once */
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 12), RINQ_MSG_OK);
	wait_for("kind=0 cookie=12");
	CHECK_INT(rinq_basic_ack(conn, 1, 999, false), RINQ_MSG_OK);
	CHECK_INT(rinq_amqp_channel_close(conn, 1, 13), RINQ_MSG_OK);
	wait_for("closed 1 406 basic.ack request=0 cookie=0\n");
	forget();
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 14), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_qos(conn, 1, 1, false, 15), RINQ_MSG_OK);
	wait_for("kind=7 cookie=15");
	CHECK_INT(rinq_amqp_channel_close(conn, 1, 16), RINQ_MSG_OK);
	wait_for("kind=1 cookie=16");
	CHECK_INT(rinq_amqp_channel_open(conn, 1, 17), RINQ_MSG_OK);
	wait_for("kind=0 cookie=17");

	/* another kind of exchange under the same name */
	CHECK_INT(rinq_exchange_declare(conn, 1, TEXT("cmd.bal"), TEXT("topic"), false, 18), RINQ_MSG_OK);
	wait_for("closed 1 406 exchange.declare request=1 cookie=18\n");
	rinq_conn_destroy(conn);
	conn = other;
	rinq_conn_destroy(conn);
}

/* Idle for several heartbeats of one second: nobody gives up. */
static void
test_idle(void)
{
	int64_t		until;

	start_open();
	until = now_ms() + 4500;
	while (now_ms() < until && rinq_conn_state(conn) == RINQ_CONN_OPEN)
	{
		struct pollfd pfd = {.fd = rinq_conn_fd(conn),.events = POLLIN};
		int64_t		wait = rinq_conn_next_deadline(conn) - now_ms();

		poll(&pfd, 1, wait > 0 ? (int) wait : 0);
		(void) rinq_conn_step(conn, now_ms(), 64);
		rinq_conn_flush(conn, now_ms());
	}
	CHECK_INT(rinq_conn_state(conn), RINQ_CONN_OPEN);
	CHECK_STR(rinq_conn_error(conn), "");
	rinq_conn_destroy(conn);
}

int
main(int argc, char **argv)
{
	char		err[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 2)
	{
		fprintf(stderr, "usage: %s DSN\n", argv[0]);
		return 2;
	}
	if (!rinq_broker_parse(argv[1], &dsn, err, sizeof(err)))
	{
		fprintf(stderr, "%s\n", err);
		return 2;
	}
	test_refused_logins();
	test_messages();
	test_channel_errors();
	test_idle();
	free(last_body);
	return check_summary();
}
