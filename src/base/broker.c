/*-------------------------------------------------------------------------
 *
 * broker.c
 *	  Addresses of brokers: taking them apart, and showing them.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/broker.h"

static bool
fail_address(char *err, size_t errsize, const char *text)
{
	snprintf(err, errsize, "%s", text);
	return false;
}

/* ---------------- addresses ---------------- */

/* Parse user[:password]. */
static bool
parse_userinfo(const char *text, size_t len, RinqBroker *out,
			   char *err, size_t errsize)
{
	const char *colon = memchr(text, ':', len);
	size_t		userlen = colon != NULL ? (size_t) (colon - text) : len;

	if (!rinq_broker_decode(text, userlen, "user name", out->user, sizeof(out->user), err, errsize))
		return false;
	if (out->user[0] == '\0')
		return fail_address(err, errsize, "the user name is empty");

	/* the default password belongs to the default user only */
	out->password[0] = '\0';
	if (colon == NULL)
		return true;
	out->password_given = true;
	return rinq_broker_decode(colon + 1, len - userlen - 1, "password", out->password,
							  sizeof(out->password), err, errsize);
}

/* Set the option in text[0..len), which is name=value or nothing. */
static bool
parse_option(const char *text, size_t len, RinqBroker *out, char *err, size_t errsize)
{
	const char *eq = memchr(text, '=', len);
	size_t		namelen = eq != NULL ? (size_t) (eq - text) : len;
	char		name[32];
	char		value[RINQ_BROKER_PATH_SIZE];

	if (len == 0)
		return true;
	value[0] = '\0';
	if (eq != NULL &&
		!rinq_broker_decode(eq + 1, len - namelen - 1, "value of an option", value, sizeof(value),
							err, errsize))
		return false;
	snprintf(name, sizeof(name), "%.*s", (int) (namelen < sizeof(name) ? namelen : sizeof(name)), text);

	/* they have a place of their own in an address */
	if (strcmp(name, "hosts") == 0 || strcmp(name, "vhost") == 0 ||
		strcmp(name, "user") == 0 || strcmp(name, "password") == 0)
		return fail_address(err, errsize, "hosts, virtual host, user name and password are no options after \"?\" but parts of the address before it");
	return rinq_broker_set_option(out, name, value, err, errsize);
}

/* Parse name=value[&name=value]... */
static bool
parse_options(const char *text, size_t len, RinqBroker *out,
			  char *err, size_t errsize)
{
	const char *end = text + len;

	for (;;)
	{
		const char *amp = memchr(text, '&', (size_t) (end - text));
		const char *stop = amp != NULL ? amp : end;

		if (!parse_option(text, (size_t) (stop - text), out, err, errsize))
			return false;
		if (amp == NULL)
			return true;
		text = amp + 1;
	}
}

static bool
parse_after_scheme(const char *text, RinqBroker *out, char *err, size_t errsize)
{
	const char *end = text + strlen(text);
	const char *query;
	const char *path;
	const char *at;

	if (memchr(text, '#', (size_t) (end - text)) != NULL)
		return fail_address(err, errsize, "a \"#\" must be written as \"%23\"");
	query = memchr(text, '?', (size_t) (end - text));
	if (query == NULL)
		query = end;
	path = memchr(text, '/', (size_t) (query - text));
	if (path == NULL)
		path = query;

	/* a password may hold an unescaped "@", a host may not: take the last */
	at = path;
	while (at > text && at[-1] != '@')
		at--;
	if (at > text &&
		!parse_userinfo(text, (size_t) (at - text - 1), out, err, errsize))
		return false;
	if (!rinq_broker_parse_host_list(out, at, (size_t) (path - at), true, err, errsize))
		return false;

	if (path + 1 < query)
	{
		if (memchr(path + 1, '/', (size_t) (query - path - 1)) != NULL)
			return fail_address(err, errsize, "a \"/\" in the virtual host, user name or password must be written as \"%2F\"");
		/* most likely the rest of a password that holds an unescaped "/" */
		if (memchr(path + 1, '@', (size_t) (query - path - 1)) != NULL)
			return fail_address(err, errsize, "a \"@\" after the first \"/\" must be written as \"%40\", and a \"/\" before an \"@\" as \"%2F\"");
		if (!rinq_broker_decode(path + 1, (size_t) (query - path - 1), "virtual host",
								out->vhost, sizeof(out->vhost), err, errsize))
			return false;
	}
	return query == end ||
		parse_options(query + 1, (size_t) (end - query - 1), out, err, errsize);
}

static bool
parse_encrypted(const char *text, RinqBroker *out, char *err, size_t errsize)
{
	out->sslmode = RINQ_SSL_VERIFY_FULL;
	if (!parse_after_scheme(text, out, err, errsize))
		return false;
	if (out->sslmode == RINQ_SSL_DISABLE)
		return fail_address(err, errsize, "\"amqps://\" and option \"sslmode\" \"disable\" contradict each other");
	return true;
}

bool
rinq_broker_parse(const char *address, RinqBroker *broker, char *err, size_t errsize)
{
	bool		ok;

	rinq_broker_init(broker);
	if (address == NULL || address[0] == '\0')
		return true;

	if (strncasecmp(address, "amqps://", 8) == 0)
		ok = parse_encrypted(address + 8, broker, err, errsize);
	else if (strncasecmp(address, "amqp://", 7) == 0)
		ok = parse_after_scheme(address + 7, broker, err, errsize);
	else
		ok = fail_address(err, errsize, "the address does not begin with \"amqp://\" or \"amqps://\"");

	ok = ok && rinq_broker_check(broker, err, errsize);
	if (!ok)
		rinq_broker_wipe(broker);
	return ok;
}

/* ---------------- showing ---------------- */

/* Append c, or its percent-encoded form, if there is room for it. */
static void
append_encoded(char *buf, size_t size, size_t *len, char c)
{
	unsigned char u = (unsigned char) c;

	if (u > ' ' && u < 0x7f && c != '/' && c != '%' && c != '?' && c != '#')
	{
		if (*len + 1 < size)
			buf[(*len)++] = c;
	}
	else if (*len + 3 < size)
	{
		static const char hex[] = "0123456789ABCDEF";

		buf[(*len)++] = '%';
		buf[(*len)++] = hex[u >> 4];
		buf[(*len)++] = hex[u & 15];
	}
}

/* Append "host:port" and return its length; zero, when there is no room for it. */
static size_t
append_host(const RinqBroker *broker, int host_index, char *buf, size_t size)
{
	const RinqBrokerHost *host = &broker->hosts[host_index];
	bool		v6 = strchr(host->host, ':') != NULL;
	char		port[16];
	size_t		len = 0;

	if (v6 && len + 1 < size)
		buf[len++] = '[';
	for (const char *p = host->host; *p != '\0'; p++)
		append_encoded(buf, size, &len, *p);
	if (v6 && len + 1 < size)
		buf[len++] = ']';
	snprintf(port, sizeof(port), ":%d", rinq_broker_port(broker, host_index));
	for (const char *p = port; *p != '\0' && len + 1 < size; p++)
		buf[len++] = *p;
	return len;
}

/* Append "/vhost", and the end. */
static char *
finish_description(const RinqBroker *broker, char *buf, size_t size, size_t len)
{
	if (len + 1 < size)
		buf[len++] = '/';

	/* the default virtual host is shown as plain "host:port/" */
	if (strcmp(broker->vhost, "/") != 0)
	{
		for (const char *p = broker->vhost; *p != '\0'; p++)
			append_encoded(buf, size, &len, *p);
	}
	buf[len] = '\0';
	return buf;
}

char *
rinq_broker_describe(const RinqBroker *broker, int host_index, char *buf, size_t size)
{
	if (size == 0)
		return buf;
	return finish_description(broker, buf, size, append_host(broker, host_index, buf, size));
}

char *
rinq_broker_describe_all(const RinqBroker *broker, char *buf, size_t size)
{
	size_t		len = 0;

	if (size == 0)
		return buf;
	for (int i = 0; i < broker->nhosts; i++)
	{
		if (i > 0 && len + 1 < size)
			buf[len++] = ',';
		len += append_host(broker, i, buf + len, size - len);
	}
	return finish_description(broker, buf, size, len);
}

int
rinq_broker_find_host(const RinqBroker *broker, const char *description)
{
	char		name[RINQ_BROKER_DESCRIBE_SIZE];

	for (int i = 0; i < broker->nhosts; i++)
	{
		if (strcmp(rinq_broker_describe(broker, i, name, sizeof(name)), description) == 0)
			return i;
	}
	return -1;
}
