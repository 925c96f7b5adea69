/*-------------------------------------------------------------------------
 *
 * publisher.h
 *	  Publishing, so that a message which the broker refuses fails alone.
 *
 * Private to the peer.  A message that was published belongs to the publisher
 * until the broker has confirmed it; what becomes of it is told to the file
 * that published it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PUBLISHER_H
#define RINQ_PUBLISHER_H

#include "postgres.h"

#include "amqp/connection.h"
#include "amqp/message.h"
#include "base/ident.h"
#include "peer/command/delivery.h"
#include "peer/topology/namespaces.h"

struct RinqInbound;

typedef enum RinqPublishKind
{
	RINQ_PUBLISH_NOTHING,		/* no process is to be told any more */
	RINQ_PUBLISH_CALL,			/* a request to a namespace (invoker.c) */
	RINQ_PUBLISH_OPERATION,		/* a request to the owner of a session
								 * (invoker.c) */
	RINQ_PUBLISH_RESPONSE,		/* delivery.c */
	RINQ_PUBLISH_NOTIFICATION,	/* sender.c */
	RINQ_PUBLISH_EXECUTE		/* what a transaction has committed (sender.c) */
} RinqPublishKind;

/* what a message is to the file that publishes it */
typedef struct RinqPublication
{
	RinqPublishKind kind;
	uint32		index;			/* call, operation: the slot, and its serial */
	uint32		serial;
	RinqMessageId id;			/* call, operation */
	RinqNamespace *ns;			/* call */
	bool		uncorrelated;	/* call: a handler gets the response */
	struct RinqInbound *request;	/* response: the request, which it keeps */
	uint64		tag;			/* execute: the sender's number of it */
	bool		durable;		/* execute: it must be sent at least once */
} RinqPublication;

/* a call that was returned, as it was sent; freed by one of the two below */
typedef struct RinqReturnedCall RinqReturnedCall;

extern void rinq_publisher_init(void);
extern void rinq_publisher_opened(void);
extern void rinq_publisher_connection_lost(void);
extern int64 rinq_publisher_step(void);
extern bool rinq_publisher_busy(void);
extern void rinq_publisher_confirmed(uint16 channel, uint64 tag, bool multiple, bool nack);
extern void rinq_publisher_returned(const RinqReturn *ret);
extern bool rinq_publisher_channel_closed(const RinqAmqpChannelClosed *info);

extern RinqMsgStatus rinq_publish(const RinqPublication * what, const char *exchange,
								  RinqBytes routing_key, bool mandatory,
								  const RinqMessage *msg, RinqBytes body);
extern bool rinq_publish_waits_for_confirm(Size body_len);
extern const char *rinq_publish_problem(RinqMsgStatus status);
extern void rinq_publish_again(RinqReturnedCall * call);
extern void rinq_publish_forget(RinqReturnedCall * call);

/* told by the publisher; invoker.c */
extern void rinq_invoker_confirmed(const RinqPublication * what);
extern void rinq_invoker_refused(const RinqPublication * what, const char *text);
extern void rinq_invoker_unroutable(const RinqPublication * what, const char *text);
extern bool rinq_invoker_wants(const RinqPublication * what);
extern void rinq_invoker_call_returned(const RinqPublication * what, RinqReturnedCall * call);

/* delivery.c */
extern void rinq_inbound_response_taken(struct RinqInbound *request);
extern void rinq_inbound_response_refused(struct RinqInbound *request, const char *text);

/* sender.c */
extern void rinq_sender_refused(uint64 tag, const char *text);
extern void rinq_sender_dropped(const char *text);

#endif							/* RINQ_PUBLISHER_H */
