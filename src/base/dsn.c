/*-------------------------------------------------------------------------
 *
 * dsn.c
 *	  Parsing of amqp:// addresses.
 *
 * Error texts name the part that is wrong and never repeat it, as the text
 * around a misplaced delimiter may well be the password.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "base/dsn.h"

#define DEFAULT_PORT	5672

static bool
fail_parse(char *err, size_t errsize, const char *text)
{
	snprintf(err, errsize, "%s", text);
	return false;
}

static bool
fail_part(char *err, size_t errsize, const char *part, const char *what)
{
	snprintf(err, errsize, "the %s %s", part, what);
	return false;
}

/* Percent-decode text[0..len) into a part of the result. */
static bool
decode_part(const char *text, size_t len, const char *part,
			char out[RINQ_DSN_PART_SIZE], char *err, size_t errsize)
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
		if (n >= RINQ_DSN_PART_SIZE - 1)
			return fail_part(err, errsize, part, "is longer than 255 bytes");
		out[n++] = c;
	}
	out[n] = '\0';
	return true;
}

/* Parse a decimal number from min to max and nothing else. */
static bool
parse_number(const char *text, size_t len, long min, long max, int *out)
{
	long		v = 0;

	if (len == 0 || len > 9)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (text[i] - '0');
	}
	if (v < min || v > max)
		return false;
	*out = (int) v;
	return true;
}

/* Parse user[:password]. */
static bool
parse_userinfo(const char *text, size_t len, RinqDsn *out,
			   char *err, size_t errsize)
{
	const char *colon = memchr(text, ':', len);
	size_t		userlen = colon != NULL ? (size_t) (colon - text) : len;

	if (!decode_part(text, userlen, "user name", out->user, err, errsize))
		return false;
	if (out->user[0] == '\0')
		return fail_parse(err, errsize, "the user name is empty");
	if (colon == NULL)
	{
		/* the default password belongs to the default user only */
		out->password[0] = '\0';
		return true;
	}
	return decode_part(colon + 1, len - userlen - 1, "password", out->password,
					   err, errsize);
}

/* Parse host, host:port, [v6], [v6]:port, or nothing. */
static bool
parse_hostport(const char *text, size_t len, RinqDsn *out,
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
		if (!decode_part(text + 1, (size_t) (close - text - 1), "host",
						 out->host, err, errsize))
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
		if (port > text &&
			!decode_part(text, (size_t) (port - text), "host", out->host,
						 err, errsize))
			return false;
	}

	if (port < end)
	{
		if (!parse_number(port + 1, (size_t) (end - port - 1), 1, 65535, &out->port))
			return fail_parse(err, errsize, "the port is not a number from 1 to 65535");
	}
	return true;
}

/* Parse name=value[&name=value]... */
static bool
parse_options(const char *text, size_t len, RinqDsn *out,
			  char *err, size_t errsize)
{
	const char *end = text + len;

	while (text < end)
	{
		const char *amp = memchr(text, '&', (size_t) (end - text));
		const char *stop = amp != NULL ? amp : end;
		const char *eq = memchr(text, '=', (size_t) (stop - text));
		size_t		namelen = (size_t) ((eq != NULL ? eq : stop) - text);
		const char *value = eq != NULL ? eq + 1 : stop;
		size_t		valuelen = (size_t) (stop - value);

		if (namelen == 9 && memcmp(text, "heartbeat", 9) == 0)
		{
			if (!parse_number(value, valuelen, 0, 65535, &out->heartbeat))
				return fail_parse(err, errsize, "option \"heartbeat\" is not a number of seconds from 0 to 65535");
		}
		else if (namelen == 18 && memcmp(text, "connection_timeout", 18) == 0)
		{
			if (!parse_number(value, valuelen, 1, 600000, &out->connection_timeout))
				return fail_parse(err, errsize, "option \"connection_timeout\" is not a number of milliseconds from 1 to 600000");
		}
		else if (stop > text)
			return fail_parse(err, errsize, "only the options \"heartbeat\" and \"connection_timeout\" are known");
		text = amp != NULL ? amp + 1 : end;
	}
	return true;
}

static void
set_defaults(RinqDsn *out)
{
	memset(out, 0, sizeof(*out));
	strcpy(out->user, "guest");
	strcpy(out->password, "guest");
	strcpy(out->host, "localhost");
	strcpy(out->vhost, "/");
	out->port = DEFAULT_PORT;
	out->heartbeat = -1;
	out->connection_timeout = -1;
}

static bool
parse_after_scheme(const char *text, RinqDsn *out, char *err, size_t errsize)
{
	const char *end = text + strlen(text);
	const char *query;
	const char *path;
	const char *at;

	if (memchr(text, '#', (size_t) (end - text)) != NULL)
		return fail_parse(err, errsize, "a \"#\" must be written as \"%23\"");
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
	if (!parse_hostport(at, (size_t) (path - at), out, err, errsize))
		return false;

	if (path + 1 < query)
	{
		if (memchr(path + 1, '/', (size_t) (query - path - 1)) != NULL)
			return fail_parse(err, errsize, "a \"/\" in the virtual host, user name or password must be written as \"%2F\"");
		/* most likely the rest of a password that holds an unescaped "/" */
		if (memchr(path + 1, '@', (size_t) (query - path - 1)) != NULL)
			return fail_parse(err, errsize, "a \"@\" after the first \"/\" must be written as \"%40\", and a \"/\" before an \"@\" as \"%2F\"");
		if (!decode_part(path + 1, (size_t) (query - path - 1), "virtual host",
						 out->vhost, err, errsize))
			return false;
	}
	return query == end ||
		parse_options(query + 1, (size_t) (end - query - 1), out, err, errsize);
}

bool
rinq_dsn_parse(const char *text, RinqDsn *out, char *err, size_t errsize)
{
	bool		ok;

	set_defaults(out);
	if (text == NULL || text[0] == '\0')
		return true;

	if (strncasecmp(text, "amqps://", 8) == 0)
		ok = fail_parse(err, errsize, "encrypted connections (\"amqps://\") are not supported by this version");
	else if (strncasecmp(text, "amqp://", 7) != 0)
		ok = fail_parse(err, errsize, "the address does not begin with \"amqp://\"");
	else
		ok = parse_after_scheme(text + 7, out, err, errsize);

	if (!ok)
		rinq_dsn_wipe(out);
	return ok;
}

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

char *
rinq_dsn_describe(const RinqDsn *dsn, char *buf, size_t size)
{
	bool		v6 = strchr(dsn->host, ':') != NULL;
	char		port[16];
	size_t		len = 0;

	if (size == 0)
		return buf;
	if (v6 && len + 1 < size)
		buf[len++] = '[';
	for (const char *p = dsn->host; *p != '\0'; p++)
		append_encoded(buf, size, &len, *p);
	if (v6 && len + 1 < size)
		buf[len++] = ']';
	snprintf(port, sizeof(port), ":%d", dsn->port);
	for (const char *p = port; *p != '\0' && len + 1 < size; p++)
		buf[len++] = *p;
	if (len + 1 < size)
		buf[len++] = '/';

	/* the default virtual host is shown as plain "host:port/" */
	if (strcmp(dsn->vhost, "/") != 0)
	{
		for (const char *p = dsn->vhost; *p != '\0'; p++)
			append_encoded(buf, size, &len, *p);
	}
	buf[len] = '\0';
	return buf;
}

void
rinq_dsn_wipe(RinqDsn *dsn)
{
	explicit_bzero(dsn, sizeof(*dsn));
}
