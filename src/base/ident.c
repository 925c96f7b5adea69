/*-------------------------------------------------------------------------
 *
 * base/ident.c
 *	  Text forms of peer, session and message identifiers.
 *
 * The parsers take the text apart by hand instead of with sscanf() or strtoul()
 * since those accept signs, blanks and overlong numbers, and need a terminating
 * zero byte, which text off the wire does not have.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/ident.h"

/* What is left of the text being parsed. */
typedef struct Cursor
{
	const char *pos;
	const char *end;
} Cursor;

/* Take at least one and at most max_digits hexadecimal digits (max. 16). */
static bool
take_hex(Cursor *cur, int max_digits, uint64_t *value)
{
	uint64_t	v = 0;
	int			n = 0;

	while (cur->pos < cur->end)
	{
		int			d = rinq_hex_digit(*cur->pos);

		if (d < 0)
			break;
		if (++n > max_digits)
			return false;
		v = (v << 4) | (uint64_t) d;
		cur->pos++;
	}
	*value = v;
	return n > 0;
}

/* Take one to ten decimal digits whose value fits into 32 bits. */
static bool
take_uint32(Cursor *cur, uint32_t *value)
{
	uint64_t	v = 0;
	int			n = 0;

	while (cur->pos < cur->end && *cur->pos >= '0' && *cur->pos <= '9')
	{
		if (++n > 10)
			return false;
		v = v * 10 + (uint64_t) (*cur->pos - '0');
		cur->pos++;
	}
	if (n == 0 || v > UINT32_MAX)
		return false;
	*value = (uint32_t) v;
	return true;
}

static bool
take_char(Cursor *cur, char c)
{
	if (cur->pos >= cur->end || *cur->pos != c)
		return false;
	cur->pos++;
	return true;
}

/* Take a number and what comes before it. */
static bool
take_number(Cursor *cur, char before, uint32_t *value)
{
	return take_char(cur, before) && take_uint32(cur, value);
}

static bool
take_peer(Cursor *cur, RinqPeerId *id)
{
	uint64_t	clock;
	uint64_t	rand;

	if (!take_hex(cur, 16, &clock) || !take_char(cur, '-') ||
		!take_hex(cur, 4, &rand))
		return false;
	if (clock == 0 || rand == 0)
		return false;
	id->clock = clock;
	id->rand = (uint16_t) rand;
	return true;
}

static Cursor
cursor_over(const char *text, size_t len)
{
	Cursor		cur;

	/* avoid arithmetic on a null pointer */
	cur.pos = text != NULL ? text : "";
	cur.end = text != NULL ? text + len : cur.pos;
	return cur;
}

/* the forms of text, each of which is the one before and a number */
typedef enum IdForm
{
	ID_OF_PEER,
	ID_OF_SESSION,
	ID_OF_REF,
	ID_OF_MESSAGE
} IdForm;

/* Parse one form of text into the part of a message's id that it stands for. */
static bool
parse_id(const char *text, size_t len, IdForm form, RinqMessageId *id)
{
	Cursor		cur = cursor_over(text, len);

	memset(id, 0, sizeof(*id)); /* the bytes between its parts, too */
	if (!take_peer(&cur, &id->ref.session.peer))
		return false;
	if (form >= ID_OF_SESSION && !take_number(&cur, '.', &id->ref.session.seq))
		return false;
	if (form >= ID_OF_REF && !take_number(&cur, '@', &id->ref.revision))
		return false;
	if (form >= ID_OF_MESSAGE && (!take_number(&cur, '#', &id->seq) || id->seq == 0))
		return false;
	return cur.pos == cur.end;
}

bool
rinq_peer_id_parse(const char *text, size_t len, RinqPeerId *out)
{
	RinqMessageId id;

	if (!parse_id(text, len, ID_OF_PEER, &id))
		return false;
	*out = id.ref.session.peer;
	return true;
}

bool
rinq_session_id_parse(const char *text, size_t len, RinqSessionId *out)
{
	RinqMessageId id;

	if (!parse_id(text, len, ID_OF_SESSION, &id))
		return false;
	*out = id.ref.session;
	return true;
}

bool
rinq_ref_parse(const char *text, size_t len, RinqRef *out)
{
	RinqMessageId id;

	if (!parse_id(text, len, ID_OF_REF, &id))
		return false;
	*out = id.ref;
	return true;
}

bool
rinq_message_id_parse(const char *text, size_t len, RinqMessageId *out)
{
	RinqMessageId id;

	if (!parse_id(text, len, ID_OF_MESSAGE, &id))
		return false;
	*out = id;
	return true;
}

size_t
rinq_peer_id_format(const RinqPeerId *id, char *buf, size_t size)
{
	return (size_t) snprintf(buf, size, "%" PRIX64 "-%04X",
							 id->clock, (unsigned) id->rand);
}

size_t
rinq_peer_short_format(const RinqPeerId *id, char *buf, size_t size)
{
	return (size_t) snprintf(buf, size, "%04X", (unsigned) id->rand);
}

size_t
rinq_session_id_format(const RinqSessionId *id, char *buf, size_t size)
{
	return (size_t) snprintf(buf, size, "%" PRIX64 "-%04X.%" PRIu32,
							 id->peer.clock, (unsigned) id->peer.rand, id->seq);
}

size_t
rinq_ref_format(const RinqRef *ref, char *buf, size_t size)
{
	return (size_t) snprintf(buf, size, "%" PRIX64 "-%04X.%" PRIu32 "@%" PRIu32,
							 ref->session.peer.clock,
							 (unsigned) ref->session.peer.rand,
							 ref->session.seq, ref->revision);
}

size_t
rinq_message_id_format(const RinqMessageId *id, char *buf, size_t size)
{
	return (size_t) snprintf(buf, size,
							 "%" PRIX64 "-%04X.%" PRIu32 "@%" PRIu32 "#%" PRIu32,
							 id->ref.session.peer.clock,
							 (unsigned) id->ref.session.peer.rand,
							 id->ref.session.seq, id->ref.revision, id->seq);
}

/* The structures have padding, so they are compared part by part. */

bool
rinq_peer_id_equal(const RinqPeerId *a, const RinqPeerId *b)
{
	return a->clock == b->clock && a->rand == b->rand;
}

bool
rinq_session_id_equal(const RinqSessionId *a, const RinqSessionId *b)
{
	return a->seq == b->seq && rinq_peer_id_equal(&a->peer, &b->peer);
}

bool
rinq_ref_equal(const RinqRef *a, const RinqRef *b)
{
	return a->revision == b->revision &&
		rinq_session_id_equal(&a->session, &b->session);
}

bool
rinq_message_id_equal(const RinqMessageId *a, const RinqMessageId *b)
{
	return a->seq == b->seq && rinq_ref_equal(&a->ref, &b->ref);
}

void
rinq_message_id_key(const RinqMessageId *id, RinqMessageId *key)
{
	memset(key, 0, sizeof(*key));
	key->ref.session.peer.clock = id->ref.session.peer.clock;
	key->ref.session.peer.rand = id->ref.session.peer.rand;
	key->ref.session.seq = id->ref.session.seq;
	key->ref.revision = id->ref.revision;
	key->seq = id->seq;
}

bool
rinq_namespace_valid(const char *name, size_t len)
{
	if (name == NULL || len == 0 || len > RINQ_NAMESPACE_MAXLEN)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			  (c >= '0' && c <= '9') ||
			  c == '_' || c == '.' || c == ':' || c == '-'))
			return false;
	}
	return true;
}

bool
rinq_namespace_reserved(const char *name, size_t len)
{
	return name != NULL && len > 0 && name[0] == '_';
}

/* Count the upper-case hexadecimal digits that follow, as a peer writes them. */
static size_t
count_hex(const char *text)
{
	return strspn(text, "0123456789ABCDEF");
}

/*
 * Return the length of a quote and what names a peer behind it: its id, or the
 * short form alone, as the whole or the beginning of a name.  0 when it is none.
 */
static size_t
peer_name_length(const char *text)
{
	size_t		len = 1;

	if (*text != '\'' && *text != '"')
		return 0;
	if (text[len + count_hex(text + len)] == '-')
		len += count_hex(text + len) + 1;
	if (count_hex(text + len) != RINQ_PEER_SHORT_LEN)
		return 0;
	len += RINQ_PEER_SHORT_LEN;
	return text[len] == text[0] || text[len] == '.' ? len : 0;
}

bool
rinq_same_but_peers(const char *a, const char *b)
{
	while (*a == *b && *a != '\0')
	{
		size_t		skip_a = peer_name_length(a);
		size_t		skip_b = peer_name_length(b);

		a += skip_a > 0 && skip_b > 0 ? skip_a : 1;
		b += skip_a > 0 && skip_b > 0 ? skip_b : 1;
	}
	return *a == *b;
}

/*
 * Find the position after a message was numbered by this one; false when the
 * revision has no numbers left, so that the number never runs into the revision.
 */
bool
rinq_position_advance(uint64_t position, uint64_t *after)
{
	if (RINQ_POSITION_NEXT(position) == UINT32_MAX)
		return false;
	*after = position + 1;
	return true;
}

/*
 * Say whether the session is to be moved to another revision, after a message was numbered by
 * this position.  Said now and then from some number on, as it may go unheard.
 */
bool
rinq_position_is_worn(uint64_t position)
{
	uint32_t	number = RINQ_POSITION_NEXT(position);

	return number >= RINQ_RENUMBER_AT && number % RINQ_RENUMBER_EVERY == 0;
}
