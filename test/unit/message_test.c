/*-------------------------------------------------------------------------
 *
 * message_test.c
 *	  Messages to and from property lists: the shapes that the reference peer
 *	  sends, byte for byte, and everything that can be wrong with a header.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "amqp/message.h"
#include "check.h"

#define FRAME_MAX 131072

#define CLIENT "58AEE146-191C"
#define SERVER "58AEE147-1CEE"

/* ---------------- a property list built by hand ---------------- */

static unsigned char wire[4096];
static size_t wire_len;
static size_t table_at;

static void
put(const void *data, size_t len)
{
	memcpy(wire + wire_len, data, len);
	wire_len += len;
}

static void
begin(unsigned flags)
{
	unsigned char f[2] = {(unsigned char) (flags >> 8), (unsigned char) flags};

	wire_len = 0;
	put(f, 2);
}

static void
put_short(const char *text)
{
	unsigned char len = (unsigned char) strlen(text);

	put(&len, 1);
	put(text, len);
}

static void
put_long(const char *data, size_t len)
{
	unsigned char head[4] = {0, 0, (unsigned char) (len >> 8), (unsigned char) len};

	put(head, 4);
	put(data, len);
}

static void
begin_table(void)
{
	table_at = wire_len;
	put("\0\0\0\0", 4);
}

static void
end_table(void)
{
	size_t		len = wire_len - table_at - 4;

	wire[table_at + 2] = (unsigned char) (len >> 8);
	wire[table_at + 3] = (unsigned char) len;
}

static void
put_entry(const char *key, char kind, const char *data, size_t len)
{
	put_short(key);
	put(&kind, 1);
	if (kind == 'S' || kind == 'x' || kind == 'A' || kind == 'F')
		put_long(data, len);
	else
		put(data, len);
}

static bool
decode(RinqMessage *msg)
{
	/* an exact copy on the heap, so that a sanitizer sees overruns */
	char	   *copy = malloc(wire_len + 1);
	static char *previous;
	bool		ok;

	free(previous);
	previous = copy;
	memcpy(copy, wire, wire_len);
	copy = realloc(copy, wire_len > 0 ? wire_len : 1);
	previous = copy;
	ok = rinq_message_decode(copy, wire_len, msg);
	return ok;
}

/* A list with one header and nothing else. */
static RinqMessage
one_header(const char *key, char kind, const char *data, size_t len)
{
	RinqMessage msg;

	begin(0x2000);
	begin_table();
	put_entry(key, kind, data, len);
	end_table();
	CHECK(decode(&msg));
	return msg;
}

/* ---------------- shapes the reference peer was recorded with ---------------- */

static void
same_bytes(RinqBytes a, RinqBytes b, const char *what)
{
	bool		ok = (a.data == NULL) == (b.data == NULL) && a.len == b.len &&
		(a.len == 0 || memcmp(a.data, b.data, a.len) == 0);

	if (!ok)
		printf("field %s differs\n", what);
	CHECK(ok);
}

/* Encodes, checks the announced size, decodes, compares. */
static void
round_trip(const RinqMessage *msg)
{
	RinqMessage back;
	size_t		size = 0;

	CHECK_INT(rinq_message_check(msg, FRAME_MAX, &size), RINQ_MSG_OK);
	wire_len = rinq_message_encode(msg, (char *) wire, size);
	CHECK_INT(wire_len, size);
	CHECK(decode(&back));
	same_bytes(back.message_id, msg->message_id, "message_id");
	same_bytes(back.correlation_id, msg->correlation_id, "correlation_id");
	same_bytes(back.reply_to, msg->reply_to, "reply_to");
	same_bytes(back.expiration, msg->expiration, "expiration");
	same_bytes(back.type, msg->type, "type");
	same_bytes(back.ns, msg->ns, "ns");
	same_bytes(back.command, msg->command, "command");
	same_bytes(back.constraint, msg->constraint, "constraint");
	same_bytes(back.target, msg->target, "target");
	same_bytes(back.failure_message, msg->failure_message, "failure_message");
	same_bytes(back.span_context, msg->span_context, "span_context");
	same_bytes(back.traceparent, msg->traceparent, "traceparent");
	same_bytes(back.tracestate, msg->tracestate, "tracestate");
	CHECK_INT(back.has_priority, msg->has_priority);
	CHECK_INT(back.priority, msg->priority);
	CHECK_INT(back.persistent, msg->persistent);
	CHECK_INT(back.has_deadline, msg->has_deadline);
	CHECK_INT(back.deadline, msg->deadline);
	CHECK(!back.bad_ns && !back.bad_command && !back.bad_target &&
		  !back.bad_failure_message && !back.bad_span_context && !back.bad_deadline);
}

#define TEXT(s) rinq_bytes((s), sizeof(s) - 1)

static void
test_recorded_shapes(void)
{
	/* a balanced call */
	RinqMessage call = {
		.message_id = TEXT(CLIENT ".1@0#1"),.expiration = TEXT("4999"),
		.reply_to = TEXT("c"),.priority = 1,.has_priority = true,
		.ns = TEXT("math"),.command = TEXT("add"),
		.has_deadline = true,.deadline = INT64_C(1700000000123)
	};

	/* success; failure with and without a message */
	RinqMessage success = {
		.type = TEXT("s"),.expiration = TEXT("4990"),
		.correlation_id = TEXT(CLIENT ".1@0#1"),
		.has_deadline = true,.deadline = INT64_C(1700000000123)
	};
	RinqMessage failure = {
		.type = TEXT("f"),.expiration = TEXT("4990"),
		.correlation_id = TEXT(CLIENT ".1@0#2"),
		.target = TEXT("my-api-error"),
		.failure_message = TEXT("the call to fail failed spectacularly!"),
		.has_deadline = true,.deadline = INT64_C(1700000000123)
	};

	/* an asynchronous request with a trace id, its response, an execute */
	RinqMessage async = {
		.message_id = TEXT(CLIENT ".1@0#10"),.reply_to = TEXT("u"),
		.correlation_id = TEXT("async-trace"),.priority = 1,.has_priority = true,
		.ns = TEXT("math"),.command = TEXT("fail")
	};
	RinqMessage uncorrelated = {
		.type = TEXT("f"),.reply_to = TEXT("u"),.correlation_id = TEXT("async-trace"),
		.ns = TEXT("math"),.command = TEXT("fail"),.target = TEXT("my-api-error"),
		.failure_message = TEXT("the call to fail failed spectacularly!")
	};
	RinqMessage execute = {
		.message_id = TEXT(CLIENT ".1@0#11"),.persistent = true,
		.ns = TEXT("math"),.command = TEXT("add")
	};

	/* between sessions */
	RinqMessage internal = {
		.message_id = TEXT(SERVER ".0@0#1"),.expiration = TEXT("5000"),
		.reply_to = TEXT("c"),.correlation_id = TEXT(CLIENT ".2@2#1"),
		.priority = 2,.has_priority = true,.ns = TEXT("_sess"),
		.command = TEXT("fetch"),.has_deadline = true,.deadline = -1
	};

	/* notifications: to one session, and to many */
	RinqMessage unicast = {
		.type = TEXT("<type>"),.message_id = TEXT(CLIENT ".1@0#37"),
		.ns = TEXT("my-api"),.target = TEXT(SERVER ".1")
	};
	RinqMessage multicast = {
		.type = TEXT("multi"),.message_id = TEXT(CLIENT ".1@0#38"),
		.correlation_id = TEXT("tr-none"),.ns = TEXT("my-api"),
		.constraint = TEXT("\xa1\x61\x6f\x61\x2a")
	};

	/* present but empty is not absent */
	RinqMessage empty = {
		.message_id = TEXT(""),.correlation_id = TEXT(""),.reply_to = TEXT(""),
		.expiration = TEXT(""),.type = TEXT(""),.ns = TEXT(""),.command = TEXT(""),
		.target = TEXT(""),.failure_message = TEXT(""),.span_context = TEXT(""),
		.traceparent = TEXT(""),.tracestate = TEXT(""),
		.has_deadline = true,.deadline = INT64_MIN,.has_priority = true
	};
	RinqMessage nothing = {0};

	round_trip(&call);
	round_trip(&success);
	round_trip(&failure);
	round_trip(&async);
	round_trip(&uncorrelated);
	round_trip(&execute);
	round_trip(&internal);
	round_trip(&unicast);
	round_trip(&multicast);
	round_trip(&empty);
	round_trip(&nothing);
	CHECK_INT(wire_len, 2);
}

/* The exact bytes, so that a mistake in both directions is seen. */
static void
test_bytes_on_the_wire(void)
{
	static const char expected[] =
		"\x2b\x80"					/* headers 13, priority 11, reply-to 9,
									 * expiration 8, message-id 7 */
		"\x00\x00\x00\x21"
		"\x01" "n" "S" "\x00\x00\x00\x04" "math"
		"\x01" "c" "S" "\x00\x00\x00\x03" "add"
		"\x02" "dl" "l" "\xff\xff\xff\xff\xff\xff\xff\xfb"
		"\x01"
		"\x01" "c"
		"\x04" "4999"
		"\x0a" "1-0001.1@0";
	RinqMessage msg = {
		.message_id = TEXT("1-0001.1@0"),.expiration = TEXT("4999"),
		.reply_to = TEXT("c"),.priority = 1,.has_priority = true,
		.ns = TEXT("math"),.command = TEXT("add"),.has_deadline = true,
		.deadline = -5
	};
	RinqMessage multicast = {.constraint = TEXT("\x00\x01\xff")};
	char		buf[256];
	size_t		size = 0;

	CHECK_INT(rinq_message_check(&msg, FRAME_MAX, &size), RINQ_MSG_OK);
	CHECK_INT(size, sizeof(expected) - 1);
	CHECK_INT(rinq_message_encode(&msg, buf, size), size);

	CHECK(memcmp(buf, expected, size) == 0);

	CHECK_INT(rinq_message_check(&multicast, FRAME_MAX, &size), RINQ_MSG_OK);
	CHECK_INT(rinq_message_encode(&multicast, buf, size), size);
	CHECK(size == 16 && memcmp(buf, "\x20\x00\0\0\0\x0a\x01" "cx\0\0\0\x03\0\x01\xff", 16) == 0);
}

/* ---------------- types of headers ---------------- */

/* Every AMQP field type with some content of the right size. */
static const struct
{
	char		kind;
	size_t		len;
}			kinds[] =

{
	{'t', 1}, {'b', 1}, {'B', 1}, {'s', 2}, {'u', 2}, {'I', 4}, {'i', 4},
	{'l', 8}, {'L', 8}, {'f', 4}, {'d', 8}, {'D', 5}, {'S', 8}, {'A', 8},
	{'T', 8}, {'F', 8}, {'V', 0}, {'x', 8}
};

static void
test_header_types(void)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		char		kind = kinds[i].kind;
		size_t		len = kinds[i].len;
		RinqMessage m;

		m = one_header("n", kind, "12345678", len);
		CHECK_INT(m.bad_ns, kind != 'S');
		CHECK_INT(m.ns.data != NULL, kind == 'S');

		m = one_header("c", kind, "12345678", len);
		CHECK_INT(m.bad_command, kind != 'S' && kind != 'x');
		CHECK_INT(m.command.data != NULL, kind == 'S');
		CHECK_INT(m.constraint.data != NULL, kind == 'x');

		m = one_header("t", kind, "12345678", len);
		CHECK_INT(m.bad_target, kind != 'S');
		CHECK_INT(m.target.data != NULL, kind == 'S');

		m = one_header("m", kind, "12345678", len);
		CHECK_INT(m.bad_failure_message, kind != 'S');
		CHECK_INT(m.failure_message.data != NULL, kind == 'S');

		m = one_header("sc", kind, "12345678", len);
		CHECK_INT(m.bad_span_context, kind != 'x');
		CHECK_INT(m.span_context.data != NULL, kind == 'x');

		m = one_header("dl", kind, "\0\0\0\0\0\0\x01\x02", len);
		CHECK_INT(m.bad_deadline, kind != 'l');
		CHECK_INT(m.has_deadline, kind == 'l');
		CHECK_INT(m.deadline, kind == 'l' ? 0x102 : 0);

		/* headers of others are none of our business */
		m = one_header("x-death", kind, "12345678", len);
		CHECK(m.ns.data == NULL && m.command.data == NULL && !m.bad_ns);
		m = one_header("", kind, "12345678", len);
		CHECK(m.ns.data == NULL);
	}
	CHECK_BYTES(one_header("n", 'S', "", 0).ns, "");
}

static void
test_repeated_headers(void)
{
	RinqMessage m;

	begin(0x2000);
	begin_table();
	put_entry("n", 'S', "one", 3);
	put_entry("n", 'S', "two", 3);
	put_entry("c", 'S', "text", 4);
	put_entry("c", 'x', "bytes", 5);
	put_entry("t", 'S', "good", 4);
	put_entry("t", 'I', "1234", 4);
	put_entry("m", 'I', "1234", 4);
	put_entry("m", 'S', "good", 4);
	put_entry("dl", 'l', "12345678", 8);
	put_entry("dl", 'V', "", 0);
	end_table();
	CHECK(decode(&m));
	CHECK_BYTES(m.ns, "two");
	CHECK_BYTES(m.command, NULL);
	CHECK_BYTES(m.constraint, "bytes");
	CHECK_BYTES(m.target, NULL);
	CHECK(m.bad_target);
	CHECK_BYTES(m.failure_message, "good");
	CHECK(!m.bad_failure_message);
	CHECK(m.bad_deadline && !m.has_deadline && m.deadline == 0);
}

/* ---------------- property lists ---------------- */

/* Every property there is, of which ours are picked out. */
static void
put_everything(void)
{
	begin(0xfffc);
	put_short("application/cbor");
	put_short("gzip");
	begin_table();
	put_entry("n", 'S', "ns", 2);
	end_table();
	put("\x02", 1);
	put("\x07", 1);
	put_short("correlation");
	put_short("reply");
	put_short("60000");
	put_short("message");
	put("\0\0\0\0\0\0\0\1", 8);
	put_short("type");
	put_short("user");
	put_short("app");
	put_short("cluster");
}

static void
test_all_properties(void)
{
	RinqMessage m;
	size_t		whole;

	put_everything();
	CHECK(decode(&m));
	CHECK_BYTES(m.ns, "ns");
	CHECK_BYTES(m.correlation_id, "correlation");
	CHECK_BYTES(m.reply_to, "reply");
	CHECK_BYTES(m.expiration, "60000");
	CHECK_BYTES(m.message_id, "message");
	CHECK_BYTES(m.type, "type");
	CHECK(m.persistent);
	CHECK(m.has_priority);
	CHECK_INT(m.priority, 7);

	/* cut off anywhere, it is malformed, and nothing is left in the result */
	whole = wire_len;
	for (size_t len = 0; len < whole; len++)
	{
		wire_len = len;
		CHECK(!decode(&m));
		CHECK(m.ns.data == NULL && m.message_id.data == NULL && !m.persistent);
	}
	wire_len = whole;
	put("x", 1);
	CHECK(!decode(&m));			/* trailing bytes */

	begin(0x1000);
	put("\x01", 1);
	CHECK(decode(&m));
	CHECK(!m.persistent);
	begin(0);
	CHECK(decode(&m));
	begin(1);
	put("\0\0", 2);
	CHECK(!decode(&m));			/* continued flags */
	begin(2);
	CHECK(!decode(&m));			/* no such property */
	CHECK(!rinq_message_decode(NULL, 0, &m));
}

static void
test_malformed_tables(void)
{
	RinqMessage m;
	unsigned char deep[3000];
	size_t		n = 0;

	/* every type byte that does not exist */
	for (int kind = 0; kind < 256; kind++)
	{
		if (kind != 0 && strchr("tbBsuIilLfdDSATFVx", kind) != NULL)
			continue;
		begin(0x2000);
		begin_table();
		put_short("k");
		wire[wire_len++] = (unsigned char) kind;
		put("12345678", 8);
		end_table();
		CHECK(!decode(&m));
	}

	/* a table longer than the list, an entry longer than the table */
	begin(0x2000);
	put("\0\0\0\x10", 4);
	CHECK(!decode(&m));
	begin(0x2000);
	put("\xff\xff\xff\xff", 4);
	CHECK(!decode(&m));
	begin(0x2000);
	begin_table();
	put("\x01n" "S\xff\xff\xff\xff", 7);
	end_table();
	CHECK(!decode(&m));
	begin(0x2000);
	begin_table();
	put("\xff" "abc", 4);
	end_table();
	CHECK(!decode(&m));

	/* nested tables are stepped over, however deep, and even if broken */
	while (n + 6 <= sizeof(deep))
	{
		size_t		inner = sizeof(deep) - n - 6;

		deep[n++] = 0;
		deep[n++] = 'F';
		deep[n++] = 0;
		deep[n++] = 0;
		deep[n++] = (unsigned char) (inner >> 8);
		deep[n++] = (unsigned char) inner;
	}
	begin(0x2000);
	begin_table();
	put_entry("deep", 'F', (const char *) deep, n);
	put_entry("n", 'S', "ns", 2);
	end_table();
	CHECK(decode(&m));
	CHECK_BYTES(m.ns, "ns");
}

/* ---------------- limits of encoding ---------------- */

static void
test_limits(void)
{
	static char big[FRAME_MAX + 10];
	RinqMessage m;
	size_t		size;
	RinqBytes  *shorts[] = {&m.message_id, &m.correlation_id, &m.reply_to,
	&m.expiration, &m.type};
	RinqBytes  *longs[] = {&m.ns, &m.command, &m.target, &m.failure_message,
	&m.span_context, &m.constraint};
	char	   *buf = malloc(FRAME_MAX);

	memset(big, 'x', sizeof(big));
	for (int i = 0; i < 5; i++)
	{
		memset(&m, 0, sizeof(m));
		*shorts[i] = rinq_bytes(big, 255);
		CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_OK);
		CHECK_INT(rinq_message_encode(&m, buf, size), size);
		*shorts[i] = rinq_bytes(big, 256);
		CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_STRING_TOO_LONG);
	}
	for (int i = 0; i < 6; i++)
	{
		/* flags, table length, key, type, length */
		size_t		fixed = 2 + 4 + (longs[i] == &m.span_context ? 3 : 2) + 1 + 4;

		memset(&m, 0, sizeof(m));
		*longs[i] = rinq_bytes(big, FRAME_MAX - 20 - fixed);
		CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_OK);
		CHECK_INT(size, FRAME_MAX - 20);
		CHECK_INT(rinq_message_encode(&m, buf, size), size);
		longs[i]->len++;
		CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_TOO_LARGE);
		*longs[i] = rinq_bytes(big, SIZE_MAX);
		CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_TOO_LARGE);
	}
	memset(&m, 0, sizeof(m));
	m.command = rinq_bytes("c", 1);
	m.constraint = rinq_bytes("c", 1);
	CHECK_INT(rinq_message_check(&m, FRAME_MAX, &size), RINQ_MSG_BAD_FIELDS);
	for (int s = RINQ_MSG_OK; s <= RINQ_MSG_BAD_CHANNEL; s++)
		CHECK(strcmp(rinq_msg_status_text((RinqMsgStatus) s), "unknown error") != 0);
	free(buf);
}

int
main(void)
{
	test_recorded_shapes();
	test_bytes_on_the_wire();
	test_header_types();
	test_repeated_headers();
	test_all_properties();
	test_malformed_tables();
	test_limits();
	return check_summary();
}
