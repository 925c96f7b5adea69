/*-------------------------------------------------------------------------
 *
 * returned.c
 *	  Requests that the broker has no queue for.
 *
 * They are mandatory, so that the broker returns them before it confirms them.
 * A call has its queue declared and bound, and is sent again, once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/sending/publisher_internal.h"

/* Find a message on its way; they are returned in the order of sending. */
static RinqUnconfirmed *
find_returned(RinqPublishChannel *ch, const RinqMessageId *id)
{
	uint64		start = Max(ch->return_tag, ch->oldest_tag);
	uint64		tag;

	for (tag = start; tag < ch->next_tag; tag++)
	{
		RinqUnconfirmed *message = rinq_unconfirmed_at(ch, tag);

		if (message->done || (message->what.kind != RINQ_PUBLISH_CALL &&
							  message->what.kind != RINQ_PUBLISH_OPERATION) ||
			!rinq_message_id_equal(&message->what.id, id))
			continue;
		ch->return_tag = tag + 1;
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
	RinqPublishChannel *ch = rinq_publish_channel_find(ret->channel);
	RinqMessageId id;
	RinqUnconfirmed *message;
	RinqReturnedCall *call;

	if (ch == NULL || ret->malformed_headers ||
		!rinq_message_id_parse(ret->message.message_id.data, ret->message.message_id.len, &id))
		return;
	message = find_returned(ch, &id);
	if (message == NULL)
		return;
	if (message->what.kind == RINQ_PUBLISH_OPERATION || message->second)
	{
		message->what.owner->unroutable(&message->what,
										"the broker has no queue for the request, although it was declared and bound again");
		message->what.kind = RINQ_PUBLISH_NOTHING;
		return;
	}
	call = MemoryContextAlloc(rinq_publish_context, sizeof(RinqReturnedCall));
	call->message = *message;
	ch->bytes -= message->frames.len;
	message->frames = rinq_bytes(NULL, 0);
	message->what.kind = RINQ_PUBLISH_NOTHING;
	Assert(call->message.what.kind == RINQ_PUBLISH_CALL);
	call->message.what.owner->returned(&call->message.what, call);
}

/*
 * Send a returned call again, now that its queue was declared and bound again.
 */
void
rinq_publish_again(RinqReturnedCall * call)
{
	RinqPublishChannel *ch = rinq_publish_channel_for(call->message.what.kind);

	call->message.second = true;
	rinq_again_add(ch, &call->message);
	pfree(call);
	rinq_again_send(ch);
}

/*
 * Give a returned call up.
 */
void
rinq_publish_forget(RinqReturnedCall * call)
{
	rinq_unconfirmed_free_frames(&call->message);
	pfree(call);
}
