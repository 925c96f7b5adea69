/*-------------------------------------------------------------------------
 *
 * publisher.c
 *	  Publishing, so that a message which the broker refuses fails alone.
 *
 * A broker refuses a message by closing the channel that it came through, with
 * all that was sent after it.  So both publishing channels are in confirm mode,
 * and what the broker has not confirmed is kept as it was sent: when a channel
 * is closed, the message that is meant is found, its owner is told, and the
 * others are sent again on the channel, which is opened again.
 *
 * Before the broker's size limit is known, a message larger than any that the
 * broker has taken travels alone, so that nothing else is in doubt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/process.h"
#include "peer/sending/publisher_internal.h"

#define DRAIN_PATIENCE 1200		/* ms that others wait for one that has to
								 * travel alone */
#define RETRY_INTERVAL 10		/* ms between looks for room in the connection */

void
rinq_publisher_init(void)
{
	rinq_unconfirmed_init();
}

/* Keep a message as it was sent. */
static RinqBytes
copy_frames(RinqBytes frames)
{
	char	   *copy = MemoryContextAllocHuge(rinq_publish_context, frames.len);

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
	RinqPublishChannel *ch = rinq_publish_channel_for(what->kind);
	RinqUnconfirmed message;
	RinqMsgStatus status;

	Assert(what->kind != RINQ_PUBLISH_NOTHING && what->owner != NULL);
	if (rinq_size_limit_exceeded(body.len))
		return RINQ_MSG_OVER_BROKER_LIMIT;
	if (!dlist_is_empty(&ch->again))
		return RINQ_MSG_BACKLOG;
	if (!rinq_size_limit_doubtful(body.len) && ch->drain_until > rinq_peer.now)
		return RINQ_MSG_BACKLOG;
	if (!rinq_unconfirmed_room(ch, body.len))
	{
		/* this message would wait for ever while others keep coming */
		if (rinq_size_limit_doubtful(body.len) && ch->drain_until == 0)
			ch->drain_until = rinq_peer.now + DRAIN_PATIENCE;
		return RINQ_MSG_BACKLOG;
	}
	status = rinq_basic_publish(rinq_peer.conn, ch->number, rinq_bytes_str(exchange),
								routing_key, mandatory, msg, body.len > 0 ? body.data : "",
								body.len);
	if (status != RINQ_MSG_OK)
		return status;
	memset(&message, 0, sizeof(message));
	message.what = *what;
	message.body_len = body.len;
	strlcpy(message.exchange, exchange, sizeof(message.exchange));
	message.frames = copy_frames(rinq_conn_last_message(rinq_peer.conn));
	ch->drain_until = 0;
	rinq_unconfirmed_add(ch, &message);
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
	snprintf(text, sizeof(text), "the message is larger than the broker's max size %zu",
			 rinq_size_limit());
	return text;
}

/* ---------------- life of a connection ---------------- */

/*
 * Open a publishing channel.
 */
void
rinq_publish_channel_open(const RinqPublishChannel *ch)
{
	rinq_amqp_channel_open(rinq_peer.conn, ch->number, 0);
	rinq_confirm_select(rinq_peer.conn, ch->number, 0);
}

/*
 * Open the publishing channels of a new connection.
 */
void
rinq_publisher_opened(void)
{
	int			i;

	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
		rinq_publish_channel_open(&rinq_publish_channels[i]);
}

/* Forget a message of a lost connection. */
static void
forget_unconfirmed(RinqUnconfirmed *message)
{
	if (message->what.kind != RINQ_PUBLISH_NOTHING && message->what.owner->forgotten != NULL)
		message->what.owner->forgotten(&message->what);
}

/*
 * Forget everything, since the connection is lost; so is what was learnt of its
 * broker.
 */
void
rinq_publisher_connection_lost(void)
{
	int			i;

	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
	{
		RinqPublishChannel *ch = &rinq_publish_channels[i];

		(void) rinq_again_take_back(ch);
		while (!dlist_is_empty(&ch->again))
		{
			RinqAgain  *again = dlist_container(RinqAgain, node, dlist_head_node(&ch->again));

			forget_unconfirmed(&again->message);
			rinq_again_free(again);
		}
		ch->one_by_one = false;
		ch->idle_closes = 0;
	}
	rinq_size_limit_forget();
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
	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
	{
		RinqPublishChannel *ch = &rinq_publish_channels[i];

		if (ch->drain_until != 0 && ch->drain_until <= rinq_peer.now)
			ch->drain_until = 0;
		rinq_again_send(ch);
		waits |= !dlist_is_empty(&ch->again);
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

	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
	{
		if (!dlist_is_empty(&rinq_publish_channels[i].again))
			return true;
	}
	return false;
}
