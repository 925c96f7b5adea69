/*-------------------------------------------------------------------------
 *
 * fuzz_test.c
 *	  Damaged streams from the broker, in great number and always the same.
 *
 * usage: fuzz_test [ROUNDS [SEED]]
 *
 * Takes a valid stream that uses every kind of frame, damages it in random
 * places, and feeds it in random pieces.  Whatever comes of it, the connection
 * must neither crash nor read or write out of bounds, which is for the
 * sanitizers to notice, and must keep its promises, which are checked here.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdlib.h>

#include "base/ident.h"
#include "check.h"
#include "fake.h"

static uint64_t state;

/* xorshift: the same numbers everywhere */
static uint32_t
random_below(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t) (state >> 11) % limit;
}

static void
put_login(Fake *f)
{
	put_start(f, "RabbitMQ", "3.10.8", "AMQPLAIN PLAIN");
	put_tune(f, 2047, 8192, 60);
	put_open_ok(f);
}

/* What the broker says once channels 1 and 2 have been asked for. */
static void
put_conversation(Fake *f)
{
	static const char props[] =
		"\xbd\xa0" "\x04text" "\0\0\0\x3e"
		"\x01" "nS\0\0\0\x02" "ns"
		"\x01" "cx\0\0\0\x01" "y"
		"\x02" "dll\0\0\0\0\0\0\0\1"
		"\x01" "tS\0\0\0\x00"
		"\x07" "x-deathA\0\0\0\x05" "F\0\0\0\0"
		"\x02" "scx\0\0\0\x00"
		"\x02\x03" "\x01" "d" "\x04" "5000" "\x01" "m" "\x01" "s";

	for (int ch = 1; ch <= 2; ch++)
	{
		method_begin(f, ch, M(20, 11));
		put_longstr(f, "");
		frame_end(f);
	}
	put_method(f, 1, M(60, 11));
	method_begin(f, 1, M(50, 11));
	put_shortstr(f, "q");
	put32(f, 1);
	put32(f, 2);
	frame_end(f);
	method_begin(f, 1, M(60, 21));
	put_shortstr(f, "tag");
	frame_end(f);
	put_method(f, 2, M(85, 11));
	put_deliver(f, 1, 1);
	put_header(f, 1, 5, props, sizeof(props) - 1);
	put_body(f, 1, "hello", 5);
	method_begin(f, 0, M(10, 60));
	put_shortstr(f, "memory");
	frame_end(f);
	put_deliver(f, 1, 2);
	put_header(f, 1, 6, NULL, 0);
	put_body(f, 1, "abc", 3);
	method_begin(f, 2, M(60, 80));
	put64(f, 1);
	put8(f, 0);
	frame_end(f);
	put_body(f, 1, "def", 3);
	frame_begin(f, F_HEARTBEAT, 0);
	frame_end(f);
	method_begin(f, 2, M(60, 50));
	put16(f, 312);
	put_shortstr(f, "NO_ROUTE");
	put_shortstr(f, "ex");
	put_shortstr(f, "key");
	frame_end(f);
	put_header(f, 2, 0, NULL, 0);
	method_begin(f, 2, M(60, 120));
	put64(f, 2);
	put8(f, 1);
	frame_end(f);
	method_begin(f, 1, M(60, 30));
	put_shortstr(f, "tag");
	put8(f, 0);
	frame_end(f);
	put_method(f, 0, M(10, 61));
	put_deliver(f, 1, 3);
	put_header(f, 1, 100000, NULL, 0);
	put_body(f, 1, "skipped", 7);
	put_close(f, 1, 404, "NOT_FOUND", M(60, 40));
	put_close(f, 0, 320, "CONNECTION_FORCED", 0);
}

/* Damages out[from..), mostly a little. */
static void
damage(Fake *f, size_t from)
{
	int			times = 1 + (int) random_below(4);

	while (times-- > 0 && f->out_len > from)
	{
		size_t		span = f->out_len - from;
		size_t		at = from + random_below((uint32_t) span);
		size_t		n;

		switch (random_below(6))
		{
			case 0:				/* another byte */
				f->out[at] = (unsigned char) random_below(256);
				break;
			case 1:				/* one bit */
				f->out[at] ^= (unsigned char) (1 << random_below(8));
				break;
			case 2:				/* an extreme value */
				f->out[at] = random_below(2) ? 0xff : 0;
				break;
			case 3:				/* a piece is missing */
				n = 1 + random_below(8);
				if (at + n > f->out_len)
					n = f->out_len - at;
				memmove(f->out + at, f->out + at + n, f->out_len - at - n);
				f->out_len -= n;
				break;
			case 4:				/* a piece comes twice, at the end */
				n = 1 + random_below(40);
				if (at + n > f->out_len)
					n = f->out_len - at;
				{
					unsigned char copy[64];

					memcpy(copy, f->out + at, n);
					put_bytes(f, copy, n);
				}
				break;
			default:			/* the end is missing */
				if (random_below(4) == 0)
					f->out_len = at;
				break;
		}
	}
}

/* Feeds what has been put in pieces of random size. */
static void
feed(Fake *f)
{
	unsigned char *data = f->out;
	size_t		len = f->out_len;
	size_t		at = 0;
	size_t		cap = f->out_cap;

	f->out = NULL;
	f->out_len = f->out_cap = 0;
	while (at < len && rinq_conn_state(f->conn) != RINQ_CONN_CLOSED)
	{
		size_t		n = random_below(3) == 0 ? len - at : 1 + random_below(60);

		if (n > len - at)
			n = len - at;
		put_bytes(f, data + at, n);
		fake_send(f);
		at += n;
	}
	free(f->out);
	f->out = data;
	f->out_len = 0;
	f->out_cap = cap;
}

static void
ask_for_things(Fake *f)
{
	RinqMessage m = {0};

	(void) rinq_amqp_channel_open(f->conn, 1, 1);
	(void) rinq_amqp_channel_open(f->conn, 2, 2);
	(void) rinq_basic_qos(f->conn, 1, 5, false, 3);
	(void) rinq_queue_declare(f->conn, 1, rinq_bytes_str("q"), true, false, 3, "classic", 4);
	(void) rinq_basic_consume(f->conn, 1, rinq_bytes_str("q"), rinq_bytes_str("tag"), false, 5);
	(void) rinq_confirm_select(f->conn, 2, 6);
	(void) rinq_basic_publish(f->conn, 2, rinq_bytes_str("e"), rinq_bytes_str("k"), true, &m, "b", 1);
}

static void
one_round(void)
{
	Fake	   *f = fake_new();
	bool		early = random_below(4) == 0;

	f->reopen = random_below(2) == 0;
	f->close_channel = random_below(8) == 0;
	put_login(f);
	if (early)
		damage(f, 0);
	feed(f);
	if (rinq_conn_state(f->conn) == RINQ_CONN_OPEN)
	{
		ask_for_things(f);
		put_conversation(f);
		damage(f, 0);
		feed(f);
	}
	fake_step(f);
	f->now += 100000;
	fake_step(f);

	/* after all that time it is over, for a reason, unless heartbeats are off */
	if (rinq_conn_state(f->conn) != RINQ_CONN_CLOSED)
		CHECK(rinq_conn_state(f->conn) == RINQ_CONN_OPEN && rinq_conn_heartbeat(f->conn) == 0);
	else
	{
		CHECK(rinq_conn_error_class(f->conn) != RINQ_CONN_ERR_NONE);
		CHECK(rinq_conn_error(f->conn)[0] != '\0');
		CHECK_INT(rinq_conn_fd(f->conn), -1);
		CHECK_INT(rinq_amqp_channel_open(f->conn, 3, 0), RINQ_MSG_NOT_OPEN);
	}
	CHECK(strstr(rinq_conn_error(f->conn), "s3cret") == NULL);
	for (const char *p = rinq_conn_error(f->conn); *p != '\0'; p++)
	{
		if (*p < ' ' || *p > '~')
			CHECK(false);
	}
	fake_free(f);
}

/* The stream as it should be: everything in it is understood. */
static void
undamaged(void)
{
	Fake	   *f = fake_new();

	put_login(f);
	feed(f);
	ask_for_things(f);
	put_conversation(f);
	f->out_len -= 30;			/* before the connection is closed */
	feed(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	CHECK_STR(fake_log(f),
			  "open\n"
			  "reply 1 kind=0 cookie=1 counts=0,0\n"
			  "reply 2 kind=0 cookie=2 counts=0,0\n"
			  "reply 1 kind=7 cookie=3 counts=0,0\n"
			  "reply 1 kind=3 cookie=4 counts=1,2\n"
			  "reply 1 kind=8 cookie=5 counts=0,0\n"
			  "reply 2 kind=10 cookie=6 counts=0,0\n"
			  "delivery 1 tag=1 tag|ex|key ns=ns \"hello\"\n"
			  "blocked 1 \"memory\"\n"
			  "confirm 2 1\n"
			  "delivery 1 tag=2 tag|ex|key ns=ns \"abcdef\"\n"
			  "return 2 312 \"NO_ROUTE\" ex|key \"\"\n"
			  "confirm 2 2 multiple nack\n"
			  "cancel 1 tag\n"
			  "blocked 0 \"\"\n"
			  "closed 1 404 \"NOT_FOUND\" basic.publish request=0 kind=0 cookie=0\n");
	fake_free(f);
}

/* Property lists made of nothing but chance. */
static void
random_properties(void)
{
	RinqMessage m;
	RinqMessageId id;
	size_t		len = random_below(60);
	char	   *data = malloc(len + 1);

	for (size_t i = 0; i < len; i++)
		data[i] = (char) (random_below(3) == 0 ? random_below(256) : random_below(8));
	if (len > 1 && random_below(2))
	{
		data[0] = 0x20;			/* nothing but a table */
		data[1] = 0;
	}
	data = realloc(data, len > 0 ? len : 1);
	if (!rinq_message_decode(data, len, &m))
		CHECK(m.ns.data == NULL && m.command.data == NULL && m.type.data == NULL);
	else
	{
		size_t		size = 0;

		CHECK(rinq_message_check(&m, 131072, &size) == RINQ_MSG_OK);
		CHECK(m.ns.len + m.command.len + m.target.len + m.type.len <= len);
	}
	(void) rinq_message_id_parse(data, len, &id);
	free(data);
}

int
main(int argc, char **argv)
{
	int			rounds = argc > 1 ? atoi(argv[1]) : 10000;

	setvbuf(stdout, NULL, _IOLBF, 0);
	state = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : UINT64_C(0x9E3779B97F4A7C15);
	fake_defaults();

	undamaged();
	for (int i = 0; i < rounds; i++)
	{
		one_round();
		for (int j = 0; j < 10; j++)
			random_properties();
	}
	return check_summary();
}
