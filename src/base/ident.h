/*-------------------------------------------------------------------------
 *
 * base/ident.h
 *	  Identifiers of the Rinq network and the names of namespaces.
 *
 * Responsible for the text forms only: parsing, formatting, comparing.  Where
 * the numbers come from (clock, strong random source, counters) is the
 * business of the peer.  Plain C; nothing here allocates memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_IDENT_H
#define RINQ_IDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A peer: neither part is ever zero in a valid id. */
typedef struct RinqPeerId
{
	uint64_t	clock;			/* Unix seconds when the peer connected */
	uint16_t	rand;			/* reserved on the broker, hence unique there */
} RinqPeerId;

/* A session of a peer; number 0 is the zero-session of internal calls. */
typedef struct RinqSessionId
{
	RinqPeerId	peer;
	uint32_t	seq;
} RinqSessionId;

/* A session as it was at one revision. */
typedef struct RinqRef
{
	RinqSessionId session;
	uint32_t	revision;
} RinqRef;

/* A message, numbered from 1 within the revision of its sender. */
typedef struct RinqMessageId
{
	RinqRef		ref;
	uint32_t	seq;
} RinqMessageId;

/*
 * Where the messages of a session are: its revision, and the number of its next
 * message in that, as one word that can be changed atomically.
 */
#define RINQ_POSITION(revision, next) (((uint64_t) (revision) << 32) | (uint32_t) (next))
#define RINQ_POSITION_REVISION(position) ((uint32_t) ((position) >> 32))
#define RINQ_POSITION_NEXT(position) ((uint32_t) (position))

/*
 * From this number on, the peer is asked now and then to move the session to
 * its next revision, in which messages are numbered from 1 again.
 */
#define RINQ_RENUMBER_AT 0xF0000000
#define RINQ_RENUMBER_EVERY 0x1000000

/*
 * Longest text of each form, without and with the terminating zero byte:
 * 16 hexadecimal digits, "-", 4 digits; then ".", "@", "#" with up to 10
 * decimal digits each.
 */
#define RINQ_PEER_SHORT_LEN		4
#define RINQ_PEER_ID_MAXLEN		21
#define RINQ_SESSION_ID_MAXLEN	32
#define RINQ_REF_MAXLEN			43
#define RINQ_MESSAGE_ID_MAXLEN	54

#define RINQ_PEER_SHORT_SIZE	(RINQ_PEER_SHORT_LEN + 1)
#define RINQ_PEER_ID_SIZE		(RINQ_PEER_ID_MAXLEN + 1)
#define RINQ_SESSION_ID_SIZE	(RINQ_SESSION_ID_MAXLEN + 1)
#define RINQ_REF_SIZE			(RINQ_REF_MAXLEN + 1)
#define RINQ_MESSAGE_ID_SIZE	(RINQ_MESSAGE_ID_MAXLEN + 1)

/*
 * A namespace becomes part of "cmd.<namespace>" and of the routing key
 * "<namespace>.<peer id>", both AMQP short strings of at most 255 bytes.
 */
#define RINQ_NAMESPACE_MAXLEN	200

/*
 * Formatting: writes the text and a terminating zero byte into buf and returns
 * the length of the text.  With a buffer smaller than the RINQ_*_SIZE above the
 * text may be cut off (still terminated); the length returned is that of the
 * whole text.
 */
extern size_t rinq_peer_id_format(const RinqPeerId *id, char *buf, size_t size);
extern size_t rinq_peer_short_format(const RinqPeerId *id, char *buf, size_t size);
extern size_t rinq_session_id_format(const RinqSessionId *id, char *buf, size_t size);
extern size_t rinq_ref_format(const RinqRef *ref, char *buf, size_t size);
extern size_t rinq_message_id_format(const RinqMessageId *id, char *buf, size_t size);

/*
 * Parsing: true and *out filled in when the whole of text[0..len) is a valid
 * identifier; false and *out untouched otherwise.  The text needs no
 * terminating zero byte; text may be NULL when len is 0.
 */
extern bool rinq_peer_id_parse(const char *text, size_t len, RinqPeerId *out);
extern bool rinq_session_id_parse(const char *text, size_t len, RinqSessionId *out);
extern bool rinq_ref_parse(const char *text, size_t len, RinqRef *out);
extern bool rinq_position_advance(uint64_t position, uint64_t *after);
extern bool rinq_position_is_worn(uint64_t position);
extern bool rinq_message_id_parse(const char *text, size_t len, RinqMessageId *out);

extern bool rinq_peer_id_equal(const RinqPeerId *a, const RinqPeerId *b);
extern bool rinq_session_id_equal(const RinqSessionId *a, const RinqSessionId *b);
extern bool rinq_ref_equal(const RinqRef *a, const RinqRef *b);
extern bool rinq_message_id_equal(const RinqMessageId *a, const RinqMessageId *b);

/*
 * Tell whether two texts are the same, whichever peers they name: names in quotes
 * that begin with the id of a peer or its short form, of which the next connection
 * has others.
 */
extern bool rinq_same_but_peers(const char *a, const char *b);

/* Copy an id without stray bytes between its parts, for hashing. */
extern void rinq_message_id_key(const RinqMessageId *id, RinqMessageId *key);

/* Tell whether this is a namespace at all (letters, digits, "_.:-", 1 to 200 bytes). */
extern bool rinq_namespace_valid(const char *name, size_t len);

/* Tell whether a namespace is one of the network's own, which applications may not use. */
extern bool rinq_namespace_reserved(const char *name, size_t len);

#endif							/* RINQ_IDENT_H */
