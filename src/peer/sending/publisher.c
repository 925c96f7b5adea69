/*-------------------------------------------------------------------------
 *
 * publisher.c
 *	  Publishing, so that a message which the broker refuses fails alone.
 *
 * A broker refuses a message by closing the channel that it came through, with
 * all that was sent after it.  So both publishing channels are in confirm
 * mode, and what the broker has not confirmed is kept as it was sent: when a
 * channel is closed, the message that is meant is found, its owner is told,
 * and the others are sent again on the channel, which is opened again.
 *
 * Which one is meant:
 *
 *	- A message over the broker's size limit is named by its words, with the
 *	  limit: it is the first one that is larger.  The limit is respected from
 *	  then on.  Before it is known, a message larger than any that the broker
 *	  has taken travels alone, so that nothing else is in doubt.
 *	- A message to an exchange that this peer may not write to is the first one
 *	  to the exchange that the broker names.
 *	- A message that was the only one on its way.
 *	- Otherwise it cannot be told: all are sent again, one by one.
 *
 * The broker takes messages in order, so those before the one that is meant
 * were taken.  They are not sent again, but for durable ones, which without
 * their confirm may not be safe yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "lib/ilist.h"
#include "peer/process.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sender.h"
#include "utils/memutils.h"

#define WINDOW 8192				/* messages on their way on one channel; a
								 * power of two */
#define MAX_KEPT_BYTES (16 * 1024 * 1024)	/* of them, but for a lone larger
											 * one */
#define SURE_SIZE (128 * 1024)	/* any broker takes bodies of that size */
#define CONFIRM_PATIENCE 1000	/* ms that calls and responses wait for a
								 * confirm */
#define DRAIN_PATIENCE 1200		/* ms that others wait for one that has to
								 * travel alone */
#define MAX_IDLE_CLOSES 3		/* of a channel with nothing on its way, in a
								 * row */
#define LOG_INTERVAL 10000		/* ms between log entries about refused
								 * messages */
#define RETRY_INTERVAL 10		/* ms between looks for room in the connection */

/* a message that the broker has not confirmed */
typedef struct Unconfirmed
{
	RinqPublication what;
	Size		body_len;
	char		exchange[8];
	bool		second;			/* the message was returned before */
	bool		done;			/* the message is not on its way any more */
	int64		sent_at;
	RinqBytes	frames;			/* as it was sent; absent when it must not be
								 * sent again */
} Unconfirmed;

/* one that is to be sent again */
typedef struct Again
{
	dlist_node	node;
	Unconfirmed message;
} Again;

struct RinqReturnedCall
{
	Unconfirmed message;
};

/* a publishing channel */
typedef struct Lane
{
	uint16		channel;
	bool		sure;			/* nothing is given up without a confirm */
	Unconfirmed *window;		/* by delivery tag */
	uint64		next_tag;		/* of the next publish */
	uint64		oldest_tag;		/* that is not confirmed */
	uint64		return_tag;		/* where the last returned message was found */
	Size		bytes;			/* kept of those on their way */
	bool		alone;			/* the one on its way travels alone */
	int64		drain_until;	/* one that has to travel alone waits; 0 is
								 * none */
	dlist_head	again;			/* to be sent before anything else */
	bool		one_by_one;		/* since one of those may be refused */
	int			idle_closes;
} Lane;

static Lane lanes[] =
{
	{
		.channel = CHANNEL_PUBLISH
	},
	{
		.channel = CHANNEL_CONFIRMED,.sure = true
	}
};

static MemoryContext context;	/* what is kept of messages */
static Size broker_limit;		/* largest body that the broker takes; 0 is
								 * unknown */
static Size largest_taken;		/* largest body that it has taken */

void
rinq_publisher_init(void)
{
	int			i;

	context = AllocSetContextCreate(TopMemoryContext, "rinq published messages",
									ALLOCSET_DEFAULT_SIZES);
	for (i = 0; i < (int) lengthof(lanes); i++)
	{
		lanes[i].window = MemoryContextAllocZero(TopMemoryContext, WINDOW * sizeof(Unconfirmed));
		lanes[i].next_tag = 1;
		lanes[i].oldest_tag = 1;
		dlist_init(&lanes[i].again);
	}
	largest_taken = SURE_SIZE;
}

static Lane *
lane_of_channel(uint16 channel)
{
	int			i;

	for (i = 0; i < (int) lengthof(lanes); i++)
	{
		if (lanes[i].channel == channel)
			return &lanes[i];
	}
	return NULL;
}

static Lane *
lane_of(RinqPublishKind kind)
{
	return lane_of_channel(kind == RINQ_PUBLISH_EXECUTE ? CHANNEL_CONFIRMED : CHANNEL_PUBLISH);
}

static Unconfirmed *
at_tag(Lane * lane, uint64 tag)
{
	Assert(tag >= lane->oldest_tag && tag < lane->next_tag);
	return &lane->window[tag & (WINDOW - 1)];
}

static bool
lane_is_empty(const Lane * lane)
{
	return lane->next_tag == lane->oldest_tag;
}

static void
free_frames(Unconfirmed * message)
{
	if (message->frames.data != NULL)
		pfree((char *) message->frames.data);
	message->frames = rinq_bytes(NULL, 0);
}

/* ---------------- telling owners ---------------- */

static void
tell_taken(const RinqPublication * what)
{
	switch (what->kind)
	{
		case RINQ_PUBLISH_CALL:
			rinq_invoker_confirmed(what);
			break;
		case RINQ_PUBLISH_RESPONSE:
			rinq_inbound_response_taken(what->request);
			break;
		case RINQ_PUBLISH_EXECUTE:
			rinq_sender_confirmed(what->tag, false, false);
			break;
		case RINQ_PUBLISH_NOTHING:
		case RINQ_PUBLISH_OPERATION:
		case RINQ_PUBLISH_NOTIFICATION:
			break;
	}
}

static void
tell_refused(const RinqPublication * what, const char *text)
{
	switch (what->kind)
	{
		case RINQ_PUBLISH_CALL:
		case RINQ_PUBLISH_OPERATION:
			rinq_invoker_refused(what, text);
			break;
		case RINQ_PUBLISH_RESPONSE:
			rinq_inbound_response_refused(what->request, text);
			break;
		case RINQ_PUBLISH_NOTIFICATION:
			rinq_sender_dropped(text);
			break;
		case RINQ_PUBLISH_EXECUTE:
			rinq_sender_refused(what->tag, text);
			break;
		case RINQ_PUBLISH_NOTHING:
			break;
	}
}

/*
 * Tell the owner of a message that the broker says it has not taken it, and
 * not why.  There is no more to say to those who wait for a response, which
 * may be there all the same.
 */
static void
tell_nacked(const RinqPublication * what)
{
	if (what->kind == RINQ_PUBLISH_EXECUTE)
		rinq_sender_confirmed(what->tag, false, true);
	else if (what->kind == RINQ_PUBLISH_RESPONSE)
		rinq_inbound_response_taken(what->request);
	else
		tell_refused(what, "the broker has not taken the message, and does not say why; its queue may be full");
}

/* ---------------- messages on their way ---------------- */

static void
advance_lane(Lane * lane)
{
	while (!lane_is_empty(lane) && at_tag(lane, lane->oldest_tag)->done)
		lane->oldest_tag++;
	if (lane_is_empty(lane))
		lane->alone = false;
}

/* Take a message off its way; its owner is the caller's to tell. */
static void
leave_way(Lane * lane, Unconfirmed * message)
{
	Assert(!message->done && lane->bytes >= message->frames.len);
	message->done = true;
	lane->bytes -= message->frames.len;
	free_frames(message);
}

static void
settle_unconfirmed(Lane * lane, Unconfirmed * message, bool nack)
{
	if (message->done)
		return;
	leave_way(lane, message);
	lane->idle_closes = 0;
	if (nack)
	{
		tell_nacked(&message->what);
		return;
	}
	largest_taken = Max(largest_taken, message->body_len);
	tell_taken(&message->what);
}

/*
 * Note what the broker has confirmed: one message, or all up to it.
 */
void
rinq_publisher_confirmed(uint16 channel, uint64 tag, bool multiple, bool nack)
{
	Lane	   *lane = lane_of_channel(channel);
	uint64		i;

	if (lane == NULL || tag >= lane->next_tag || tag < lane->oldest_tag)
		return;
	for (i = multiple ? lane->oldest_tag : tag; i <= tag; i++)
		settle_unconfirmed(lane, at_tag(lane, i), nack);
	advance_lane(lane);
}

/* Tell whether a message's confirm was waited for long enough. */
static bool
is_overdue(Lane * lane, uint64 tag)
{
	return !lane->sure && at_tag(lane, tag)->sent_at <= rinq_peer.now - CONFIRM_PATIENCE;
}

/*
 * Stop waiting for confirms that do not come, where nothing depends on them but
 * what is known when the broker closes the channel.
 */
static void
lose_patience(Lane * lane)
{
	while (!lane_is_empty(lane) && is_overdue(lane, lane->oldest_tag) &&
		   (lane->next_tag - lane->oldest_tag >= WINDOW || lane->bytes > MAX_KEPT_BYTES))
	{
		leave_way(lane, at_tag(lane, lane->oldest_tag));
		tell_taken(&at_tag(lane, lane->oldest_tag)->what);
		advance_lane(lane);
	}
}

/* Tell whether it is not known if the broker takes bodies of this size. */
static bool
is_doubtful(Size body_len)
{
	return broker_limit == 0 && body_len > largest_taken;
}

/*
 * Tell whether only the broker's confirm says that a message of this size is
 * taken or refused.
 */
bool
rinq_publish_waits_for_confirm(Size body_len)
{
	return is_doubtful(body_len);
}

/*
 * Tell whether a message of this size may be sent now, as far as those on
 * their way matter.
 */
static bool
lane_has_room(Lane * lane, Size body_len)
{
	lose_patience(lane);
	if (lane_is_empty(lane))
		return true;
	return ((!lane->alone && !is_doubtful(body_len)) || is_overdue(lane, lane->next_tag - 1)) &&
		lane->next_tag - lane->oldest_tag < WINDOW &&
		lane->bytes + body_len <= MAX_KEPT_BYTES;
}

/* Note a message that was just sent; its frames are kept already. */
static void
add_message(Lane * lane, const Unconfirmed * message)
{
	Unconfirmed *slot;

	lane->alone = is_doubtful(message->body_len);
	lane->next_tag++;
	slot = at_tag(lane, lane->next_tag - 1);
	*slot = *message;
	slot->done = false;
	slot->sent_at = rinq_peer.now;
	lane->bytes += message->frames.len;
}

static RinqBytes
copy_frames(RinqBytes frames)
{
	char	   *copy = MemoryContextAllocHuge(context, frames.len);

	memcpy(copy, frames.data, frames.len);
	return rinq_bytes(copy, frames.len);
}

/*
 * Publish a message.  RINQ_MSG_BACKLOG, with nothing done, when it has to wait;
 * after RINQ_MSG_OK the owner is told what becomes of it, unless the connection
 * is lost.
 */
RinqMsgStatus
rinq_publish(const RinqPublication * what, const char *exchange, RinqBytes routing_key,
			 bool mandatory, const RinqMessage *msg, RinqBytes body)
{
	Lane	   *lane = lane_of(what->kind);
	Unconfirmed message;
	RinqMsgStatus status;

	if (broker_limit != 0 && body.len > broker_limit)
		return RINQ_MSG_OVER_BROKER_LIMIT;
	if (!dlist_is_empty(&lane->again))
		return RINQ_MSG_BACKLOG;
	if (!is_doubtful(body.len) && lane->drain_until > rinq_peer.now)
		return RINQ_MSG_BACKLOG;
	if (!lane_has_room(lane, body.len))
	{
		/* this message would wait for ever while others keep coming */
		if (is_doubtful(body.len) && lane->drain_until == 0)
			lane->drain_until = rinq_peer.now + DRAIN_PATIENCE;
		return RINQ_MSG_BACKLOG;
	}
	status = rinq_basic_publish(rinq_peer.conn, lane->channel, rinq_bytes_str(exchange),
								routing_key, mandatory, msg, body.len > 0 ? body.data : "",
								body.len);
	if (status != RINQ_MSG_OK)
		return status;
	memset(&message, 0, sizeof(message));
	message.what = *what;
	message.body_len = body.len;
	strlcpy(message.exchange, exchange, sizeof(message.exchange));
	message.frames = copy_frames(rinq_conn_last_message(rinq_peer.conn));
	lane->drain_until = 0;
	add_message(lane, &message);
	return RINQ_MSG_OK;
}

/*
 * Explain why a message was not published, in a text that lives until the next
 * one is asked for.
 */
const char *
rinq_publish_problem(RinqMsgStatus status)
{
	static char text[RINQ_LAST_ERROR_LEN];

	if (status != RINQ_MSG_OVER_BROKER_LIMIT)
		return rinq_msg_status_text(status);
	snprintf(text, sizeof(text), "the message is larger than the broker's max size %zu", broker_limit);
	return text;
}

/* ---------------- sending again ---------------- */

static void
free_again(Again * again)
{
	dlist_delete(&again->node);
	free_frames(&again->message);
	pfree(again);
}

static bool
is_wanted(const RinqPublication * what)
{
	return (what->kind != RINQ_PUBLISH_CALL && what->kind != RINQ_PUBLISH_OPERATION) ||
		rinq_invoker_wants(what);
}

/* Send what is to be sent again, as far as that is possible now. */
static void
send_again(Lane * lane)
{
	while (!dlist_is_empty(&lane->again))
	{
		Again	   *again = dlist_container(Again, node, dlist_head_node(&lane->again));
		Unconfirmed *message = &again->message;

		if (!is_wanted(&message->what))
		{
			free_again(again);
			continue;
		}
		if (!rinq_amqp_channel_usable(rinq_peer.conn, lane->channel) ||
			!lane_has_room(lane, message->body_len) || (lane->one_by_one && !lane_is_empty(lane)) ||
			rinq_basic_publish_again(rinq_peer.conn, lane->channel, message->frames) != RINQ_MSG_OK)
			return;
		add_message(lane, message);
		message->frames = rinq_bytes(NULL, 0);	/* kept there now */
		free_again(again);
	}
	lane->one_by_one = false;
}

static void
add_again(Lane * lane, const Unconfirmed * message)
{
	Again	   *again = MemoryContextAlloc(context, sizeof(Again));

	Assert(message->frames.data != NULL);
	again->message = *message;
	dlist_push_tail(&lane->again, &again->node);
}

/*
 * Send a returned call again, now that its queue was declared and bound again.
 */
void
rinq_publish_again(RinqReturnedCall * call)
{
	Lane	   *lane = lane_of(call->message.what.kind);

	call->message.second = true;
	add_again(lane, &call->message);
	pfree(call);
	send_again(lane);
}

/*
 * Give a returned call up.
 */
void
rinq_publish_forget(RinqReturnedCall * call)
{
	free_frames(&call->message);
	pfree(call);
}

/* ---------------- returned messages ---------------- */

/* Find a message on its way; they are returned in the order of sending. */
static Unconfirmed *
find_returned(Lane * lane, const RinqMessageId *id)
{
	uint64		start = Max(lane->return_tag, lane->oldest_tag);
	uint64		tag;

	for (tag = start; tag < lane->next_tag; tag++)
	{
		Unconfirmed *message = at_tag(lane, tag);

		if (message->done || (message->what.kind != RINQ_PUBLISH_CALL &&
							  message->what.kind != RINQ_PUBLISH_OPERATION) ||
			!rinq_message_id_equal(&message->what.id, id))
			continue;
		lane->return_tag = tag + 1;
		return message;
	}
	return NULL;
}

/*
 * Take a call or an operation back that the broker had no queue for; it
 * confirms it next.  A call has its queue declared and bound, and is sent again
 * once.
 */
void
rinq_publisher_returned(const RinqReturn *ret)
{
	Lane	   *lane = lane_of_channel(ret->channel);
	RinqMessageId id;
	Unconfirmed *message;
	RinqReturnedCall *call;

	if (lane == NULL || ret->malformed_headers ||
		!rinq_message_id_parse(ret->message.message_id.data, ret->message.message_id.len, &id))
		return;
	message = find_returned(lane, &id);
	if (message == NULL)
		return;
	if (message->what.kind == RINQ_PUBLISH_OPERATION || message->second)
	{
		rinq_invoker_unroutable(&message->what,
								"the broker has no queue for the request, although it was declared and bound again");
		message->what.kind = RINQ_PUBLISH_NOTHING;
		return;
	}
	call = MemoryContextAlloc(context, sizeof(RinqReturnedCall));
	call->message = *message;
	lane->bytes -= message->frames.len;
	message->frames = rinq_bytes(NULL, 0);
	message->what.kind = RINQ_PUBLISH_NOTHING;
	rinq_invoker_call_returned(&call->message.what, call);
}

/* ---------------- refused messages ---------------- */

/*
 * Read a size limit out of the broker's words: "message size 2097160 is larger
 * than configured max size 1048576".  0 when they are about something else.
 */
static Size
limit_in(const char *text)
{
	const char *at = strstr(text, "message size ");
	unsigned long long limit;

	if (at != NULL)
		at = strstr(at, "max");
	if (at == NULL)
		return 0;
	at += strcspn(at, "0123456789");
	limit = strtoull(at, NULL, 10);
	return limit > 0 && limit < (unsigned long long) MaxAllocHugeSize ? (Size) limit : 0;
}

/* Do the broker's words name this exchange, in quotes? */
static bool
names_exchange(const char *text, const char *exchange)
{
	char		quoted[16];

	snprintf(quoted, sizeof(quoted), "'%s'", exchange);
	return strstr(text, quoted) != NULL;
}

/*
 * Find the message that is meant by the broker's words, among the first
 * "count" of those to be sent again; NULL if that cannot be told.
 */
static Again *
find_refused(Lane * lane, int count, const RinqAmqpChannelClosed *info)
{
	Size		limit = limit_in(info->text);
	int			i = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &lane->again)
	{
		Again	   *again = dlist_container(Again, node, iter.cur);

		if (i++ == count)
			break;
		if (count == 1 || (limit != 0 ? again->message.body_len > limit :
						   names_exchange(info->text, again->message.exchange)))
			return again;
	}
	return NULL;
}

/*
 * Move what was on its way to the front of what is to be sent again.  Returns
 * how many messages that are.
 */
static int
take_back(Lane * lane)
{
	dlist_head	waiting;
	int			count = 0;
	uint64		tag;

	dlist_init(&waiting);
	while (!dlist_is_empty(&lane->again))
		dlist_push_tail(&waiting, dlist_pop_head_node(&lane->again));
	for (tag = lane->oldest_tag; tag < lane->next_tag; tag++)
	{
		Unconfirmed *message = at_tag(lane, tag);

		if (!message->done && message->frames.data != NULL)
		{
			add_again(lane, message);
			count++;
		}
		message->done = true;
		message->frames = rinq_bytes(NULL, 0);
	}
	while (!dlist_is_empty(&waiting))
		dlist_push_tail(&lane->again, dlist_pop_head_node(&waiting));
	lane->oldest_tag = 1;
	lane->next_tag = 1;
	lane->return_tag = 0;
	lane->bytes = 0;
	lane->alone = false;
	lane->drain_until = 0;
	return count;
}

/*
 * Drop those before the one that is meant, which the broker has taken; durable
 * ones are safe only with a confirm.
 */
static void
drop_taken(Lane * lane, const Again * refused)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &lane->again)
	{
		Again	   *again = dlist_container(Again, node, iter.cur);
		RinqPublication what = again->message.what;

		if (again == refused)
			return;
		if (what.kind == RINQ_PUBLISH_EXECUTE && what.durable)
			continue;
		free_again(again);
		tell_taken(&what);
	}
}

static void
log_refused(const RinqAmqpChannelClosed *info)
{
	static int64 last_logged = 0;
	static uint64 suppressed = 0;

	if (last_logged != 0 && rinq_peer.now - last_logged < LOG_INTERVAL)
	{
		suppressed++;
		return;
	}
	ereport(LOG,
			(errmsg("rinq peer %s: the broker refused a message: %u %s",
					rinq_peer.id_text, info->code, info->text),
			 errdetail_internal(UINT64_FORMAT " more since the last such entry.", suppressed)));
	last_logged = rinq_peer.now;
	suppressed = 0;
}

/*
 * Tell whether the broker will refuse this message, too.  It is over the same
 * limit, or to an exchange that this peer may not write to at all.
 */
static bool
is_refused_likewise(const Unconfirmed * message, const RinqAmqpChannelClosed *info)
{
	if (broker_limit != 0 && message->body_len > broker_limit)
		return true;
	return info->code == 403 && strstr(info->text, "topic") == NULL &&
		names_exchange(info->text, message->exchange);
}

/* Tell the owner of a refused message, and those of all that are refused likewise. */
static void
refuse_message(Lane * lane, Again * refused, const RinqAmqpChannelClosed *info)
{
	char		text[RINQ_LAST_ERROR_LEN];
	Size		limit = limit_in(info->text);
	dlist_mutable_iter iter;

	log_refused(info);
	snprintf(text, sizeof(text), "the broker refused the message: %u %s", info->code, info->text);
	if (limit != 0 && refused->message.body_len > limit)
		broker_limit = limit;
	dlist_foreach_modify(iter, &lane->again)
	{
		Again	   *again = dlist_container(Again, node, iter.cur);
		RinqPublication what = again->message.what;

		if (again != refused && !is_refused_likewise(&again->message, info))
			continue;
		free_again(again);
		tell_refused(&what, text);
	}
}

static void
open_channel(uint16 channel)
{
	rinq_amqp_channel_open(rinq_peer.conn, channel, 0);
	rinq_confirm_select(rinq_peer.conn, channel, 0);
}

/*
 * Go on after the broker has closed a channel.  False when it is none of those
 * that publish.
 */
bool
rinq_publisher_channel_closed(const RinqAmqpChannelClosed *info)
{
	Lane	   *lane = lane_of_channel(info->channel);
	char		reason[RINQ_LAST_ERROR_LEN];
	int			count;
	Again	   *refused;

	if (lane == NULL)
		return false;
	count = take_back(lane);
	if (count == 0)
		lane->idle_closes++;

	/* without an exchange, bindings of this peer are gone, too */
	if (info->code == 404 || info->request_failed || lane->idle_closes > MAX_IDLE_CLOSES)
	{
		snprintf(reason, sizeof(reason), "the broker closed the publishing channel: %u %s",
				 info->code, info->text);
		rinq_peer_fail(reason);
		return true;
	}
	open_channel(lane->channel);
	if (count == 0)
		return true;
	refused = find_refused(lane, count, info);
	if (refused == NULL)
	{
		log_refused(info);
		lane->one_by_one = true;
	}
	else
	{
		drop_taken(lane, refused);
		refuse_message(lane, refused, info);
	}
	send_again(lane);
	return true;
}

/* ---------------- life of a connection ---------------- */

/*
 * Open the publishing channels of a new connection.
 */
void
rinq_publisher_opened(void)
{
	int			i;

	for (i = 0; i < (int) lengthof(lanes); i++)
		open_channel(lanes[i].channel);
}

/* Forget a message of a lost connection; only of responses is anything kept. */
static void
forget_unconfirmed(Unconfirmed * message)
{
	if (message->what.kind == RINQ_PUBLISH_RESPONSE)
		rinq_inbound_response_taken(message->what.request);
}

/*
 * Forget everything, since the connection is lost; so is what was learnt of its
 * broker.
 */
void
rinq_publisher_connection_lost(void)
{
	int			i;

	for (i = 0; i < (int) lengthof(lanes); i++)
	{
		Lane	   *lane = &lanes[i];

		(void) take_back(lane);
		while (!dlist_is_empty(&lane->again))
		{
			Again	   *again = dlist_container(Again, node, dlist_head_node(&lane->again));

			forget_unconfirmed(&again->message);
			free_again(again);
		}
		lane->one_by_one = false;
		lane->idle_closes = 0;
	}
	broker_limit = 0;
	largest_taken = SURE_SIZE;
}

/*
 * Send again what waits for that.  Returns when to look again, 0 for no
 * particular time.
 */
int64
rinq_publisher_step(void)
{
	bool		waits = false;
	int			i;

	if (!rinq_peer.ready)
		return 0;
	for (i = 0; i < (int) lengthof(lanes); i++)
	{
		Lane	   *lane = &lanes[i];

		if (lane->drain_until != 0 && lane->drain_until <= rinq_peer.now)
			lane->drain_until = 0;
		send_again(lane);
		waits |= !dlist_is_empty(&lane->again);
	}
	return waits ? rinq_peer.now + RETRY_INTERVAL : 0;
}

/*
 * Tell whether anything is to be sent again.
 */
bool
rinq_publisher_busy(void)
{
	int			i;

	for (i = 0; i < (int) lengthof(lanes); i++)
	{
		if (!dlist_is_empty(&lanes[i].again))
			return true;
	}
	return false;
}
