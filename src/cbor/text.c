/*-------------------------------------------------------------------------
 *
 * text.c
 *	  Helpers of the CBOR converter for text and for bytes written as text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/internal.h"
#include "mb/pg_wchar.h"

/*
 * Tell whether every byte is between 1 and 127.  Such text is valid in all
 * server encodings and in UTF-8, and means the same in both.
 */
bool
rinq_is_plain_ascii(const char *s, size_t len)
{
	const uint64 high = UINT64CONST(0x8080808080808080);
	const uint64 ones = UINT64CONST(0x0101010101010101);
	size_t		i = 0;

	for (; i + sizeof(uint64) <= len; i += sizeof(uint64))
	{
		uint64		word;

		/* subtracting 1 borrows from the high bit where a byte is zero */
		memcpy(&word, s + i, sizeof(word));
		if (((word | (word - ones)) & high) != 0)
			return false;
	}
	for (; i < len; i++)
	{
		if (s[i] == '\0' || IS_HIGHBIT_SET(s[i]))
			return false;
	}
	return true;
}

/*
 * Tell whether a text is UTF-8.  A NUL is one of its characters, though
 * PostgreSQL's check stops at it.
 */
bool
rinq_is_utf8(const char *text, size_t len)
{
	if (rinq_is_plain_ascii(text, len))
		return true;
	while (len > 0)
	{
		const char *nul = memchr(text, '\0', len);
		size_t		piece = nul != NULL ? (size_t) (nul - text) : len;

		if (piece > PG_INT32_MAX || !pg_verify_mbstr(PG_UTF8, text, (int) piece, true))
			return false;
		if (nul != NULL)
			piece++;
		text += piece;
		len -= piece;
	}
	return true;
}

/*
 * Write bytes as base64, with the URL alphabet and without padding, or with
 * the classical alphabet and padding.  dst needs (len + 2) / 3 * 4 bytes.
 * Returns the number of characters written.
 */
size_t
rinq_base64(char *dst, const uint8 *src, size_t len, bool url)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const char *tail = url ? "-_" : "+/";
	char	   *p = dst;

	for (size_t i = 0; i < len; i += 3)
	{
		size_t		n = Min(len - i, 3);
		uint32		group = (uint32) src[i] << 16;

		if (n > 1)
			group |= (uint32) src[i + 1] << 8;
		if (n > 2)
			group |= src[i + 2];

		for (size_t j = 0; j < 4; j++)
		{
			uint32		digit = (group >> (18 - 6 * j)) & 0x3F;

			if (j <= n)
				*p++ = digit < 62 ? alphabet[digit] : tail[digit - 62];
			else if (!url)
				*p++ = '=';
		}
	}
	return p - dst;
}

/*
 * Write bytes as upper-case base16.  dst needs len * 2 bytes.
 */
size_t
rinq_base16(char *dst, const uint8 *src, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++)
	{
		dst[2 * i] = digits[src[i] >> 4];
		dst[2 * i + 1] = digits[src[i] & 0x0F];
	}
	return len * 2;
}
