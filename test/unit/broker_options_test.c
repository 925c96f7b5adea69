/*-------------------------------------------------------------------------
 *
 * broker_options_test.c
 *	  Brokers: addresses and options, defaults, refusals, and what is never shown.
 *
 *-------------------------------------------------------------------------
 */
#include "base/broker.h"
#include "check.h"

static char err[1024];

static RinqBroker
parse(const char *text)
{
	RinqBroker	dsn;

	err[0] = '\0';
	if (!rinq_broker_parse(text, &dsn, err, sizeof(err)))
		printf("refused \"%s\": %s\n", text, err);
	CHECK_STR(err, "");
	return dsn;
}

static void
expect(const char *text, const char *user, const char *password,
	   const char *host, int port, const char *vhost)
{
	RinqBroker	dsn = parse(text);

	CHECK_STR(dsn.user, user);
	CHECK_STR(dsn.password, password);
	CHECK_INT(dsn.nhosts, 1);
	CHECK_STR(dsn.hosts[0].host, host);
	CHECK_INT(rinq_broker_port(&dsn, 0), port);
	CHECK_STR(dsn.vhost, vhost);
}

static void
test_parts(void)
{
	RinqBroker	dsn;

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
	RinqBroker	dsn;

	memset(&dsn, 'x', sizeof(dsn));
	if (!CHECK(!rinq_broker_parse(text, &dsn, err, sizeof(err))))
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
	refused("amqp://u:s3cret@h/v?password=s3cret", "parts of the address");
	refused("amqp://u:s3cret@h/v?heartbeat=%zz", "value of an option contains");
	refused("amqp://u:s3cret@h/v?heartbeat", "heartbeat");
	refused("amqp://u:s3cret@a b", "blank");
	refused("amqp://u:s3cret@a%0ab", "blank");

	memset(text, 'a', sizeof(text));
	memcpy(text, "amqp://", 7);
	text[7 + 255] = '\0';
	CHECK_INT(strlen(parse(text).hosts[0].host), 255);
	text[7 + 255] = 'a';
	text[7 + 256] = '\0';
	refused(text, "host is longer than 255");
}

static void
test_hosts(void)
{
	RinqBroker	broker = parse("amqp://u:p@a:1,b,[::1],[::2]:4,a:1/v?load_balance_hosts=random");
	char		list[200] = "amqp://h";
	char		buf[RINQ_BROKER_DESCRIBE_SIZE];
	char		small[11];

	CHECK_INT(broker.nhosts, 5);
	CHECK_STR(rinq_broker_describe_all(&broker, buf, sizeof(buf)), "a:1,b:5672,[::1]:5672,[::2]:4,a:1/v");
	CHECK_STR(rinq_broker_describe_all(&broker, small, sizeof(small)), "a:1,b:5672");
	CHECK_STR(rinq_broker_describe(&broker, 3, buf, sizeof(buf)), "[::2]:4/v");
	CHECK(broker.load_balance_random);
	broker = parse("amqp://a?load_balance_hosts=disable");
	CHECK(!broker.load_balance_random);

	refused("amqp://u:s3cret@a,", "is empty");
	refused("amqp://u:s3cret@,a", "is empty");
	refused("amqp://u:s3cret@a,,b", "is empty");
	refused("amqp://u:s3cret@a,:5672", "is empty");
	refused("amqp://u:s3cret@a,b:x", "port");
	refused("amqp://u:s3cret@a,::1", "brackets");
	refused("amqp://u:s3cret@a?load_balance_hosts=yes", "\"disable\" or \"random\"");
	for (int i = 2; i <= 16; i++)
		strcat(list, ",h");
	CHECK_INT(parse(list).nhosts, 16);
	strcat(list, ",h");
	refused(list, "more than 16 hosts");

	rinq_broker_init(&broker);
	CHECK(rinq_broker_set_option(&broker, "hosts", "x:5671,[fe80::1%eth0]", err, sizeof(err)));
	CHECK_INT(broker.nhosts, 2);
	CHECK_STR(broker.hosts[1].host, "fe80::1%eth0");
	CHECK_INT(rinq_broker_port(&broker, 0), 5671);
	CHECK_INT(rinq_broker_port(&broker, 1), 5672);
	broker.sslmode = RINQ_SSL_REQUIRE;
	CHECK_INT(rinq_broker_port(&broker, 1), 5671);
	CHECK(!rinq_broker_set_option(&broker, "hosts", "x, y", err, sizeof(err)));
	CHECK_CONTAINS(err, "blank");
	CHECK(!rinq_broker_set_option(&broker, "hosts", "s3cret@x", err, sizeof(err)));
	CHECK_STR(err, "the host contains \"@\" or \"/\"");
	CHECK(!rinq_broker_set_option(&broker, "hosts", "x/vhost", err, sizeof(err)));
	CHECK_STR(err, "the host contains \"@\" or \"/\"");
	CHECK(!rinq_broker_set_option(&broker, "hosts", "x,", err, sizeof(err)));
}

/* Set an option in an otherwise default broker. */
static bool
option(RinqBroker *broker, const char *name, const char *value)
{
	rinq_broker_init(broker);
	err[0] = '\0';
	return rinq_broker_set_option(broker, name, value, err, sizeof(err));
}

static void
test_logins(void)
{
	static char token[RINQ_PASSWORD_SIZE + 1];
	static char address[RINQ_PASSWORD_SIZE + 100];
	RinqBroker	broker;

	CHECK(option(&broker, "user", "u"));
	CHECK_STR(broker.password, "");
	CHECK(option(&broker, "password", "p") && rinq_broker_set_option(&broker, "user", "u", err, sizeof(err)));
	CHECK_STR(broker.password, "p");
	CHECK(!option(&broker, "user", ""));
	CHECK_CONTAINS(err, "empty");

	memset(token, 't', RINQ_PASSWORD_SIZE - 1);
	CHECK(option(&broker, "password", token));
	CHECK_STR(broker.password, token);
	snprintf(address, sizeof(address), "amqp://u:%s@h", token);
	CHECK_STR(parse(address).password, token);
	token[RINQ_PASSWORD_SIZE - 1] = 't';
	CHECK(!option(&broker, "password", token));
	CHECK_CONTAINS(err, "\"password\" is longer than 8191 bytes");
	snprintf(address, sizeof(address), "amqp://u:%s@h", token);
	refused(address, "password is longer than 8191 bytes");
	CHECK_STR(parse("amqp://u@h?passfile=/a%20b").passfile, "/a b");
}

/* Check what is said about options that do not go together. */
static void
contradicts(const char *names_and_values, const char *part)
{
	RinqBroker	broker;
	char		text[200];
	char	   *next = text;

	rinq_broker_init(&broker);
	snprintf(text, sizeof(text), "%s", names_and_values);
	for (char *name; (name = strsep(&next, " ")) != NULL;)
	{
		char	   *value = strchr(name, '=');

		*value = '\0';
		CHECK(rinq_broker_set_option(&broker, name, value + 1, err, sizeof(err)));
	}
	err[0] = '\0';
	CHECK(rinq_broker_check(&broker, err, sizeof(err)) == (part[0] == '\0'));
	CHECK_CONTAINS(err, part);
}

static void
test_tls_options(void)
{
	RinqBroker	broker;

	CHECK(option(&broker, "sslmode", "verify-ca"));
	CHECK_INT(broker.sslmode, RINQ_SSL_VERIFY_CA);
	CHECK(broker.sslmode_given);
	CHECK(!option(&broker, "sslmode", "prefer"));
	CHECK_CONTAINS(err, "\"verify-full\"");
	CHECK(option(&broker, "ssl_min_protocol_version", "tlsv1.3"));
	CHECK_INT(broker.ssl_min_protocol_version, 0x0304);
	CHECK(!option(&broker, "ssl_min_protocol_version", "1.3"));
	CHECK(option(&broker, "sasl_mechanism", "external"));
	CHECK(broker.sasl_external);
	CHECK(!option(&broker, "SSLMODE", "require"));
	CHECK_CONTAINS(err, "\"hosts\", \"user\"");
	CHECK_STR(rinq_broker_option_name(0), "hosts");
	CHECK(rinq_broker_option_name(100) == NULL && rinq_broker_option_name(-1) == NULL);

	contradicts("sslmode=disable sslcert=c sslrootcert=system", "");
	contradicts("sslcert=c", "neither option \"sslmode\"");
	contradicts("ssl_min_protocol_version=TLSv1.3", "neither option \"sslmode\"");
	contradicts("sslmode=disable ssl_min_protocol_version=TLSv1.3", "");
	contradicts("sslmode=require sslcert=c", "need each other");
	contradicts("sslmode=require sslkey=k", "need each other");
	contradicts("sslmode=require sslrootcert=system", "\"verify-full\"");
	contradicts("sasl_mechanism=EXTERNAL", "needs encryption");
	contradicts("sasl_mechanism=EXTERNAL sslmode=require", "option \"sslcert\"");
	refused("amqps://u:s3cret@h?sslmode=disable", "contradict");
	contradicts("sslmode=verify-ca", "needs option \"sslrootcert\"");
	contradicts("sslmode=require sslcrl=x", "option \"sslcrl\" needs");
}

static void
test_describe(void)
{
	RinqBroker	dsn;
	char		buf[RINQ_BROKER_DESCRIBE_SIZE];
	char		small[8];

	dsn = parse("amqp://user:s3cret@h:1/v");
	CHECK_STR(rinq_broker_describe(&dsn, 0, buf, sizeof(buf)), "h:1/v");
	CHECK_STR(rinq_broker_describe(&dsn, 0, small, sizeof(small)), "h:1/v");
	CHECK_STR(rinq_broker_describe(&dsn, 0, small, 3), "h:");
	dsn = parse("amqp://user:s3cret@[::1]");
	CHECK_STR(rinq_broker_describe(&dsn, 0, buf, sizeof(buf)), "[::1]:5672/");
	dsn = parse("amqp://h/%2Fx%20%c3%a4%0a");
	CHECK_STR(rinq_broker_describe(&dsn, 0, buf, sizeof(buf)), "h:5672/%2Fx%20%C3%A4%0A");
	rinq_broker_wipe(&dsn);
	CHECK_STR(dsn.vhost, "");
}

int
main(void)
{
	test_parts();
	test_refused();
	test_hosts();
	test_logins();
	test_tls_options();
	test_describe();
	return check_summary();
}
