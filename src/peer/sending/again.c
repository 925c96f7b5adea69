/*-------------------------------------------------------------------------
 *
 * again.c
 *	  Messages that are sent again, exactly as they were sent.
 *
 * They are sent before anything else that comes to their channel, since others
 * may have come after them the first time, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/process.h"
#include "peer/sending/publisher_internal.h"

/*
 * Take a message out of those to be sent again, and free it.
 */
void
rinq_again_free(RinqAgain *again)
{
	dlist_delete(&again->node);
	rinq_unconfirmed_free_frames(&again->message);
	pfree(again);
}

/* Tell whether a message is still of use. */
static bool
is_wanted(const RinqPublication * what)
{
	return what->kind == RINQ_PUBLISH_NOTHING || what->owner->wanted == NULL ||
		what->owner->wanted(what);
}

/*
 * Send what is to be sent again, as far as that is possible now.
 */
void
rinq_again_send(RinqPublishChannel *ch)
{
	while (!dlist_is_empty(&ch->again))
	{
		RinqAgain  *again = dlist_container(RinqAgain, node, dlist_head_node(&ch->again));
		RinqUnconfirmed *message = &again->message;

		if (!is_wanted(&message->what))
		{
			rinq_again_free(again);
			continue;
		}
		if (!rinq_amqp_channel_usable(rinq_peer.conn, ch->number) ||
			!rinq_unconfirmed_room(ch, message->body_len) ||
			(ch->one_by_one && !rinq_unconfirmed_none(ch)) ||
			rinq_basic_publish_again(rinq_peer.conn, ch->number, message->frames) != RINQ_MSG_OK)
			return;
		rinq_unconfirmed_add(ch, message);
		message->frames = rinq_bytes(NULL, 0);	/* kept there now */
		rinq_again_free(again);
	}
	ch->one_by_one = false;
}

/*
 * Have a message sent again, after those that are to be sent again already; its
 * frames are the list's from now on.
 */
void
rinq_again_add(RinqPublishChannel *ch, const RinqUnconfirmed *message)
{
	RinqAgain  *again = MemoryContextAlloc(rinq_publish_context, sizeof(RinqAgain));

	Assert(message->frames.data != NULL);
	again->message = *message;
	dlist_push_tail(&ch->again, &again->node);
}

/*
 * Move what was on its way to the front of what is to be sent again.  Returns
 * how many messages that are.
 */
int
rinq_again_take_back(RinqPublishChannel *ch)
{
	dlist_head	waiting;
	int			count = 0;
	uint64		tag;

	dlist_init(&waiting);
	while (!dlist_is_empty(&ch->again))
		dlist_push_tail(&waiting, dlist_pop_head_node(&ch->again));
	for (tag = ch->oldest_tag; tag < ch->next_tag; tag++)
	{
		RinqUnconfirmed *message = rinq_unconfirmed_at(ch, tag);

		if (!message->done && message->frames.data != NULL)
		{
			rinq_again_add(ch, message);
			count++;
		}
		message->done = true;
		message->frames = rinq_bytes(NULL, 0);
	}
	while (!dlist_is_empty(&waiting))
		dlist_push_tail(&ch->again, dlist_pop_head_node(&waiting));
	rinq_unconfirmed_clear(ch);
	return count;
}
