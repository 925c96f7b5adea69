/*-------------------------------------------------------------------------
 *
 * publish_test.c
 *	  Messages sent through a fake broker: bytes, limits, back-pressure.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fake.h"

#define TEXT(s) rinq_bytes((s), sizeof(s) - 1)

static RinqMessage
simple_message(void)
{
	RinqMessage m = {0};

	m.message_id = TEXT("1-1.1@0#1");
	m.ns = TEXT("ns");
	m.command = TEXT("cmd");
	return m;
}

static Fake *
open_with_frame_max(uint32_t frame_max)
{
	Fake	   *f = fake_new();

	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_tune(f, 0, frame_max, 60);
	put_open_ok(f);
	fake_send(f);
	rinq_amqp_channel_open(f->conn, 1, 0);
	method_begin(f, 1, M(20, 11));
	put_longstr(f, "");
	frame_end(f);
	fake_send(f);
	(void) fake_sent(f);
	(void) fake_log(f);
	return f;
}

static void
test_publish(void)
{
	static char body[20000];
	Fake	   *f = open_with_frame_max(4096);
	RinqMessage m = simple_message();
	RinqBytes	ex = TEXT("cmd.bal");
	RinqBytes	key = TEXT("ns");
	unsigned char *sent;
	size_t		len;

	memset(body, 'b', sizeof(body));
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, true, &m, NULL, 0), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, body, 4088), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, body, 4089), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, body, 10000), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, true), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_reject(f->conn, 1, 2, true), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_nack(f->conn, 1, 3, false, true), RINQ_MSG_OK);
	CHECK(rinq_conn_wants_write(f->conn));
	CHECK_STR(fake_sent(f), "");	/* nothing before a flush */
	rinq_conn_flush(f->conn, f->now);
	CHECK_INT(rinq_conn_backlog(f->conn), 0);
	CHECK_STR(fake_sent(f),
			  "1:60.40 1:header "
			  "1:60.40 1:header 1:body(4088) "
			  "1:60.40 1:header 1:body(4088) 1:body(1) "
			  "1:60.40 1:header 1:body(4088) 1:body(4088) 1:body(1824) "
			  "1:60.80 1:60.90 1:60.120 ");

	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, true, &m, "B", 1), RINQ_MSG_OK);
	rinq_conn_flush(f->conn, f->now);
	sent = fake_sent_bytes(f, &len);
	CHECK(memmem(sent, len, "\x01\0\x01\0\0\0\x12\0\x3c\0\x28\0\0\x07" "cmd.bal\x02ns\x01\xce", 26) != NULL);
	CHECK(memmem(sent, len, "\0\x3c\0\0\0\0\0\0\0\0\0\x01\x20\x80", 14) != NULL);
	CHECK(memmem(sent, len, "\x03\0\x01\0\0\0\x01" "B\xce", 9) != NULL);
	fake_free(f);
}

/* A refusal leaves not a byte behind. */
static void
test_publish_refused(void)
{
	static char body[1000001];
	char		text[300];
	Fake	   *f = open_with_frame_max(4096);
	RinqMessage m = simple_message();
	RinqBytes	ex = TEXT("cmd.bal");
	RinqBytes	key = TEXT("ns");

	memset(text, 't', sizeof(text));
	CHECK_INT(rinq_basic_publish(f->conn, 1, rinq_bytes(text, 256), key, false, &m, "", 0),
			  RINQ_MSG_STRING_TOO_LONG);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, rinq_bytes(text, 256), false, &m, "", 0),
			  RINQ_MSG_STRING_TOO_LONG);
	CHECK_INT(rinq_basic_publish(f->conn, 2, ex, key, false, &m, "", 0), RINQ_MSG_NOT_OPEN);
	CHECK_INT(rinq_basic_publish(f->conn, 0, ex, key, false, &m, "", 0), RINQ_MSG_BAD_CHANNEL);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, body, 1000001),
			  RINQ_MSG_TOO_LARGE);
	m.message_id = rinq_bytes(text, 256);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, "", 0), RINQ_MSG_STRING_TOO_LONG);
	m = simple_message();
	m.failure_message = rinq_bytes(body, 4096);
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, "", 0), RINQ_MSG_TOO_LARGE);
	m = simple_message();
	m.constraint = TEXT("x");
	CHECK_INT(rinq_basic_publish(f->conn, 1, ex, key, false, &m, "", 0), RINQ_MSG_BAD_FIELDS);
	CHECK_INT(rinq_queue_declare(f->conn, 1, rinq_bytes(text, 256), false, false, 0, NULL, 0),
			  RINQ_MSG_STRING_TOO_LONG);
	CHECK_INT(rinq_queue_bind(f->conn, 1, ex, ex, rinq_bytes(text, 256), 0),
			  RINQ_MSG_STRING_TOO_LONG);
	CHECK_INT(rinq_basic_consume(f->conn, 1, ex, rinq_bytes(text, 256), false, 0),
			  RINQ_MSG_STRING_TOO_LONG);
	CHECK_INT(rinq_conn_backlog(f->conn), 0);
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 1), 0);

	/* the longest that is allowed, all at once */
	m = simple_message();
	CHECK_INT(rinq_basic_publish(f->conn, 1, rinq_bytes(text, 255), rinq_bytes(text, 255), true, &m, "", 0),
			  RINQ_MSG_OK);
	CHECK_INT(rinq_queue_bind(f->conn, 1, rinq_bytes(text, 255), rinq_bytes(text, 255), rinq_bytes(text, 255), 0),
			  RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(f->conn, 1, rinq_bytes(text, 255), true, true, 255, NULL, 0),
			  RINQ_MSG_OK);
	CHECK_INT(rinq_basic_consume(f->conn, 1, rinq_bytes(text, 255), rinq_bytes(text, 255), true, 0),
			  RINQ_MSG_OK);
	CHECK_INT(rinq_exchange_declare(f->conn, 1, rinq_bytes(text, 255), rinq_bytes(text, 255), false, 0),
			  RINQ_MSG_OK);
	rinq_conn_flush(f->conn, f->now);
	CHECK_STR(fake_sent(f), "1:60.40 1:header 1:50.20 1:50.10 1:60.20 1:40.10 ");
	fake_free(f);
}

static char numbered_body[60000];

/* Publishes numbered messages from first on; returns how many were taken. */
static int
publish_until_refused(Fake *f, int first)
{
	RinqMessage m = simple_message();

	for (int n = 0;; n++)
	{
		int			number = first + n;
		RinqMsgStatus status;

		memcpy(numbered_body, &number, sizeof(number));
		status = rinq_basic_publish(f->conn, 1, TEXT("e"), TEXT("k"), false, &m,
									numbered_body, sizeof(numbered_body));
		if (status == RINQ_MSG_BACKLOG)
			return n;
		CHECK_INT(status, RINQ_MSG_OK);
		rinq_conn_flush(f->conn, f->now);
	}
}

/*
 * A broker that stops reading: nothing blocks, the backlog is bounded, and
 * when it reads again every byte is there in order.
 */
static void
test_backpressure(void)
{
	Fake	   *f;
	RinqMessage m = simple_message();
	int			published = 0;
	int			seen = 0;
	unsigned char *sent;
	size_t		len;
	size_t		at = 0;

	fake_settings.max_backlog = 3000000;
	f = fake_open();

	/* fill up, let the broker read a little, fill up again */
	for (int turn = 0; turn < 3; turn++)
	{
		while (rinq_conn_backlog(f->conn) > 800000)
		{
			fake_drain(f);
			rinq_conn_flush(f->conn, f->now);
		}
		published += publish_until_refused(f, published);
		CHECK(rinq_conn_backlog(f->conn) >= 3000000);
		CHECK(rinq_conn_backlog(f->conn) < 3000000 + sizeof(numbered_body) + 200);
		CHECK(rinq_conn_wants_write(f->conn));
	}
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_OK);	/* exempt */

	/* bytes that wait are as good as a heartbeat */
	f->now += 9000;
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	CHECK_INT(rinq_conn_next_deadline(f->conn), 1000000 + 20000);

	fake_step(f);
	CHECK_INT(rinq_conn_backlog(f->conn), 0);
	sent = fake_sent_bytes(f, &len);
	while (at < len)
	{
		size_t		size = (size_t) sent[at + 3] << 24 | (size_t) sent[at + 4] << 16 |
			(size_t) sent[at + 5] << 8 | sent[at + 6];

		if (sent[at] == F_BODY)
		{
			CHECK(size == sizeof(numbered_body) && memcmp(sent + at + 7, &seen, sizeof(seen)) == 0);
			seen++;
		}
		CHECK(sent[at + 7 + size] == 0xCE);
		at += size + 8;
	}
	CHECK_INT(seen, published);
	CHECK_INT(rinq_basic_publish(f->conn, 1, TEXT("e"), TEXT("k"), false, &m, "", 0), RINQ_MSG_OK);
	fake_free(f);
	fake_defaults();
}

int
main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	fake_defaults();
	test_publish();
	test_publish_refused();
	test_backpressure();
	return check_summary();
}
