/*-------------------------------------------------------------------------
 *
 * sess_message.h
 *	  The bodies of requests and responses in the namespace "_sess", by which
 *	  peers work on each other's sessions (section 5 of the protocol).
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SESS_MESSAGE_H
#define RINQ_SESS_MESSAGE_H

#include "postgres.h"

#include "protocol/attribute.h"

/* fields that a body does not have are zero */
typedef struct RinqSessBody
{
	uint32		session;		/* "s" */
	uint32		revision;		/* "r" */
	RinqBytes	namespace;		/* "ns" */
	RinqAttribute *keys;		/* "k": of these, the keys */
	int			num_keys;
	RinqAttribute *attributes;	/* "a" */
	int			num_attributes;
	uint32	   *created;		/* "cr" */
	int			num_created;
	int			num_elements;	/* of all lists that were read */
} RinqSessBody;

extern bool rinq_sess_decode(RinqBytes data, RinqSessBody *body);

extern void rinq_sess_encode_fetch(StringInfo out, uint32 session, RinqBytes namespace,
								   const RinqAttribute *keys, int count);
extern void rinq_sess_encode_update(StringInfo out, uint32 session, uint32 revision,
									RinqBytes namespace, const RinqAttribute *attributes,
									int count);
extern void rinq_sess_encode_clear(StringInfo out, uint32 session, uint32 revision,
								   RinqBytes namespace);
extern void rinq_sess_encode_destroy(StringInfo out, uint32 session, uint32 revision);

extern void rinq_sess_encode_revision(StringInfo out, uint32 revision);
extern void rinq_sess_encode_fetched(StringInfo out, uint32 revision,
									 const RinqAttribute *attributes, int count);
extern void rinq_sess_encode_updated(StringInfo out, uint32 revision,
									 const RinqAttribute *attributes, int count);

#endif							/* RINQ_SESS_MESSAGE_H */
