/*-------------------------------------------------------------------------
 *
 * connection_test.c
 *	  Connections against a fake broker: login, deadlines, heartbeats, ends.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "fake.h"

static bool
contains(const unsigned char *data, size_t len, const char *what, size_t whatlen)
{
	return memmem(data, len, what, whatlen) != NULL;
}

/* The connection has ended with this class, and its error says that. */
static void
ended(Fake *f, RinqConnErrorClass error_class, const char *part)
{
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
	CHECK_INT(rinq_conn_error_class(f->conn), error_class);
	CHECK_CONTAINS(rinq_conn_error(f->conn), part);
	CHECK(strstr(rinq_conn_error(f->conn), "s3cret") == NULL);
	CHECK_INT(rinq_conn_fd(f->conn), -1);
	CHECK(!rinq_conn_wants_write(f->conn));
	CHECK_INT(rinq_conn_next_deadline(f->conn), RINQ_CONN_NO_DEADLINE);
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	CHECK_INT(rinq_amqp_channel_open(f->conn, 1, 0), RINQ_MSG_NOT_OPEN);
	fake_free(f);
}

/* ---------------- login ---------------- */

static void
test_login(void)
{
	Fake	   *f = fake_new();
	unsigned char *sent;
	size_t		len;

	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CONNECTING);
	CHECK_STR(rinq_conn_server_product(f->conn), "");
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_HANDSHAKE);
	sent = fake_sent_bytes(f, &len);
	CHECK(len == 8 && memcmp(sent, "AMQP\0\0\x09\x01", 8) == 0);

	put_start(f, "RabbitMQ", "3.10.8", "AMQPLAIN PLAIN");
	fake_send(f);
	sent = fake_sent_bytes(f, &len);
	CHECK(contains(sent, len, "\0\0\0\x10\0joe-user\0s3cret", 20));
	CHECK(contains(sent, len, "\x05PLAIN", 6));
	CHECK(contains(sent, len, "\x07product" "S\0\0\0\x09unit test", 22));
	CHECK(contains(sent, len, "\x07version" "S\0\0\0\x03" "0.1", 16));
	CHECK(contains(sent, len, "\x0c" "capabilitiesF", 14));
	CHECK(contains(sent, len, "publisher_confirmst\x01", 20));
	CHECK(contains(sent, len, "exchange_exchange_bindingst\x01", 28));
	CHECK(contains(sent, len, "basic.nackt\x01", 12));
	CHECK(contains(sent, len, "consumer_cancel_notifyt\x01", 24));
	CHECK(contains(sent, len, "connection.blockedt\x01", 20));
	CHECK(contains(sent, len, "authentication_failure_closet\x01", 30));
	CHECK_STR(rinq_conn_server_product(f->conn), "RabbitMQ");
	CHECK_STR(rinq_conn_server_version(f->conn), "3.10.8");

	put_tune(f, 2047, 131072, 60);
	fake_send(f);
	sent = fake_sent_bytes(f, &len);
	CHECK(len == 20 + 7 + 4 + 3 + 2 + 1 &&
		  memcmp(sent, "\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\x03\xff\0\x02\0\0\0\x0a\xce", 20) == 0);
	CHECK(contains(sent, len, "\x02/v", 3));
	CHECK_STR(fake_log(f), "");
	CHECK_INT(rinq_amqp_channel_open(f->conn, 1, 0), RINQ_MSG_NOT_OPEN);

	put_open_ok(f);
	fake_send(f);
	CHECK_STR(fake_log(f), "open\n");
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	CHECK_STR(rinq_conn_error(f->conn), "");
	CHECK_INT(rinq_conn_heartbeat(f->conn), 10);
	CHECK_INT(rinq_conn_channel_max(f->conn), RINQ_CONN_MAX_CHANNEL);
	CHECK_INT(rinq_conn_frame_max(f->conn), 131072);
	fake_free(f);
}

static void
test_login_bytewise(void)
{
	Fake	   *f = fake_new();

	put_start(f, "RabbitMQ", "4.0.1", "PLAIN");
	put_tune(f, 0, 0, 0);
	put_open_ok(f);
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f), "open\n");
	CHECK_STR(fake_sent(f), "greeting 0:10.11 0:10.31 0:10.40 ");
	CHECK_INT(rinq_conn_frame_max(f->conn), 131072);	/* no limit there */
	CHECK_INT(rinq_conn_channel_max(f->conn), RINQ_CONN_MAX_CHANNEL);
	CHECK_INT(rinq_conn_heartbeat(f->conn), 0);
	CHECK_INT(rinq_conn_next_deadline(f->conn), RINQ_CONN_NO_DEADLINE);
	fake_free(f);
}

static Fake *
tuned(unsigned channel_max, uint32_t frame_max, unsigned heartbeat)
{
	Fake	   *f = fake_new();

	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_tune(f, channel_max, frame_max, heartbeat);
	put_open_ok(f);
	fake_send(f);
	return f;
}

static void
test_tuning(void)
{
	Fake	   *f = tuned(3, 4096, 5);

	CHECK_INT(rinq_conn_channel_max(f->conn), 3);
	CHECK_INT(rinq_conn_frame_max(f->conn), 4096);
	CHECK_INT(rinq_conn_heartbeat(f->conn), 5);
	CHECK_INT(rinq_amqp_channel_open(f->conn, 3, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_amqp_channel_open(f->conn, 4, 0), RINQ_MSG_BAD_CHANNEL);
	CHECK_INT(rinq_amqp_channel_open(f->conn, 0, 0), RINQ_MSG_BAD_CHANNEL);
	CHECK_INT(rinq_amqp_channel_open(f->conn, 65535, 0), RINQ_MSG_BAD_CHANNEL);
	fake_free(f);

	f = tuned(1, UINT32_MAX, 65535);
	CHECK_INT(rinq_conn_frame_max(f->conn), 131072);
	CHECK_INT(rinq_conn_heartbeat(f->conn), 10);
	fake_free(f);

	ended(tuned(1, 4095, 5), RINQ_CONN_ERR_PROTOCOL, "at most 4095 bytes");
}

static void
test_login_refused(void)
{
	Fake	   *f = fake_new();

	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_close(f, 0, 403, "ACCESS_REFUSED - Login joe-user/s3cret\x01\xc3\xa4 was refused", 0);
	fake_send(f);
	CHECK_STR(fake_sent(f), "greeting 0:10.11 0:10.51 ");
	CHECK_STR(rinq_conn_error(f->conn),
			  "fake:1/v refused the login: 403 ACCESS_REFUSED - Login ********/******??? was refused");
	ended(f, RINQ_CONN_ERR_AUTH, "403 ACCESS_REFUSED");

	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_tune(f, 0, 0, 0);
	put_close(f, 0, 530, "NOT_ALLOWED - vhost v not found", 0);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_AUTH, "530 NOT_ALLOWED");

	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "AMQPLAIN PLAINER XPLAIN EXTERNAL");
	fake_send(f);
	ended(f, RINQ_CONN_ERR_AUTH, "PLAIN");

	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "");
	fake_send(f);
	ended(f, RINQ_CONN_ERR_AUTH, "PLAIN");

	f = fake_new();
	put_close(f, 0, 320, "CONNECTION_FORCED", 0);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_CLOSED_BY_BROKER, "320");

	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	fake_send(f);
	fake_hang_up(f);
	fake_step(f);
	ended(f, RINQ_CONN_ERR_IO, "without giving a reason");
}

static void
test_not_amqp(void)
{
	Fake	   *f = fake_new();

	put_bytes(f, "AMQP\x03\x01\0\0", 8);
	fake_send_bytewise(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "wants AMQP version 1.0.0");

	f = fake_new();
	put_bytes(f, "HTTP/1.1 400 Bad Request\r\n", 26);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "does not speak AMQP");

	f = fake_new();
	put_bytes(f, "AMX", 3);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "does not speak AMQP");

	f = fake_new();
	put_bytes(f, "\x15\x02\x01\0\x02\x02\x46", 7);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "does not speak AMQP");
}

static void
test_login_out_of_order(void)
{
	Fake	   *f = fake_new();

	put_tune(f, 0, 0, 0);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "unexpected method 10.30");

	f = fake_new();
	put_start(f, "RabbitMQ", "3", "PLAIN");
	put_start(f, "RabbitMQ", "3", "PLAIN");
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "unexpected method 10.10");

	f = fake_new();
	put_start(f, "RabbitMQ", "3", "PLAIN");
	put_open_ok(f);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "unexpected method 10.41");

	f = fake_new();
	put_method(f, 1, M(20, 11));
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "channel 1 during login");

	f = fake_new();
	put_method(f, 0, M(10, 20));	/* connection.secure */
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "unexpected method 10.20");

	f = fake_new();
	method_begin(f, 0, M(10, 10));	/* version 0.8 */
	put8(f, 8);
	put8(f, 0);
	put32(f, 0);
	put_longstr(f, "PLAIN");
	put_longstr(f, "en_US");
	frame_end(f);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "version 8.0");
}

/* connection.start cut off anywhere, and with a broken table. */
static void
test_malformed_start(void)
{
	size_t		whole;

	for (size_t cut = 0;; cut++)
	{
		Fake	   *f = fake_new();

		put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
		whole = f->out_len - 8;
		f->out_len = 7 + cut;
		frame_end(f);
		fake_send(f);
		if (cut == whole)
		{
			CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_HANDSHAKE);
			fake_free(f);
			break;
		}
		ended(f, RINQ_CONN_ERR_PROTOCOL, "");
	}
}

/* ---------------- deadlines ---------------- */

static void
test_login_timeout(void)
{
	Fake	   *f = fake_new();

	fake_step(f);
	CHECK_INT(rinq_conn_next_deadline(f->conn), 1000000 + 5000);
	f->now += 4999;
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_HANDSHAKE);
	f->now += 1;
	fake_step(f);
	ended(f, RINQ_CONN_ERR_TIMEOUT, "timed out after 5000 ms while logging in at fake:1/v");

	/* it is one deadline for all of it */
	f = fake_new();
	f->now += 4000;
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	fake_send(f);
	CHECK_INT(rinq_conn_next_deadline(f->conn), 1000000 + 5000);
	f->now += 1000;
	fake_step(f);
	ended(f, RINQ_CONN_ERR_TIMEOUT, "timed out");
}

/*
 * A listener whose queue is full lets a connect hang, like a firewall that
 * drops packets.
 */
static void
test_connect_timeout(void)
{
	Fake	   *f = fake_unconnected();
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t	len = sizeof(addr);
	int			listener = socket(AF_INET, SOCK_STREAM, 0);
	int			fillers[8];

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(listener, (struct sockaddr *) &addr, len) == 0);
	CHECK(listen(listener, 0) == 0);
	CHECK(getsockname(listener, (struct sockaddr *) &addr, &len) == 0);
	for (int i = 0; i < 8; i++)
	{
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void) connect(fillers[i], (struct sockaddr *) &addr, len);
	}
	rinq_conn_connect(f->conn, (struct sockaddr *) &addr, len, f->now);
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CONNECTING);
	CHECK(rinq_conn_wants_write(f->conn));
	CHECK_INT(rinq_conn_next_deadline(f->conn), f->now + 5000);
	f->now += 5000;
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	for (int i = 0; i < 8; i++)
		close(fillers[i]);
	close(listener);
	ended(f, RINQ_CONN_ERR_TIMEOUT, "while connecting to fake:1/v");
}

static void
test_connect_refused(void)
{
	Fake	   *f = fake_unconnected();
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t	len = sizeof(addr);
	int			unused = socket(AF_INET, SOCK_STREAM, 0);

	/* bound but not listening: nobody else gets the port meanwhile */
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(unused, (struct sockaddr *) &addr, len) == 0);
	CHECK(getsockname(unused, (struct sockaddr *) &addr, &len) == 0);
	rinq_conn_connect(f->conn, (struct sockaddr *) &addr, len, f->now);
	for (int i = 0; i < 1000 && rinq_conn_state(f->conn) == RINQ_CONN_CONNECTING; i++)
		(void) rinq_conn_step(f->conn, f->now, 10);
	close(unused);
	ended(f, RINQ_CONN_ERR_REFUSED, "could not connect to fake:1/v");

	/* never connected at all */
	f = fake_unconnected();
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	CHECK_INT(rinq_conn_fd(f->conn), -1);
	rinq_conn_close(f->conn, f->now);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
	CHECK_INT(rinq_conn_error_class(f->conn), RINQ_CONN_ERR_NONE);
	fake_free(f);
}

static void
test_heartbeats(void)
{
	Fake	   *f = fake_open();

	CHECK_INT(rinq_conn_next_deadline(f->conn), f->now + 5000);
	f->now += 4999;
	fake_step(f);
	CHECK_STR(fake_sent(f), "");
	f->now += 1;
	fake_step(f);
	CHECK_STR(fake_sent(f), "heartbeat ");
	f->now += 5000;
	fake_step(f);
	CHECK_STR(fake_sent(f), "heartbeat ");

	/* anything sent postpones it, anything received proves life */
	f->now += 3000;
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_OK);
	rinq_conn_flush(f->conn, f->now);
	frame_begin(f, F_HEARTBEAT, 0);
	frame_end(f);
	fake_send(f);
	CHECK_STR(fake_sent(f), "1:60.80 ");
	CHECK_INT(rinq_conn_next_deadline(f->conn), f->now + 5000);

	/* the owner was away for long, but there is something to read */
	f->now += 60000;
	frame_begin(f, F_HEARTBEAT, 0);
	frame_end(f);
	CHECK(fake_send_only(f));
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);

	f->now += 19999;
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	f->now += 1;
	fake_step(f);
	ended(f, RINQ_CONN_ERR_HEARTBEAT, "heard nothing from fake:1/v for 20 seconds");
}

/* ---------------- ends ---------------- */

static void
test_closed_by_broker(void)
{
	Fake	   *f = fake_open();

	put_close(f, 0, 320, "CONNECTION_FORCED - broker forced connection closure", 0);
	fake_send_bytewise(f);
	CHECK_STR(fake_sent(f), "0:10.51 ");
	ended(f, RINQ_CONN_ERR_CLOSED_BY_BROKER,
		  "fake:1/v closed the connection: 320 CONNECTION_FORCED");

	/* the reason is found even if writing fails first */
	f = fake_open();
	put_close(f, 0, 541, "INTERNAL_ERROR", 0);
	CHECK(fake_send_only(f));
	fake_hang_up(f);
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_OK);
	rinq_conn_flush(f->conn, f->now);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	CHECK(rinq_conn_next_deadline(f->conn) <= f->now);
	fake_step(f);
	ended(f, RINQ_CONN_ERR_CLOSED_BY_BROKER, "541 INTERNAL_ERROR");

	f = fake_open();
	fake_hang_up(f);
	fake_step(f);
	ended(f, RINQ_CONN_ERR_IO, "");

	/* in the middle of a frame */
	f = fake_open();
	put_deliver(f, 1, 1);
	f->out_len -= 3;
	fake_send(f);
	fake_hang_up(f);
	fake_step(f);
	ended(f, RINQ_CONN_ERR_IO, "");

	f = fake_open();
	method_begin(f, 0, M(10, 50));
	put8(f, 1);
	frame_end(f);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_PROTOCOL, "malformed arguments of connection.close");
}

static void
test_orderly_close(void)
{
	Fake	   *f = fake_open();

	rinq_conn_close(f->conn, f->now);
	rinq_conn_close(f->conn, f->now);
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSING);
	CHECK_STR(fake_sent(f), "0:10.50 ");
	CHECK_INT(rinq_conn_next_deadline(f->conn), f->now + 3000);
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_NOT_OPEN);

	/* what was on its way is ignored */
	put_deliver(f, 1, 1);
	put_header(f, 1, 1, NULL, 0);
	put_body(f, 1, "x", 1);
	put_method(f, 0, M(10, 61));
	put_method(f, 0, M(10, 51));
	fake_send(f);
	CHECK_STR(fake_log(f), "");
	ended(f, RINQ_CONN_ERR_NONE, "");

	f = fake_open();
	rinq_conn_close(f->conn, f->now);
	f->now += 3000;
	fake_step(f);
	ended(f, RINQ_CONN_ERR_NONE, "");

	f = fake_open();
	rinq_conn_close(f->conn, f->now);
	put_close(f, 0, 320, "me first", 0);
	fake_send(f);
	ended(f, RINQ_CONN_ERR_NONE, "");

	f = fake_open();
	rinq_conn_close(f->conn, f->now);
	fake_step(f);
	fake_hang_up(f);
	fake_step(f);
	ended(f, RINQ_CONN_ERR_NONE, "");

	f = fake_new();
	fake_step(f);
	rinq_conn_close(f->conn, f->now);
	ended(f, RINQ_CONN_ERR_NONE, "");
}

static void
test_blocked(void)
{
	Fake	   *f = fake_open();

	method_begin(f, 0, M(10, 60));
	put_shortstr(f, "low on memory\n");
	frame_end(f);
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f), "blocked 1 \"low on memory?\"\n");
	CHECK(rinq_conn_blocked(f->conn));
	put_method(f, 0, M(10, 61));
	fake_send(f);
	CHECK_STR(fake_log(f), "blocked 0 \"\"\n");
	CHECK(!rinq_conn_blocked(f->conn));
	fake_free(f);
}

/* A connection may be thrown away whatever it is doing. */
static void
test_destroy_anywhere(void)
{
	fake_free(fake_unconnected());
	fake_free(fake_new());
	for (int bytes = 0; bytes < 200; bytes += 3)
	{
		Fake	   *f = fake_new();

		put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
		put_tune(f, 2047, 131072, 60);
		put_open_ok(f);
		if ((size_t) bytes < f->out_len)
			f->out_len = (size_t) bytes;
		fake_send(f);
		fake_free(f);
	}
	rinq_conn_destroy(NULL);
}

static void
test_broker_versions(void)
{
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "3.10.8"), RINQ_BROKER_OK);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "3.5.0"), RINQ_BROKER_OK);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "4.0.0-beta.1"), RINQ_BROKER_OK);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "10.0"), RINQ_BROKER_OK);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "3.4.4"), RINQ_BROKER_TOO_OLD);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "2.8.7"), RINQ_BROKER_TOO_OLD);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "0.0.0"), RINQ_BROKER_TOO_OLD);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", ""), RINQ_BROKER_OTHER_PRODUCT);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "3"), RINQ_BROKER_OTHER_PRODUCT);
	CHECK_INT(rinq_broker_version_check("RabbitMQ", "-3.6"), RINQ_BROKER_OTHER_PRODUCT);
	CHECK_INT(rinq_broker_version_check("LavinMQ", "1.2.3"), RINQ_BROKER_OTHER_PRODUCT);
	CHECK_INT(rinq_broker_version_check("", ""), RINQ_BROKER_OTHER_PRODUCT);
}

int
main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	fake_defaults();
	test_login();
	test_login_bytewise();
	test_tuning();
	test_login_refused();
	test_not_amqp();
	test_login_out_of_order();
	test_malformed_start();
	test_login_timeout();
	test_connect_timeout();
	test_connect_refused();
	test_heartbeats();
	test_closed_by_broker();
	test_orderly_close();
	test_blocked();
	test_destroy_anywhere();
	test_broker_versions();
	return check_summary();
}
