/*-------------------------------------------------------------------------
 *
 * base/bytes.h
 *	  A length and a pointer: text or binary data that others own.
 *
 * Used wherever data passes through the layers without being copied; plain C,
 * so that code without a PostgreSQL server can use it too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BYTES_H
#define RINQ_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct RinqBytes
{
	const char *data;			/* not NUL-terminated; NULL when absent */
	size_t		len;
} RinqBytes;

static inline RinqBytes
rinq_bytes(const char *data, size_t len)
{
	RinqBytes	b;

	b.data = data;
	b.len = len;
	return b;
}

static inline RinqBytes
rinq_bytes_str(const char *str)
{
	return rinq_bytes(str, str != NULL ? strlen(str) : 0);
}

static inline bool
rinq_bytes_equal(RinqBytes a, RinqBytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool
rinq_bytes_are(RinqBytes bytes, const char *str)
{
	return rinq_bytes_equal(bytes, rinq_bytes_str(str));
}

/* Return the value of a hexadecimal digit, or -1. */
static inline int
rinq_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

#endif							/* RINQ_BYTES_H */
