/*-------------------------------------------------------------------------
 *
 * content_test.c
 *	  Channels against a fake broker: requests and replies, messages received,
 *	  and every way of breaking the rules.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "fake.h"

#define TEXT(s) rinq_bytes((s), sizeof(s) - 1)

/* Sends what has been put, which must end the connection like this. */
static void
breaks(Fake *f, const char *part)
{
	fake_send(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
	CHECK_INT(rinq_conn_error_class(f->conn), RINQ_CONN_ERR_PROTOCOL);
	CHECK_CONTAINS(rinq_conn_error(f->conn), part);
	fake_free(f);
}

/* ---------------- requests ---------------- */

static void
test_requests(void)
{
	Fake	   *f = fake_open();
	unsigned char *sent;
	size_t		len;

	CHECK_INT(rinq_exchange_declare(f->conn, 1, TEXT("cmd.bal"), TEXT("direct"), false, 1), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_declare(f->conn, 1, TEXT("q"), true, false, 3, "classic", 2), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_bind(f->conn, 1, TEXT("q"), TEXT("cmd.bal"), TEXT("ns"), 3), RINQ_MSG_OK);
	CHECK_INT(rinq_queue_unbind(f->conn, 1, TEXT("q"), TEXT("cmd.bal"), TEXT("ns"), 4),
			  RINQ_MSG_OK);
	CHECK_INT(rinq_queue_delete(f->conn, 1, TEXT("q"), 5), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_qos(f->conn, 1, 10, true, 6), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_consume(f->conn, 1, TEXT("q"), TEXT("tag"), true, 7), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_cancel(f->conn, 1, TEXT("tag"), 8), RINQ_MSG_OK);
	CHECK_INT(rinq_confirm_select(f->conn, 1, 9), RINQ_MSG_OK);
	CHECK_INT(rinq_amqp_channel_close(f->conn, 1, 10), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_qos(f->conn, 1, 1, true, 11), RINQ_MSG_NOT_OPEN);
	CHECK_INT(rinq_amqp_channel_open(f->conn, 1, 11), RINQ_MSG_NOT_OPEN);
	CHECK(!rinq_amqp_channel_usable(f->conn, 1));
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 1), 10);
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 60000), 0);
	fake_step(f);
	sent = fake_sent_bytes(f, &len);

	/* the exact bytes of those whose flags matter */
	CHECK(memmem(sent, len, "\0\x28\0\x0a\0\0\x07" "cmd.bal\x06" "direct\0\0\0\0\0\xce", 26) != NULL);
	CHECK(memmem(sent, len,
				 "\0\x32\0\x0a\0\0\x01" "q\x02\0\0\0\x2d\x0e" "x-max-priorityI\0\0\0\x03"
				 "\x0c" "x-queue-typeS\0\0\0\x07" "classic\xce", 59) != NULL);
	CHECK(memmem(sent, len, "\0\x3c\0\x0a\0\0\0\0\0\x0a\x01\xce", 12) != NULL);
	CHECK(memmem(sent, len, "\0\x3c\0\x14\0\0\x01" "q\x03tag\x04\0\0\0\0\xce", 18) != NULL);

	put_method(f, 1, M(40, 11));
	method_begin(f, 1, M(50, 11));
	put_shortstr(f, "q");
	put32(f, 42);
	put32(f, 7);
	frame_end(f);
	put_method(f, 1, M(50, 21));
	put_method(f, 1, M(50, 51));
	method_begin(f, 1, M(50, 41));
	put32(f, 13);
	frame_end(f);
	put_method(f, 1, M(60, 11));
	method_begin(f, 1, M(60, 21));
	put_shortstr(f, "tag");
	frame_end(f);
	method_begin(f, 1, M(60, 31));
	put_shortstr(f, "tag");
	frame_end(f);
	put_method(f, 1, M(85, 11));
	put_method(f, 1, M(20, 41));
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f),
			  "reply 1 kind=2 cookie=1 counts=0,0\n"
			  "reply 1 kind=3 cookie=2 counts=42,7\n"
			  "reply 1 kind=4 cookie=3 counts=0,0\n"
			  "reply 1 kind=5 cookie=4 counts=0,0\n"
			  "reply 1 kind=6 cookie=5 counts=13,0\n"
			  "reply 1 kind=7 cookie=6 counts=0,0\n"
			  "reply 1 kind=8 cookie=7 counts=0,0\n"
			  "reply 1 kind=9 cookie=8 counts=0,0\n"
			  "reply 1 kind=10 cookie=9 counts=0,0\n"
			  "reply 1 kind=1 cookie=10 counts=0,0\n");
	CHECK_INT(rinq_amqp_channel_open(f->conn, 1, 12), RINQ_MSG_OK);
	CHECK(rinq_amqp_channel_usable(f->conn, 1));
	fake_free(f);
}

/* More requests under way than the queue of them first has room for. */
static void
test_many_requests(void)
{
	Fake	   *f = fake_open();
	char		expected[100];

	f->quiet = true;
	for (int i = 0; i < 1000; i++)
	{
		CHECK_INT(rinq_basic_qos(f->conn, 1, 1, false, (uint64_t) i), RINQ_MSG_OK);
		if (i % 3 == 0)
			put_method(f, 1, M(60, 11));
		if (i % 100 == 0)
			fake_send(f);
	}
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 1), 1000 - 301);
	fake_send(f);
	f->quiet = false;
	put_method(f, 1, M(60, 11));
	fake_send(f);
	snprintf(expected, sizeof(expected), "reply 1 kind=7 cookie=%d counts=0,0\n", 334);
	CHECK_STR(fake_log(f), expected);
	fake_free(f);
}

static void
test_unexpected_replies(void)
{
	Fake	   *f = fake_open();

	put_method(f, 1, M(50, 21));
	breaks(f, "unexpected method 50.21 on channel 1");

	f = fake_open();			/* in the wrong order */
	rinq_basic_qos(f->conn, 1, 1, false, 0);
	rinq_confirm_select(f->conn, 1, 0);
	put_method(f, 1, M(85, 11));
	breaks(f, "unexpected method 85.11");

	f = fake_open();
	rinq_queue_declare(f->conn, 1, TEXT("q"), false, false, 0, NULL, 0);
	put_method(f, 1, M(50, 11));
	breaks(f, "malformed arguments");

	f = fake_open();
	put_method(f, 2, M(60, 11));
	breaks(f, "channel 2");

	f = fake_open();
	put_method(f, 999, M(60, 11));
	breaks(f, "channel 999");

	f = fake_open();
	put_method(f, 1, M(60, 71));	/* basic.get-ok was never asked for */
	breaks(f, "unexpected method 60.71");

	f = fake_open();
	put_method(f, 1, M(12345, 54321));
	breaks(f, "unexpected method 12345.54321");

	f = fake_open();
	put_method(f, 1, M(20, 41));
	breaks(f, "unexpected method 20.41");

	f = fake_open();
	put_close(f, 2, 404, "x", 0);
	breaks(f, "channel.close on channel 2");
}

static void
test_channel_closed(void)
{
	Fake	   *f = fake_open();

	f->reopen = true;
	rinq_queue_declare(f->conn, 1, TEXT("AB12"), false, true, 0, NULL, 77);
	rinq_basic_qos(f->conn, 1, 1, false, 78);
	put_close(f, 1, 405, "RESOURCE_LOCKED - 'AB12' \xc3\xa4", M(50, 10));
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f),
			  "closed 1 405 \"RESOURCE_LOCKED - 'AB12' ??\" queue.declare request=1 kind=3 cookie=77\n"
			  "reopen 0\n");
	CHECK_STR(fake_sent(f), "1:50.10 1:60.10 1:20.41 1:20.10 ");
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 1), 1);
	method_begin(f, 1, M(20, 11));
	put_longstr(f, "");
	frame_end(f);
	fake_send(f);
	CHECK_STR(fake_log(f), "reply 1 kind=0 cookie=99 counts=0,0\n");

	/* not a request's fault, although one is unanswered */
	f->reopen = false;
	rinq_basic_qos(f->conn, 1, 1, false, 79);
	put_close(f, 1, 404, "NOT_FOUND", M(60, 40));
	fake_send(f);
	CHECK_STR(fake_log(f), "closed 1 404 \"NOT_FOUND\" basic.publish request=0 kind=0 cookie=0\n");
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_NOT_OPEN);
	CHECK_INT(rinq_basic_qos(f->conn, 1, 1, false, 0), RINQ_MSG_NOT_OPEN);
	CHECK_INT(rinq_amqp_channel_requests(f->conn, 1), 0);

	/* a closed channel says nothing more */
	put_deliver(f, 1, 1);
	breaks(f, "unexpected method 60.60 on channel 1");
}

/* Both sides close the channel at once. */
static void
test_crossing_close(void)
{
	Fake	   *f = fake_open();

	rinq_amqp_channel_close(f->conn, 1, 5);
	put_deliver(f, 1, 3);		/* too late */
	put_header(f, 1, 1, NULL, 0);
	put_body(f, 1, "x", 1);
	put_close(f, 1, 406, "PRECONDITION_FAILED", M(60, 80));
	f->reopen = true;
	fake_send(f);
	CHECK_STR(fake_log(f),
			  "closed 1 406 \"PRECONDITION_FAILED\" basic.ack request=0 kind=0 cookie=0\nreopen 0\n");
	put_method(f, 1, M(20, 41));	/* the answer to ours */
	method_begin(f, 1, M(20, 11));
	put_longstr(f, "");
	frame_end(f);
	fake_send(f);
	CHECK_STR(fake_log(f), "reply 1 kind=0 cookie=99 counts=0,0\n");
	rinq_amqp_channel_close(f->conn, 1, 6);
	put_method(f, 1, M(20, 41));
	fake_send(f);
	CHECK_STR(fake_log(f), "reply 1 kind=1 cookie=6 counts=0,0\n");
	fake_free(f);
}

/* ---------------- messages received ---------------- */

static void
test_deliveries(void)
{
	static char big[400000];
	Fake	   *f = fake_open();

	put_deliver(f, 1, 1);
	put_header(f, 1, 0, NULL, 0);
	put_deliver(f, 1, 2);
	put_header(f, 1, 5, NULL, 0);
	put_body(f, 1, "hello", 5);
	put_deliver(f, 1, 3);
	put_header(f, 1, 10, NULL, 0);
	put_body(f, 1, "hello", 5);
	put_body(f, 1, "", 0);
	put_body(f, 1, "world", 5);
	method_begin(f, 1, M(60, 60));
	put_shortstr(f, "");
	put64(f, UINT64_MAX);
	put8(f, 1);
	put_shortstr(f, "");
	put_shortstr(f, "");
	frame_end(f);
	put_header(f, 1, 0, "\0\0", 2);
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f),
			  "delivery 1 tag=1 tag|ex|key ns=ns \"\"\n"
			  "delivery 1 tag=2 tag|ex|key ns=ns \"hello\"\n"
			  "delivery 1 tag=3 tag|ex|key ns=ns \"helloworld\"\n"
			  "delivery 1 tag=18446744073709551615 again || ns= \"\"\n");
	CHECK_STR(fake_sent(f), "1:60.80 1:60.80 1:60.80 1:60.80 ");

	/* the largest frames there are */
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char) (i * 7);
	put_deliver(f, 1, 4);
	put_header(f, 1, sizeof(big), NULL, 0);
	put_body(f, 1, big, 131064);
	put_body(f, 1, big + 131064, 131064);
	put_body(f, 1, big + 2 * 131064, 131064);
	put_body(f, 1, big + 3 * 131064, sizeof(big) - 3 * 131064);
	put_deliver(f, 1, 5);
	put_header(f, 1, 131064, NULL, 0);
	put_body(f, 1, big, 131064);
	fake_send(f);
	CHECK_CONTAINS(fake_log(f), "delivery 1 tag=4 tag|ex|key ns=ns 400000 bytes ");
	fake_free(f);
}

static void
test_interleaved_channels(void)
{
	Fake	   *f = fake_open();

	rinq_amqp_channel_open(f->conn, 2, 0);
	method_begin(f, 2, M(20, 11));
	put_longstr(f, "");
	frame_end(f);
	put_deliver(f, 1, 1);
	put_deliver(f, 2, 2);
	put_header(f, 1, 4, NULL, 0);
	put_header(f, 2, 4, NULL, 0);
	put_body(f, 1, "a", 1);
	put_body(f, 2, "b", 1);
	frame_begin(f, F_HEARTBEAT, 0);
	frame_end(f);
	put_body(f, 2, "bbb", 3);
	put_body(f, 1, "aaa", 3);
	fake_send(f);
	CHECK_STR(fake_log(f),
			  "reply 2 kind=0 cookie=0 counts=0,0\n"
			  "delivery 2 tag=2 tag|ex|key ns=ns \"bbbb\"\n"
			  "delivery 1 tag=1 tag|ex|key ns=ns \"aaaa\"\n");

	/* a channel that ends in the middle of a message */
	put_deliver(f, 1, 3);
	put_header(f, 1, 4, NULL, 0);
	put_body(f, 1, "a", 1);
	put_close(f, 1, 404, "gone", 0);
	fake_send(f);
	CHECK_STR(fake_log(f), "closed 1 404 \"gone\" unknown request=0 kind=0 cookie=0\n");
	fake_free(f);
}

static void
test_oversize(void)
{
	static char chunk[131064];
	Fake	   *f = fake_open();

	/* one byte over the limit: skipped; at the limit: taken */
	put_deliver(f, 1, 1);
	put_header(f, 1, 1000001, NULL, 0);
	for (size_t left = 1000001; left > 0;)
	{
		size_t		n = left < sizeof(chunk) ? left : sizeof(chunk);

		put_body(f, 1, chunk, n);
		left -= n;
	}
	put_deliver(f, 1, 2);
	put_header(f, 1, 1, NULL, 0);
	put_body(f, 1, "x", 1);
	fake_send(f);
	CHECK_STR(fake_log(f),
			  "delivery 1 tag=1 tag|ex|key ns=ns no body oversize\n"
			  "delivery 1 tag=2 tag|ex|key ns=ns \"x\"\n");
	put_deliver(f, 1, 3);
	put_header(f, 1, 1000000, NULL, 0);
	for (size_t left = 1000000; left > 0;)
	{
		size_t		n = left < sizeof(chunk) ? left : sizeof(chunk);

		put_body(f, 1, chunk, n);
		left -= n;
	}
	fake_send(f);
	CHECK_CONTAINS(fake_log(f), "delivery 1 tag=3 tag|ex|key ns=ns 1000000 bytes");

	/* absurd declarations cost nothing */
	put_deliver(f, 1, 4);
	put_header(f, 1, UINT64_C(1) << 62, NULL, 0);
	put_body(f, 1, chunk, sizeof(chunk));
	fake_send(f);
	CHECK_STR(fake_log(f), "");
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	fake_free(f);

	fake_settings.max_body = 0;
	f = fake_open();
	put_deliver(f, 1, 1);
	put_header(f, 1, 1, NULL, 0);
	put_body(f, 1, "x", 1);
	fake_send(f);
	CHECK_STR(fake_log(f), "delivery 1 tag=1 tag|ex|key ns=ns no body oversize\n");
	fake_free(f);
	fake_defaults();
}

/* A message with strange headers costs that message, not the connection. */
static void
test_malformed_headers(void)
{
	Fake	   *f = fake_open();

	put_deliver(f, 1, 1);
	put_header(f, 1, 1, "\x20\0\0\0\0\x04\x01nZ\0", 10);
	put_body(f, 1, "x", 1);
	put_deliver(f, 1, 2);
	put_header(f, 1, 0, "", 0);
	put_deliver(f, 1, 3);
	put_header(f, 1, 0, NULL, 0);
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f),
			  "delivery 1 tag=1 tag|ex|key ns= \"x\" malformed\n"
			  "delivery 1 tag=2 tag|ex|key ns= \"\" malformed\n"
			  "delivery 1 tag=3 tag|ex|key ns=ns \"\"\n");
	fake_free(f);
}

static void
test_other_methods(void)
{
	Fake	   *f = fake_open();

	method_begin(f, 1, M(60, 50));	/* basic.return */
	put16(f, 312);
	put_shortstr(f, "NO_ROUTE");
	put_shortstr(f, "ex");
	put_shortstr(f, "key");
	frame_end(f);
	put_header(f, 1, 2, NULL, 0);
	put_body(f, 1, "bo", 2);
	method_begin(f, 1, M(60, 80));	/* basic.ack */
	put64(f, 5);
	put8(f, 1);
	frame_end(f);
	method_begin(f, 1, M(60, 120)); /* basic.nack */
	put64(f, 6);
	put8(f, 0);
	frame_end(f);
	method_begin(f, 1, M(60, 30));	/* basic.cancel, nowait */
	put_shortstr(f, "tag1");
	put8(f, 1);
	frame_end(f);
	method_begin(f, 1, M(60, 30));	/* basic.cancel */
	put_shortstr(f, "tag2");
	put8(f, 0);
	frame_end(f);
	method_begin(f, 1, M(20, 20));	/* channel.flow */
	put8(f, 0);
	frame_end(f);
	fake_send_bytewise(f);
	CHECK_STR(fake_log(f),
			  "return 1 312 \"NO_ROUTE\" ex|key \"bo\"\n"
			  "confirm 1 5 multiple\n"
			  "confirm 1 6 nack\n"
			  "cancel 1 tag1\n"
			  "cancel 1 tag2\n");
	CHECK_STR(fake_sent(f), "1:60.31 1:20.21 ");
	fake_free(f);
}

/* ---------------- breaking the rules ---------------- */

static void
test_content_out_of_order(void)
{
	Fake	   *f = fake_open();

	put_header(f, 1, 1, NULL, 0);
	breaks(f, "unexpected header frame on channel 1");
	f = fake_open();
	put_body(f, 1, "x", 1);
	breaks(f, "unexpected body frame");
	f = fake_open();
	put_deliver(f, 1, 1);
	put_body(f, 1, "x", 1);
	breaks(f, "unexpected body frame");
	f = fake_open();
	put_deliver(f, 1, 1);
	put_deliver(f, 1, 2);
	breaks(f, "unexpected method 60.60");
	f = fake_open();
	put_deliver(f, 1, 1);
	put_header(f, 1, 1, NULL, 0);
	put_header(f, 1, 1, NULL, 0);
	breaks(f, "unexpected header frame");
	f = fake_open();
	put_deliver(f, 1, 1);
	put_header(f, 1, 0, NULL, 0);
	put_body(f, 1, "", 0);
	breaks(f, "unexpected body frame");
	f = fake_open();
	put_deliver(f, 1, 1);
	put_header(f, 1, 3, NULL, 0);
	put_body(f, 1, "ab", 2);
	put_body(f, 1, "cd", 2);
	breaks(f, "longer than announced");
	f = fake_open();
	put_header(f, 2, 3, NULL, 0);
	breaks(f, "channel 2");
	f = fake_open();
	put_body(f, 0, "x", 1);
	breaks(f, "content on channel 0");
	f = fake_open();			/* a reply in the middle of a message */
	rinq_basic_qos(f->conn, 1, 1, false, 0);
	put_deliver(f, 1, 1);
	put_method(f, 1, M(60, 11));
	breaks(f, "unexpected method 60.11");
}

static void
test_broken_frames(void)
{
	Fake	   *f;

	/* frames that are too short for what they claim to be */
	for (int len = 0; len < 4; len++)
	{
		f = fake_open();
		frame_begin(f, F_METHOD, 1);
		put_bytes(f, "\0\x3c\0", (size_t) len);
		frame_end(f);
		breaks(f, "method frame of");
	}
	for (int len = 0; len < 12; len++)
	{
		f = fake_open();
		put_deliver(f, 1, 1);
		frame_begin(f, F_HEADER, 1);
		put_bytes(f, "\0\x3c\0\0\0\0\0\0\0\0\0\0", (size_t) len);
		frame_end(f);
		breaks(f, "content header of");
	}

	f = fake_open();			/* of another class */
	put_deliver(f, 1, 1);
	frame_begin(f, F_HEADER, 1);
	put16(f, 61);
	put16(f, 0);
	put64(f, 0);
	put16(f, 0);
	frame_end(f);
	breaks(f, "class 61");

	f = fake_open();			/* without the end byte */
	put_deliver(f, 1, 1);
	f->out[f->out_len - 1] = 0xCD;
	breaks(f, "end byte");

	f = fake_open();
	frame_begin(f, F_HEARTBEAT, 1);
	frame_end(f);
	breaks(f, "heartbeat on channel 1");

	for (int type = 0; type < 256; type++)
	{
		if (type == F_METHOD || type == F_HEADER || type == F_BODY || type == F_HEARTBEAT)
			continue;
		f = fake_open();
		put8(f, (unsigned) type);	/* the one byte is enough */
		breaks(f, "unknown type");
	}

	/* too large: refused from the head alone, also with the size wrapping */
	f = fake_open();
	put_bytes(f, "\x03\0\x01\0\x01\xff\xf9", 7);
	breaks(f, "a frame of 131065 bytes, with 131072 agreed upon");
	f = fake_open();
	put_bytes(f, "\x03\0\x01\xff\xff\xff\xff", 7);
	breaks(f, "a frame of 4294967295 bytes");
}

/* Every method with arguments, cut off at every byte. */
static void
test_truncated_methods(void)
{
	static const struct
	{
		uint32_t	method;
		const char *args;
		size_t		len;
	}			cases[] =

	{
		{M(60, 60), "\x03tag\0\0\0\0\0\0\0\x01\0\x02" "ex\x03key", 20},
		{M(60, 50), "\x01\x38\x08NO_ROUTE\x02" "ex\x03key", 18},
		{M(60, 80), "\0\0\0\0\0\0\0\x01\0", 9},
		{M(60, 120), "\0\0\0\0\0\0\0\x01\0", 9},
		{M(60, 30), "\x03tag\x01", 5},
		{M(20, 20), "\x01", 1},
		{M(20, 40), "\x01\x94\x04text\0\x3c\0\x28", 11},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		for (size_t len = 0; len < cases[i].len; len++)
		{
			Fake	   *f = fake_open();

			method_begin(f, 1, cases[i].method);
			put_bytes(f, cases[i].args, len);
			frame_end(f);
			breaks(f, "malformed arguments of");
		}
	}
}

/* ---------------- callbacks that do something ---------------- */

static void
test_frame_limit(void)
{
	Fake	   *f = fake_open();

	for (int i = 1; i <= 4; i++)
	{
		put_deliver(f, 1, (uint64_t) i);
		put_header(f, 1, 0, NULL, 0);
	}
	CHECK(fake_send_only(f));
	CHECK(rinq_conn_step(f->conn, f->now, 3));
	CHECK_STR(fake_log(f), "delivery 1 tag=1 tag|ex|key ns=ns \"\"\n");
	CHECK(rinq_conn_step(f->conn, f->now, 1));
	CHECK_STR(fake_log(f), "delivery 1 tag=2 tag|ex|key ns=ns \"\"\n");
	CHECK(!rinq_conn_step(f->conn, f->now, 100));
	CHECK_STR(fake_log(f), "delivery 1 tag=3 tag|ex|key ns=ns \"\"\n"
			  "delivery 1 tag=4 tag|ex|key ns=ns \"\"\n");
	f->out_len = 0;
	fake_free(f);
}

/* Closing the channel in a callback does not take the body away. */
static void
test_close_in_callback(void)
{
	static char big[1000000];
	Fake	   *f;

	fake_settings.max_body = 2000000;
	f = fake_open();
	memset(big, 'B', sizeof(big));
	f->close_channel = true;
	put_deliver(f, 1, 1);
	put_header(f, 1, 1500000, NULL, 0);
	for (int i = 0; i < 15; i++)
		put_body(f, 1, big, 100000);
	put_deliver(f, 1, 2);		/* too late */
	put_header(f, 1, 3, NULL, 0);
	put_body(f, 1, "abc", 3);
	fake_send(f);
	CHECK_CONTAINS(fake_log(f), "delivery 1 tag=1 tag|ex|key ns=ns 1500000 bytes");
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	fake_free(f);
	fake_defaults();
}

/*
 * Whether sending ends in a jump.  It has a function of its own, in which
 * nothing that may be in a register is needed after the jump.
 */
static bool
send_jumps(Fake *f)
{
	jmp_buf		escape;

	f->escape = &escape;
	if (setjmp(escape) != 0)
		return true;
	fake_send(f);
	return false;
}

/* A callback that leaves for good, as an error in PostgreSQL does. */
static void
test_longjmp(void)
{
	for (int frames = 1; frames <= 2; frames++)
	{
		Fake	   *f = fake_open();

		put_deliver(f, 1, 1);
		put_header(f, 1, 4, NULL, 0);
		put_body(f, 1, "abcd", frames == 1 ? 4 : 2);
		if (frames == 2)
			put_body(f, 1, "cd", 2);
		put_deliver(f, 1, 2);
		CHECK(send_jumps(f));
		CHECK_STR(fake_log(f), "delivery 1 tag=1 tag|ex|key ns=ns \"abcd\"\n");
		fake_free(f);
	}
}

int
main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	fake_defaults();
	test_requests();
	test_many_requests();
	test_unexpected_replies();
	test_channel_closed();
	test_crossing_close();
	test_deliveries();
	test_interleaved_channels();
	test_oversize();
	test_malformed_headers();
	test_other_methods();
	test_content_out_of_order();
	test_broken_frames();
	test_truncated_methods();
	test_frame_limit();
	test_close_in_callback();
	test_longjmp();
	return check_summary();
}
