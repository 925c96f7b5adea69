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
#include "peer/topology/namespaces.h"

typedef enum RinqPublishKind
{
	RINQ_PUBLISH_NOTHING,		/* no owner is to be told any more */
	RINQ_PUBLISH_CALL,			/* a request to a namespace */
	RINQ_PUBLISH_OPERATION,		/* a request to the owner of a session */
	RINQ_PUBLISH_RESPONSE,
	RINQ_PUBLISH_NOTIFICATION,
	RINQ_PUBLISH_EXECUTE		/* what a transaction has committed */
} RinqPublishKind;

typedef struct RinqPublication RinqPublication;

/* a call that was returned, as it was sent; freed by rinq_publish_again or _forget */
typedef struct RinqReturnedCall RinqReturnedCall;

/* the part that publishes, and is told what becomes of it; what is NULL is not */
typedef struct RinqPublishOwner
{
	/* the broker has it */
	void		(*taken) (const RinqPublication * what);

	/* the broker has not taken it; "for_good" when it never will */
	void		(*refused) (const RinqPublication * what, const char *text, bool for_good);

	/* the broker has not taken it, and does not say why; NULL: as if refused */
	void		(*nacked) (const RinqPublication * what);

	/* the connection is lost */
	void		(*forgotten) (const RinqPublication * what);

	/* is one that has to be sent again still of use?  NULL: always */
	bool		(*wanted) (const RinqPublication * what);

	/* there is no queue for a request, and it is not sent again */
	void		(*unroutable) (const RinqPublication * what, const char *text);

	/* there is no queue for a call, which is the owner's to send again */
	void		(*returned) (const RinqPublication * what, RinqReturnedCall * call);
} RinqPublishOwner;

/* what a message is to the file that publishes it */
struct RinqPublication
{
	RinqPublishKind kind;
	const RinqPublishOwner *owner;
	uint32		index;			/* call, operation: the slot, and its serial */
	uint32		serial;
	RinqMessageId id;			/* call, operation */
	RinqNamespace *ns;			/* call */
	bool		uncorrelated;	/* call: a handler gets the response */
	void	   *request;		/* response: the request, which it keeps */
	uint64		tag;			/* execute: the sender's number of it */
	bool		durable;		/* execute: it must be sent at least once */
};

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

#endif							/* RINQ_PUBLISHER_H */
