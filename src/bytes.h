/*-------------------------------------------------------------------------
 *
 * bytes.h
 *	  A length and a pointer: text or binary data that somebody else owns.
 *
 * Used wherever data passes through the layers without being copied; plain C,
 * so that code without a PostgreSQL server can use it too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BYTES_H
#define RINQ_BYTES_H

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

#endif							/* RINQ_BYTES_H */
