/*-------------------------------------------------------------------------
 *
 * dsn_test.c
 *	  Broker addresses: parts, defaults, refusals, and what is never shown.
 *
 *-------------------------------------------------------------------------
 */
#include "base/dsn.h"
#include "check.h"

static char err[256];

static RinqDsn
parse(const char *text)
{
	RinqDsn		dsn;

	err[0] = '\0';
	if (!rinq_dsn_parse(text, &dsn, err, sizeof(err)))
		printf("refused \"%s\": %s\n", text, err);
	CHECK_STR(err, "");
	return dsn;
}

static void
expect(const char *text, const char *user, const char *password,
	   const char *host, int port, const char *vhost)
{
	RinqDsn		dsn = parse(text);

	CHECK_STR(dsn.user, user);
	CHECK_STR(dsn.password, password);
	CHECK_STR(dsn.host, host);
	CHECK_INT(dsn.port, port);
	CHECK_STR(dsn.vhost, vhost);
}

static void
test_parts(void)
{
	RinqDsn		dsn;

	expect("", "guest", "guest", "localhost", 5672, "/");
	expect("amqp://", "guest", "guest", "localhost", 5672, "/");
	expect("amqp:///", "guest", "guest", "localhost", 5672, "/");
	expect("AMQP://h", "guest", "guest", "h", 5672, "/");
	expect("amqp://h/", "guest", "guest", "h", 5672, "/");
	expect("amqp://h/%2F", "guest", "guest", "h", 5672, "/");
	expect("amqp://h/%2fa%2Fb", "guest", "guest", "h", 5672, "/a/b");
	expect("amqp://u:p@h:1/v", "u", "p", "h", 1, "v");
	expect("amqp://u@h:65535", "u", "", "h", 65535, "/");
	expect("amqp://u:@h", "u", "", "h", 5672, "/");
	expect("amqp://u:p@", "u", "p", "localhost", 5672, "/");
	expect("amqp://u:p@:77", "u", "p", "localhost", 77, "/");
	expect("amqp://u%40x:p%3A%2F%3F%25@h", "u@x", "p:/?%", "h", 5672, "/");
	expect("amqp://u:a:b@c@h", "u", "a:b@c", "h", 5672, "/");
	expect("amqp://%C3%A4:%ff%80@h/%c3%b6", "\xc3\xa4", "\xff\x80", "h", 5672, "\xc3\xb6");
	expect("amqp://u:p@[::1]:99/v", "u", "p", "::1", 99, "v");
	expect("amqp://[fe80::1%25eth0]", "guest", "guest", "fe80::1%eth0", 5672, "/");

	dsn = parse("amqp://h/v?heartbeat=7&connection_timeout=1500");
	CHECK_INT(dsn.heartbeat, 7);
	CHECK_INT(dsn.connection_timeout, 1500);
	dsn = parse("amqp://h?heartbeat=0");
	CHECK_INT(dsn.heartbeat, 0);
	CHECK_INT(dsn.connection_timeout, -1);
	dsn = parse("amqp://h/?");
	CHECK_INT(dsn.heartbeat, -1);
}

static void
refused(const char *text, const char *part)
{
	RinqDsn		dsn;

	memset(&dsn, 'x', sizeof(dsn));
	if (!CHECK(!rinq_dsn_parse(text, &dsn, err, sizeof(err))))
	{
		printf("accepted: %s\n", text);
		return;
	}
	CHECK_CONTAINS(err, part);
	CHECK(strstr(err, "s3cret") == NULL);
	CHECK_STR(dsn.password, "");	/* nothing left behind */
	CHECK_STR(dsn.user, "");
}

static void
test_refused(void)
{
	char		text[400];

	refused("amqps://u:s3cret@h", "not supported by this version");
	refused("http://u:s3cret@h", "does not begin with");
	refused("u:s3cret@h", "does not begin with");
	refused("amqp://u:s3cret@h:port", "port");
	refused("amqp://u:s3cret@h:0", "port");
	refused("amqp://u:s3cret@h:65536", "port");
	refused("amqp://u:s3cret@h:", "port");
	refused("amqp://u:s3cret@h:5672x", "port");
	refused("amqp://u:s3cret%@h", "password contains a \"%\"");
	refused("amqp://u:s3cret%4@h", "password contains a \"%\"");
	refused("amqp://u:s3cret%zz@h", "password contains a \"%\"");
	refused("amqp://u:s3cret%00@h", "password contains a zero byte");
	refused("amqp://:s3cret@h", "user name is empty");
	refused("amqp://u:s3cret@::1", "brackets");
	refused("amqp://u:s3cret@[::1", "not closed");
	refused("amqp://u:s3cret@[]", "empty");
	refused("amqp://u:s3cret@[::1]x", "followed by");
	refused("amqp://u:s3cret@h/a/b", "%2F");
	refused("amqp://u:12/s3cret@h", "%40");
	refused("amqp://u:s3cret#x@h", "%23");
	refused("amqp://u:s3cret@h/v?heartbeat=x", "heartbeat");
	refused("amqp://u:s3cret@h/v?heartbeat=-1", "heartbeat");
	refused("amqp://u:s3cret@h/v?heartbeat=65536", "heartbeat");
	refused("amqp://u:s3cret@h/v?connection_timeout=0", "connection_timeout");
	refused("amqp://u:1?s3cret@h", "options");
	refused("amqp://u:s3cret@h/v?channel_max=5", "options");

	memset(text, 'a', sizeof(text));
	memcpy(text, "amqp://", 7);
	text[7 + 255] = '\0';
	CHECK_INT(strlen(parse(text).host), 255);
	text[7 + 255] = 'a';
	text[7 + 256] = '\0';
	refused(text, "host is longer than 255");
}

static void
test_describe(void)
{
	RinqDsn		dsn;
	char		buf[RINQ_DSN_DESCRIBE_SIZE];
	char		small[8];

	dsn = parse("amqp://user:s3cret@h:1/v");
	CHECK_STR(rinq_dsn_describe(&dsn, buf, sizeof(buf)), "h:1/v");
	CHECK_STR(rinq_dsn_describe(&dsn, small, sizeof(small)), "h:1/v");
	CHECK_STR(rinq_dsn_describe(&dsn, small, 3), "h:");
	dsn = parse("amqp://user:s3cret@[::1]");
	CHECK_STR(rinq_dsn_describe(&dsn, buf, sizeof(buf)), "[::1]:5672/");
	dsn = parse("amqp://h/%2Fx%20%c3%a4%0a");
	CHECK_STR(rinq_dsn_describe(&dsn, buf, sizeof(buf)), "h:5672/%2Fx%20%C3%A4%0A");
	rinq_dsn_wipe(&dsn);
	CHECK_STR(dsn.vhost, "");
}

int
main(void)
{
	test_parts();
	test_refused();
	test_describe();
	return check_summary();
}
