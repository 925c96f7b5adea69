/*-------------------------------------------------------------------------
 *
 * broker_options.c
 *	  Options of brokers by name, and what contradicts among them.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/broker_options.h"
#include "base/bytes.h"

#define PLAIN_PORT	5672
#define TLS_PORT	5671

static bool
fail_parse(char *err, size_t errsize, const char *text)
{
	snprintf(err, errsize, "%s", text);
	return false;
}

/* ---------------- hosts, and percent signs ---------------- */

static bool
fail_part(char *err, size_t errsize, const char *part, const char *what)
{
	snprintf(err, errsize, "the %s %s", part, what);
	return false;
}

/* Decode text[0..len), which has percent signs, into a part of the result. */
bool
rinq_broker_decode(const char *text, size_t len, const char *part,
				   char *out, size_t size, char *err, size_t errsize)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (c == '%')
		{
			int			hi = i + 1 < len ? rinq_hex_digit(text[i + 1]) : -1;
			int			lo = i + 2 < len ? rinq_hex_digit(text[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return fail_part(err, errsize, part,
								 "contains a \"%\" that is not followed by two hexadecimal digits");
			if (hi == 0 && lo == 0)
				return fail_part(err, errsize, part, "contains a zero byte");
			c = (char) (unsigned char) (hi * 16 + lo);
			i += 2;
		}
		if (n >= size - 1)
		{
			snprintf(err, errsize, "the %s is longer than %zu bytes", part, size - 1);
			return false;
		}
		out[n++] = c;
	}
	out[n] = '\0';
	return true;
}

static bool
parse_port(const char *text, size_t len, int *out)
{
	long		v = 0;

	if (len == 0 || len > 5)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (text[i] - '0');
	}
	if (v < 1 || v > 65535)
		return false;
	*out = (int) v;
	return true;
}

/* Take over the name of a host, or its address; when empty, leave what is there. */
static bool
set_host(RinqBrokerHost *out, const char *text, size_t len, bool encoded,
		 char *err, size_t errsize)
{
	if (len == 0)
		return true;
	if (encoded)
	{
		if (!rinq_broker_decode(text, len, "host", out->host, sizeof(out->host), err, errsize))
			return false;
	}
	else
	{
		if (len >= sizeof(out->host))
			return fail_parse(err, errsize, "the host is longer than 255 bytes");
		memcpy(out->host, text, len);
		out->host[len] = '\0';
	}
	for (const char *p = out->host; *p != '\0'; p++)
	{
		if ((unsigned char) *p <= ' ' || *p == 0x7f)
			return fail_parse(err, errsize, "the host contains a blank or a control character");

		/* part of an address with a password in it, which would be shown */
		if (*p == '@' || *p == '/')
			return fail_parse(err, errsize, "the host contains \"@\" or \"/\"");
	}
	return true;
}

/* Parse host, host:port, [v6], [v6]:port, or :port. */
static bool
parse_hostport(RinqBrokerHost *out, const char *text, size_t len, bool encoded,
			   char *err, size_t errsize)
{
	const char *end = text + len;
	const char *port;

	if (len > 0 && text[0] == '[')
	{
		const char *close = memchr(text, ']', len);

		if (close == NULL)
			return fail_parse(err, errsize, "the bracket around the host address is not closed");
		if (close == text + 1)
			return fail_parse(err, errsize, "the host address in brackets is empty");
		if (!set_host(out, text + 1, (size_t) (close - text - 1), encoded, err, errsize))
			return false;
		port = close + 1;
		if (port < end && *port != ':')
			return fail_parse(err, errsize, "the host address in brackets is followed by something other than a port");
	}
	else
	{
		port = memchr(text, ':', len);
		if (port == NULL)
			port = end;
		else if (memchr(port + 1, ':', (size_t) (end - port - 1)) != NULL)
			return fail_parse(err, errsize, "an IPv6 address must be enclosed in brackets");
		if (!set_host(out, text, (size_t) (port - text), encoded, err, errsize))
			return false;
	}

	if (port < end && !parse_port(port + 1, (size_t) (end - port - 1), &out->port))
		return fail_parse(err, errsize, "the port is not a number from 1 to 65535");
	return true;
}

static void
set_default_host(RinqBrokerHost *out)
{
	memset(out, 0, sizeof(*out));
	strcpy(out->host, "localhost");
}

/* Tell whether an entry of a list is nothing, or a port without a host. */
static bool
is_empty_host(const char *text, const char *stop)
{
	return text == stop ||
		(*text == ':' && memchr(text + 1, ':', (size_t) (stop - text - 1)) == NULL);
}

/*
 * Replace the hosts by those in text[0..len), in the form of an address or
 * without percent signs.  One that is left out is the default; but in a list
 * it is a slip, most likely.
 */
bool
rinq_broker_parse_host_list(RinqBroker *broker, const char *text, size_t len,
							bool encoded, char *err, size_t errsize)
{
	const char *end = text + len;
	bool		is_list = memchr(text, ',', len) != NULL;

	broker->nhosts = 0;
	for (;;)
	{
		const char *comma = memchr(text, ',', (size_t) (end - text));
		const char *stop = comma != NULL ? comma : end;
		RinqBrokerHost *out = &broker->hosts[broker->nhosts];

		if (broker->nhosts == RINQ_BROKER_MAX_HOSTS)
		{
			snprintf(err, errsize, "there are more than %d hosts", RINQ_BROKER_MAX_HOSTS);
			return false;
		}
		if (is_list && is_empty_host(text, stop))
			return fail_parse(err, errsize, "a host in the list is empty");
		set_default_host(out);
		if (!parse_hostport(out, text, (size_t) (stop - text), encoded, err, errsize))
			return false;
		broker->nhosts++;
		if (comma == NULL)
			return true;
		text = comma + 1;
	}
}

bool
rinq_broker_parse_hosts(RinqBroker *broker, const char *list, char *err, size_t errsize)
{
	return rinq_broker_parse_host_list(broker, list, strlen(list), false, err, errsize);
}

/* ---------------- options by name ---------------- */

typedef struct Option
{
	const char *name;
	bool		(*set) (RinqBroker *broker, const char *value);
	const char *wanted;			/* what the value has to be */
	size_t		offset;			/* of a text, which is taken as it is */
	size_t		size;
} Option;

typedef struct OptionChoice
{
	const char *name;
	int			value;
} OptionChoice;

static bool
set_decimal(const char *value, long min, long max, int *out)
{
	long		v = 0;
	size_t		len = strlen(value);

	if (len == 0 || len > 9 || strspn(value, "0123456789") != len)
		return false;
	for (; *value != '\0'; value++)
		v = v * 10 + (*value - '0');
	if (v < min || v > max)
		return false;
	*out = (int) v;
	return true;
}

static bool
set_choice(const OptionChoice *choices, const char *value, int *out)
{
	for (; choices->name != NULL; choices++)
	{
		if (strcasecmp(choices->name, value) == 0)
		{
			*out = choices->value;
			return true;
		}
	}
	return false;
}

static bool
set_heartbeat(RinqBroker *broker, const char *value)
{
	return set_decimal(value, 0, 65535, &broker->heartbeat);
}

static bool
set_connection_timeout(RinqBroker *broker, const char *value)
{
	return set_decimal(value, 1, 600000, &broker->connection_timeout);
}

static bool
set_load_balance(RinqBroker *broker, const char *value)
{
	static const OptionChoice orders[] = {{"disable", false}, {"random", true}, {NULL, 0}};
	int			random;

	if (!set_choice(orders, value, &random))
		return false;
	broker->load_balance_random = random;
	return true;
}

static bool
set_sslmode(RinqBroker *broker, const char *value)
{
	static const OptionChoice modes[] = {
		{"disable", RINQ_SSL_DISABLE}, {"require", RINQ_SSL_REQUIRE},
		{"verify-ca", RINQ_SSL_VERIFY_CA}, {"verify-full", RINQ_SSL_VERIFY_FULL}, {NULL, 0}
	};
	int			mode;

	if (!set_choice(modes, value, &mode))
		return false;
	broker->sslmode = (RinqSslMode) mode;
	broker->sslmode_given = true;
	return true;
}

static bool
set_min_protocol(RinqBroker *broker, const char *value)
{
	static const OptionChoice versions[] = {
		{"TLSv1", 0x0301}, {"TLSv1.1", 0x0302}, {"TLSv1.2", 0x0303}, {"TLSv1.3", 0x0304}, {NULL, 0}
	};

	if (!set_choice(versions, value, &broker->ssl_min_protocol_version))
		return false;
	broker->ssl_min_protocol_given = true;
	return true;
}

static bool
set_mechanism(RinqBroker *broker, const char *value)
{
	static const OptionChoice mechanisms[] = {{"PLAIN", false}, {"EXTERNAL", true}, {NULL, 0}};
	int			external;

	if (!set_choice(mechanisms, value, &external))
		return false;
	broker->sasl_external = external;
	return true;
}

#define TEXT(field) NULL, NULL, offsetof(RinqBroker, field), sizeof(((RinqBroker *) 0)->field)

/* hosts, user and password come first, and are set apart */
static const Option options[] = {
	{"hosts", NULL, NULL, 0, 0},
	{"user", TEXT(user)},
	{"password", TEXT(password)},
	{"vhost", TEXT(vhost)},
	{"passfile", TEXT(passfile)},
	{"load_balance_hosts", set_load_balance, "\"disable\" or \"random\"", 0, 0},
	{"heartbeat", set_heartbeat, "a number of seconds from 0 to 65535", 0, 0},
	{"connection_timeout", set_connection_timeout, "a number of milliseconds from 1 to 600000", 0, 0},
	{"sslmode", set_sslmode, "\"disable\", \"require\", \"verify-ca\" or \"verify-full\"", 0, 0},
	{"sslrootcert", TEXT(sslrootcert)},
	{"sslcert", TEXT(sslcert)},
	{"sslkey", TEXT(sslkey)},
	{"sslcrl", TEXT(sslcrl)},
	{"ssl_min_protocol_version", set_min_protocol, "\"TLSv1\", \"TLSv1.1\", \"TLSv1.2\" or \"TLSv1.3\"", 0, 0},
	{"sasl_mechanism", set_mechanism, "\"PLAIN\" or \"EXTERNAL\"", 0, 0}
};

#define NUM_OPTIONS ((int) (sizeof(options) / sizeof(options[0])))

const char *
rinq_broker_option_name(int number)
{
	return number >= 0 && number < NUM_OPTIONS ? options[number].name : NULL;
}

static const Option *
find_option(const char *name)
{
	for (int i = 0; i < NUM_OPTIONS; i++)
	{
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	return NULL;
}

static bool
set_text_option(RinqBroker *broker, const Option *option, const char *value, char *err, size_t errsize)
{
	size_t		len = strlen(value);

	if (len >= option->size)
	{
		snprintf(err, errsize, "option \"%s\" is longer than %zu bytes", option->name, option->size - 1);
		return false;
	}
	memcpy((char *) broker + option->offset, value, len + 1);
	return true;
}

/* Set user or password: the default password belongs to the default user only. */
static bool
set_login(RinqBroker *broker, const Option *option, const char *value, char *err, size_t errsize)
{
	bool		is_user = strcmp(option->name, "user") == 0;

	if (is_user && value[0] == '\0')
	{
		snprintf(err, errsize, "the user name is empty");
		return false;
	}
	if (!set_text_option(broker, option, value, err, errsize))
		return false;
	if (!is_user)
		broker->password_given = true;
	else if (!broker->password_given)
		broker->password[0] = '\0';
	return true;
}

/* Fail without repeating the unknown name: in an address, it may be part of a password. */
static bool
fail_unknown(char *err, size_t errsize)
{
	snprintf(err, errsize, "there is an option that is not known; the known options are ");
	for (int i = 0; i < NUM_OPTIONS; i++)
	{
		size_t		len = strlen(err);

		snprintf(err + len, errsize - len, "%s\"%s\"", i == 0 ? "" : i < NUM_OPTIONS - 1 ? ", " : " and ",
				 options[i].name);
	}
	return false;
}

bool
rinq_broker_set_option(RinqBroker *broker, const char *name, const char *value,
					   char *err, size_t errsize)
{
	const Option *option = find_option(name);

	if (option == NULL)
		return fail_unknown(err, errsize);
	if (strcmp(name, "hosts") == 0)
		return rinq_broker_parse_hosts(broker, value, err, errsize);
	if (strcmp(name, "user") == 0 || strcmp(name, "password") == 0)
		return set_login(broker, option, value, err, errsize);
	if (option->set == NULL)
		return set_text_option(broker, option, value, err, errsize);
	if (!option->set(broker, value))
	{
		snprintf(err, errsize, "option \"%s\" is not %s", name, option->wanted);
		return false;
	}
	return true;
}

/* ---------------- what contradicts ---------------- */

/* Tell whether options are set that mean nothing without TLS. */
static bool
has_tls_options(const RinqBroker *broker)
{
	return broker->sslrootcert[0] != '\0' || broker->sslcert[0] != '\0' ||
		broker->sslkey[0] != '\0' || broker->sslcrl[0] != '\0' || broker->ssl_min_protocol_given;
}

/* Check what concerns TLS; with sslmode=disable written, the rest of it is not used. */
static bool
check_tls(const RinqBroker *broker, char *err, size_t errsize)
{
	if (broker->sslmode == RINQ_SSL_DISABLE)
	{
		if (broker->sslmode_given || !has_tls_options(broker))
			return true;
		return fail_parse(err, errsize, "there are options for encryption, but neither option \"sslmode\" nor \"amqps://\"");
	}
	if ((broker->sslcert[0] == '\0') != (broker->sslkey[0] == '\0'))
		return fail_parse(err, errsize, "options \"sslcert\" and \"sslkey\" need each other");
	if (strcmp(broker->sslrootcert, "system") == 0 && broker->sslmode != RINQ_SSL_VERIFY_FULL)
		return fail_parse(err, errsize, "option \"sslrootcert\" \"system\" needs option \"sslmode\" \"verify-full\"");
	if (broker->sslmode == RINQ_SSL_VERIFY_CA && broker->sslrootcert[0] == '\0')
		return fail_parse(err, errsize, "option \"sslmode\" \"verify-ca\" needs option \"sslrootcert\"");
	if (broker->sslmode == RINQ_SSL_REQUIRE && broker->sslcrl[0] != '\0' && broker->sslrootcert[0] == '\0')
		return fail_parse(err, errsize, "option \"sslcrl\" needs option \"sslrootcert\"");
	return true;
}

bool
rinq_broker_check(const RinqBroker *broker, char *err, size_t errsize)
{
	if (broker->sasl_external &&
		(broker->sslmode == RINQ_SSL_DISABLE || broker->sslcert[0] == '\0'))
		return fail_parse(err, errsize, "option \"sasl_mechanism\" \"EXTERNAL\" needs encryption and option \"sslcert\"");
	return check_tls(broker, err, errsize);
}

/* ---------------- life ---------------- */

int
rinq_broker_port(const RinqBroker *broker, int host_index)
{
	int			port = broker->hosts[host_index].port;

	if (port != 0)
		return port;
	return broker->sslmode == RINQ_SSL_DISABLE ? PLAIN_PORT : TLS_PORT;
}

void
rinq_broker_init(RinqBroker *broker)
{
	memset(broker, 0, sizeof(*broker));
	strcpy(broker->user, "guest");
	strcpy(broker->password, "guest");
	strcpy(broker->vhost, "/");
	set_default_host(&broker->hosts[0]);
	broker->nhosts = 1;
	broker->heartbeat = -1;
	broker->connection_timeout = -1;
	broker->ssl_min_protocol_version = 0x0303;
}

void
rinq_broker_wipe(RinqBroker *broker)
{
	explicit_bzero(broker, sizeof(*broker));
}
