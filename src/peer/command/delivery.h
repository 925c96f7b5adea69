/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  Requests, responses and notifications that have arrived, and are on their
 *	  way to executors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_DELIVERY_H
#define RINQ_PEER_COMMAND_DELIVERY_H

#include "postgres.h"

#include "base/bytes.h"
#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "lib/ilist.h"
#include "peer/command/subscriber.h"
#include "protocol/kinds.h"

typedef enum RinqReplyMode
{
	RINQ_REPLY_NONE,
	RINQ_REPLY_CORRELATED,
	RINQ_REPLY_UNCORRELATED
} RinqReplyMode;

/* of the same role, kind and namespace (lanes.c) */
typedef struct RinqLane RinqLane;

/* of the same namespace, with the same value in their payload; or of the same session or subscription (order.c) */
typedef struct RinqTurn RinqTurn;

/* what is remembered of it until it is settled, or handled */
typedef struct RinqInbound RinqInbound;
struct RinqInbound
{
	dlist_node	node;			/* in its lane, or in a list of those that
								 * wait for something else */
	RinqWork	work;
	uint32		session;		/* that a notification is for: its number, and
								 * its serial; that a question to the mailbox
								 * is about */
	uint64		session_serial;
	RinqSubscriber *subscriber; /* of a notification: the subscription that it
								 * came for, NULL for none */
	RinqListener own;			/* of a response or notification: whom it goes
								 * to */
	char		response_type;	/* of the response that was made, if any */
	RinqLane   *lane;			/* while it waits there, or is in a slot */
	RinqTurn   *turn;			/* of one that is handled in order: that it
								 * has, or waits for */
	bool		waits_for_turn;
	uint16		channel;		/* the channel that the request came through */
	uint32		epoch;			/* of that channel */
	uint64		tag;
	bool		balanced;
	bool		from_inbox;		/* no delivery: the first one that is due in
								 * the inbox */
	bool		redelivered;
	bool		waits;			/* the request was not started yet */
	bool		settled;		/* the response was refused, and an error is
								 * sent instead */
	int64		settle_at;		/* when it goes back, while it is "delayed",
								 * or is run again; when its owner is told
								 * that it has ended, 0 is never or not known */
	int			deaths;			/* executors that have ended while they ran
								 * this response or notification */
	bool		give_up;		/* that were enough: it is set aside */
	RinqReplyMode reply;
	int64		deadline;		/* 0 is none */
	RinqFields	fields;			/* as they go to a command worker, but for
								 * handler and body; they point into "texts" */
	int			body_field;		/* which of them the body is */
	RinqBytes	body;			/* freed once it is in a slot, unless it may
								 * be put into another one */
	RinqMessageId id;			/* of a durable call */
	void		(*ended) (RinqInbound * request);	/* is told before it is
													 * freed; NULL: none is */
	char		texts[FLEXIBLE_ARRAY_MEMBER];
};

/* what else is to be done when a request is freed that has a turn */
extern void (*rinq_inbound_leaves) (RinqInbound * request);

extern void rinq_inbound_waits(RinqInbound * request, Size body_len);
extern void rinq_inbound_register(RinqInbound * request, Size body_len);
extern RinqInbound * rinq_inbound_from_inbox(const char *namespace, RinqSubscriber * subscriber);
extern bool rinq_inbound_is_kept(const RinqInbound * request);
extern void rinq_inbound_due_at(const RinqInbound * request, int64 at);
extern bool rinq_inbound_too_many(RinqWork work);
extern bool rinq_inbound_expired(const RinqInbound * request);
extern bool rinq_inbound_can_settle(const RinqInbound * request);
extern void rinq_inbound_started(RinqInbound * request, bool may_repeat);
extern void rinq_inbound_free_body(RinqInbound * request);
extern void rinq_inbound_free(RinqInbound * request);
extern void rinq_inbound_settle(RinqInbound * request);
extern void rinq_inbound_give_back(RinqInbound * request);
extern int64 rinq_inbound_settle_delayed(bool all);
extern void rinq_inbound_channel_lost(uint16 channel);

#endif							/* RINQ_PEER_COMMAND_DELIVERY_H */
