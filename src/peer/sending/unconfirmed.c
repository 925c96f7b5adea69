/*-------------------------------------------------------------------------
 *
 * unconfirmed.c
 *	  Messages on their way, until the broker confirms them.
 *
 * What was published is kept as it was sent, by delivery tag, until the broker
 * has confirmed it; then its owner is told.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/process.h"
#include "peer/sending/publisher_internal.h"
#include "utils/memutils.h"

#define WINDOW 8192				/* messages on their way on one channel; a
								 * power of two */
#define MAX_KEPT_BYTES (16 * 1024 * 1024)	/* of them, but for a lone larger
											 * one */
#define CONFIRM_PATIENCE 1000	/* ms that calls and responses wait for a
								 * confirm */

RinqPublishChannel rinq_publish_channels[RINQ_PUBLISH_CHANNELS] =
{
	{
		.number = CHANNEL_PUBLISH
	},
	{
		.number = CHANNEL_CONFIRMED,.sure = true
	}
};

MemoryContext rinq_publish_context;

/*
 * Make the channels' windows, and the memory for what is kept of messages.
 */
void
rinq_unconfirmed_init(void)
{
	int			i;

	rinq_publish_context = AllocSetContextCreate(TopMemoryContext, "rinq published messages",
												 ALLOCSET_DEFAULT_SIZES);
	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
	{
		RinqPublishChannel *ch = &rinq_publish_channels[i];

		ch->window = MemoryContextAllocZero(TopMemoryContext, WINDOW * sizeof(RinqUnconfirmed));
		ch->next_tag = 1;
		ch->oldest_tag = 1;
		dlist_init(&ch->again);
	}
}

/*
 * Find a publishing channel; NULL for all others.
 */
RinqPublishChannel *
rinq_publish_channel_find(uint16 number)
{
	int			i;

	for (i = 0; i < RINQ_PUBLISH_CHANNELS; i++)
	{
		if (rinq_publish_channels[i].number == number)
			return &rinq_publish_channels[i];
	}
	return NULL;
}

/*
 * Find the channel that messages of a kind go through.
 */
RinqPublishChannel *
rinq_publish_channel_for(RinqPublishKind kind)
{
	return rinq_publish_channel_find(kind == RINQ_PUBLISH_EXECUTE ?
									 CHANNEL_CONFIRMED : CHANNEL_PUBLISH);
}

/*
 * Look at a message by its delivery tag.
 */
RinqUnconfirmed *
rinq_unconfirmed_at(RinqPublishChannel *ch, uint64 tag)
{
	Assert(tag >= ch->oldest_tag && tag < ch->next_tag);
	return &ch->window[tag & (WINDOW - 1)];
}

/*
 * Tell whether nothing is on its way.
 */
bool
rinq_unconfirmed_none(const RinqPublishChannel *ch)
{
	Assert(ch->oldest_tag <= ch->next_tag && ch->next_tag - ch->oldest_tag <= WINDOW);
	return ch->next_tag == ch->oldest_tag;
}

/*
 * Free what is kept of a message.
 */
void
rinq_unconfirmed_free_frames(RinqUnconfirmed *message)
{
	if (message->frames.data != NULL)
		pfree((char *) message->frames.data);
	message->frames = rinq_bytes(NULL, 0);
}

/* ---------------- telling owners ---------------- */

/*
 * Tell the owner of a message that the broker has taken it.
 */
void
rinq_unconfirmed_tell_taken(const RinqPublication * what)
{
	if (what->kind != RINQ_PUBLISH_NOTHING && what->owner->taken != NULL)
		what->owner->taken(what);
}

/*
 * Tell the owner of a message why the broker has not taken it; "for_good" when it
 * never will.
 */
void
rinq_unconfirmed_tell_refused(const RinqPublication * what, const char *text, bool for_good)
{
	if (what->kind != RINQ_PUBLISH_NOTHING && what->owner->refused != NULL)
		what->owner->refused(what, text, for_good);
}

/*
 * Tell the owner of a message that the broker has not taken it, and does not say
 * why.  There is no more to say to those who wait for a response, which may be
 * there all the same.
 */
static void
tell_nacked(const RinqPublication * what)
{
	if (what->kind != RINQ_PUBLISH_NOTHING && what->owner->nacked != NULL)
		what->owner->nacked(what);
	else
		rinq_unconfirmed_tell_refused(what,
									  "the broker has not taken the message, and does not say why; its queue may be full",
									  false);
}

/* ---------------- messages on their way ---------------- */

/* Forget the oldest ones as far as they are not on their way any more. */
static void
forget_done(RinqPublishChannel *ch)
{
	while (!rinq_unconfirmed_none(ch) && rinq_unconfirmed_at(ch, ch->oldest_tag)->done)
		ch->oldest_tag++;
	if (rinq_unconfirmed_none(ch))
		ch->alone = false;
}

/* Take a message off its way; its owner is the caller's to tell. */
static void
leave_way(RinqPublishChannel *ch, RinqUnconfirmed *message)
{
	Assert(!message->done && ch->bytes >= message->frames.len);
	message->done = true;
	ch->bytes -= message->frames.len;
	rinq_unconfirmed_free_frames(message);
}

/* End a message's way with the broker's confirm. */
static void
settle_unconfirmed(RinqPublishChannel *ch, RinqUnconfirmed *message, bool nack)
{
	if (message->done)
		return;
	leave_way(ch, message);
	ch->idle_closes = 0;
	if (nack)
	{
		tell_nacked(&message->what);
		return;
	}
	rinq_size_limit_taken(message->body_len);
	rinq_unconfirmed_tell_taken(&message->what);
}

/*
 * Note what the broker has confirmed: one message, or all up to it.
 */
void
rinq_publisher_confirmed(uint16 channel, uint64 tag, bool multiple, bool nack)
{
	RinqPublishChannel *ch = rinq_publish_channel_find(channel);
	uint64		i;

	if (ch == NULL || tag >= ch->next_tag || tag < ch->oldest_tag)
		return;
	for (i = multiple ? ch->oldest_tag : tag; i <= tag; i++)
		settle_unconfirmed(ch, rinq_unconfirmed_at(ch, i), nack);
	forget_done(ch);
}

/* Tell whether a message's confirm was waited for long enough. */
static bool
is_overdue(RinqPublishChannel *ch, uint64 tag)
{
	return !ch->sure && rinq_unconfirmed_at(ch, tag)->sent_at <= rinq_peer.now - CONFIRM_PATIENCE;
}

/*
 * Stop waiting for confirms that do not come, where nothing depends on them but
 * what is known when the broker closes the channel.
 */
static void
lose_patience(RinqPublishChannel *ch)
{
	while (!rinq_unconfirmed_none(ch) && is_overdue(ch, ch->oldest_tag) &&
		   (ch->next_tag - ch->oldest_tag >= WINDOW || ch->bytes > MAX_KEPT_BYTES))
	{
		leave_way(ch, rinq_unconfirmed_at(ch, ch->oldest_tag));
		rinq_unconfirmed_tell_taken(&rinq_unconfirmed_at(ch, ch->oldest_tag)->what);
		forget_done(ch);
	}
}

/*
 * Tell whether only the broker's confirm says that a message of this size is
 * taken or refused.
 */
bool
rinq_publish_waits_for_confirm(Size body_len)
{
	return rinq_size_limit_doubtful(body_len);
}

/*
 * Tell whether a message of this size may be sent now, as far as those on their
 * way matter.
 */
bool
rinq_unconfirmed_room(RinqPublishChannel *ch, Size body_len)
{
	lose_patience(ch);
	if (rinq_unconfirmed_none(ch))
		return true;
	return ((!ch->alone && !rinq_size_limit_doubtful(body_len)) ||
			is_overdue(ch, ch->next_tag - 1)) &&
		ch->next_tag - ch->oldest_tag < WINDOW &&
		ch->bytes + body_len <= MAX_KEPT_BYTES;
}

/*
 * Note a message that was just sent; its frames are kept already.
 */
void
rinq_unconfirmed_add(RinqPublishChannel *ch, const RinqUnconfirmed *message)
{
	RinqUnconfirmed *slot;

	Assert(ch->next_tag - ch->oldest_tag < WINDOW && message->frames.data != NULL);
	ch->alone = rinq_size_limit_doubtful(message->body_len);
	ch->next_tag++;
	slot = rinq_unconfirmed_at(ch, ch->next_tag - 1);
	*slot = *message;
	slot->done = false;
	slot->sent_at = rinq_peer.now;
	ch->bytes += message->frames.len;
}

/*
 * Forget all that was on its way, whose frames are the list's of those to be sent again now, since
 * the channel is another one.
 */
void
rinq_unconfirmed_clear(RinqPublishChannel *ch)
{
	ch->oldest_tag = 1;
	ch->next_tag = 1;
	ch->return_tag = 0;
	ch->bytes = 0;
	ch->alone = false;
	ch->drain_until = 0;
}
