/*-------------------------------------------------------------------------
 *
 * refused.c
 *	  Messages for which the broker closes a channel.
 *
 * Which message is meant:
 *
 *	- A message over the broker's size limit is named by its words, with the
 *	  limit: it is the first one that is larger.
 *	- A message to an exchange that this peer may not write to is the first one
 *	  to the exchange that the broker names.
 *	- A message that was the only one on its way.
 *	- Otherwise it cannot be told: all are sent again, one by one.
 *
 * The broker takes messages in order, so those before the one that is meant were
 * taken.  They are not sent again, but for durable ones, which without their
 * confirm may not be safe yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/burst.h"
#include "peer/process.h"
#include "peer/sending/publisher_internal.h"

#define REPLY_CONTENT_TOO_LARGE 311
#define REPLY_PRECONDITION_FAILED 406
#define MAX_IDLE_CLOSES 3		/* of a channel with nothing on its way, in a
								 * row */

/* Tell whether the broker's words name this exchange, in quotes. */
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
static RinqAgain *
find_refused(RinqPublishChannel *ch, int count, const RinqAmqpChannelClosed *info)
{
	Size		limit = rinq_size_limit_in(info->text);
	int			i = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &ch->again)
	{
		RinqAgain  *again = dlist_container(RinqAgain, node, iter.cur);

		if (i++ == count)
			break;
		if (count == 1 || (limit != 0 ? again->message.body_len > limit :
						   names_exchange(info->text, again->message.exchange)))
			return again;
	}
	return NULL;
}

/*
 * Drop those before the one that is meant, which the broker has taken; durable
 * ones are safe only with a confirm.
 */
static void
drop_taken(RinqPublishChannel *ch, const RinqAgain *refused)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &ch->again)
	{
		RinqAgain  *again = dlist_container(RinqAgain, node, iter.cur);
		RinqPublication what = again->message.what;

		if (again == refused)
			return;
		if (what.kind == RINQ_PUBLISH_EXECUTE && what.durable)
			continue;
		rinq_again_free(again);
		rinq_unconfirmed_tell_taken(&what);
	}
}

static void
log_refused(const RinqAmqpChannelClosed *info)
{
	static RinqBurst logged;
	uint64		suppressed;

	if (!rinq_may_log(&logged, rinq_peer.now, &suppressed))
		return;
	ereport(LOG,
			(errmsg("rinq peer %s: the broker refused a message: %u %s",
					rinq_peer.id_text, info->code, info->text),
			 errdetail_internal(UINT64_FORMAT " more since the last such entry.", suppressed)));
}

/*
 * Tell whether the broker will refuse this message, too.  It is over the same
 * limit, or to an exchange that this peer may not write to at all.
 */
static bool
is_refused_likewise(const RinqUnconfirmed *message, const RinqAmqpChannelClosed *info)
{
	if (rinq_size_limit_exceeded(message->body_len))
		return true;
	return info->code == 403 && strstr(info->text, "topic") == NULL &&
		names_exchange(info->text, message->exchange);
}

/*
 * Say whether a reply code speaks of the message itself, so that the broker will
 * never take it.  All others tell of trouble of the broker, or of what an
 * administrator can mend.
 */
static bool
is_about_message(uint16 code)
{
	return code == REPLY_CONTENT_TOO_LARGE || code == REPLY_PRECONDITION_FAILED;
}

/* Tell the owner of a refused message, and those of all that are refused likewise. */
static void
refuse_message(RinqPublishChannel *ch, RinqAgain *refused, const RinqAmqpChannelClosed *info)
{
	char		text[RINQ_LAST_ERROR_LEN];
	bool		for_good = is_about_message(info->code);
	Size		limit = rinq_size_limit_in(info->text);
	dlist_mutable_iter iter;

	log_refused(info);
	snprintf(text, sizeof(text), "%s: %u %s",
			 for_good ? "the broker refused the message" : "the broker did not take the message",
			 info->code, info->text);
	if (limit != 0 && refused->message.body_len > limit)
		rinq_size_limit_learn(limit);
	dlist_foreach_modify(iter, &ch->again)
	{
		RinqAgain  *again = dlist_container(RinqAgain, node, iter.cur);
		RinqPublication what = again->message.what;

		if (again != refused && !is_refused_likewise(&again->message, info))
			continue;
		rinq_again_free(again);
		rinq_unconfirmed_tell_refused(&what, text, for_good);
	}
}

/*
 * Go on after the broker has closed a channel.  False when it is none of those
 * that publish.
 */
bool
rinq_publisher_channel_closed(const RinqAmqpChannelClosed *info)
{
	RinqPublishChannel *ch = rinq_publish_channel_find(info->channel);
	char		reason[RINQ_LAST_ERROR_LEN];
	int			count;
	RinqAgain  *refused;

	if (ch == NULL)
		return false;
	count = rinq_again_take_back(ch);
	if (count == 0)
		ch->idle_closes++;

	/* without an exchange, bindings of this peer are gone, too */
	if (info->code == 404 || info->request_failed || ch->idle_closes > MAX_IDLE_CLOSES)
	{
		snprintf(reason, sizeof(reason), "the broker closed the publishing channel: %u %s",
				 info->code, info->text);
		rinq_peer_fail(reason);
		return true;
	}
	rinq_publish_channel_open(ch);
	if (count == 0)
		return true;
	refused = find_refused(ch, count, info);
	if (refused == NULL)
	{
		log_refused(info);
		ch->one_by_one = true;
	}
	else
	{
		drop_taken(ch, refused);
		refuse_message(ch, refused, info);
	}
	rinq_again_send(ch);
	return true;
}
