/*-------------------------------------------------------------------------
 *
 * message.h
 *	  A Rinq message without its body, to and from AMQP properties.
 *
 * Responsible for the mapping between the structure below and the property
 * list of an AMQP content header (property flags, properties, header table),
 * including the AMQP type every Rinq header must have.  Not responsible for
 * the meaning of the fields: identifiers, UTF-8 validity, required fields and
 * so on are checked by the layers above.  Plain C; allocates nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_MESSAGE_H
#define RINQ_AMQP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* What went wrong with a message or a request to the connection. */
typedef enum RinqMsgStatus
{
	RINQ_MSG_OK = 0,
	RINQ_MSG_STRING_TOO_LONG,	/* a short string of more than 255 bytes */
	RINQ_MSG_TOO_LARGE,			/* the headers do not fit into one frame, or
								 * the body exceeds the configured maximum */
	RINQ_MSG_BAD_FIELDS,		/* fields that exclude each other are set */
	RINQ_MSG_NO_MEMORY,
	RINQ_MSG_OVER_BROKER_LIMIT, /* the body exceeds what the broker is known
								 * to take; not found out here */
	RINQ_MSG_BACKLOG,			/* max_backlog bytes already wait to be sent */
	RINQ_MSG_NOT_OPEN,			/* the connection or the channel is not open */
	RINQ_MSG_BAD_CHANNEL		/* channel number outside the negotiated range */
} RinqMsgStatus;

/*
 * Properties and headers.  A text or binary field is absent when its data
 * pointer is NULL; an empty one has a non-NULL pointer and length 0.
 *
 * Nothing is owned here.  After decoding, all pointers point into the buffer
 * that was decoded; for encoding they need to be valid during the call.
 */
typedef struct RinqMessage
{
	/* AMQP properties */
	RinqBytes	message_id;
	RinqBytes	correlation_id;
	RinqBytes	reply_to;
	RinqBytes	expiration;
	RinqBytes	type;
	uint8_t		priority;		/* valid if has_priority */
	bool		has_priority;
	bool		persistent;		/* delivery mode 2 */

	/* headers, with their names and AMQP field types */
	bool		has_deadline;
	int64_t		deadline;		/* "dl", l: ms since the Unix epoch */
	RinqBytes	ns;				/* "n", S */
	RinqBytes	command;		/* "c", S: requests and responses */
	RinqBytes	constraint;		/* "c", x: multicast notifications */
	RinqBytes	target;			/* "t", S: target session, or failure type */
	RinqBytes	failure_message;	/* "m", S */
	RinqBytes	span_context;	/* "sc", x */
	RinqBytes	traceparent;	/* "traceparent", S: of W3C trace context */
	RinqBytes	tracestate;		/* "tracestate", S: likewise */

	/*
	 * Set by decoding only: the header is there, but with an AMQP type other
	 * than the ones above.  The field itself is absent then.
	 */
	bool		bad_ns;
	bool		bad_command;	/* "c" is neither text nor bytes */
	bool		bad_target;
	bool		bad_failure_message;
	bool		bad_span_context;
	bool		bad_deadline;
} RinqMessage;

/*
 * Read a property list: the bytes of a content header frame that follow the
 * 64-bit body size, that is from the property flags on.  Returns false when
 * they are not a well-formed property list; *out is then all absent.  Unknown
 * properties and headers are skipped whatever their type, without recursion.
 * Of a header that occurs twice, the last one counts.
 */
extern bool rinq_message_decode(const char *data, size_t len, RinqMessage *out);

/*
 * Check whether the message can be encoded for a connection that negotiated
 * frame_max, and store the number of bytes it will take into *size.
 */
extern RinqMsgStatus rinq_message_check(const RinqMessage *msg,
										size_t frame_max, size_t *size);

/*
 * Write the property list of a message that passed the check; buf has room
 * for the number of bytes that the check reported.  Returns the bytes written,
 * or 0 if the codec refuses (which the check precludes).
 */
extern size_t rinq_message_encode(const RinqMessage *msg, char *buf, size_t size);

/* Explain a status in short English, for error messages. */
extern const char *rinq_msg_status_text(RinqMsgStatus status);

#endif							/* RINQ_AMQP_MESSAGE_H */
