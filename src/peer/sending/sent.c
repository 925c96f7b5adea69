/*-------------------------------------------------------------------------
 *
 * sent.c
 *	  Durable messages that were sent, until their rows are removed.
 *
 * Of each, the id and the place in the outbox are remembered: until the broker
 * has confirmed the message and the outbox worker has removed the row, or while
 * another attempt is due.  The payload is not kept; what has to be sent again is
 * read again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "base/hash_table.h"
#include "guc.h"
#include "peer/process.h"
#include "peer/sending/outbox_link.h"
#include "peer/sending/sent.h"
#include "peer/sending/stall.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_CONFIRMED 100000	/* that wait for the outbox worker, before
								 * sending pauses */
#define MAX_BATCH 8192			/* items in one chunk for the outbox worker */
#define LAST_RETRY_DELAY 60000	/* ms */
#define POSTPONE 100			/* ms until a row is looked at again that
								 * another transaction is changing */

typedef enum SentState
{
	SENT_PUBLISHED,				/* not confirmed */
	SENT_CONFIRMED,				/* the message's row is to be removed */
	SENT_REMOVING,				/* the outbox worker was told so */
	SENT_RETRY,					/* to be sent again, at "retry_at" */
	SENT_FETCHING				/* the outbox worker reads it again, or sets
								 * it aside */
} SentState;

/* a durable message; its place and id are in "item" */
struct RinqSent
{
	RinqMessageId id;			/* hash key */
	RinqOutboxItem item;
	SentState	state;
	int			attempts;		/* that have failed */
	int			waits;			/* times that it could not be sent, which are
								 * no attempts */
	int64		retry_at;
	bool		returned;		/* by the broker, which is about to confirm it */
	bool		hopeless;		/* another attempt would fail, too */
	bool		expected;		/* the outbox worker has announced it, before
								 * it was sent for the first time */
	bool		has_another;	/* a second row of it has come meanwhile: it
								 * is sent again when this one is removed */
	RinqOutboxItem another;
	char	   *error;			/* of the last attempt, NULL for none */
	dlist_node	node;			/* in one of the lists, but for those
								 * published or fetched */
};

static HTAB *messages;
static dlist_head confirmed = DLIST_STATIC_INIT(confirmed);
static int	num_confirmed;
static dlist_head removing = DLIST_STATIC_INIT(removing);
static dlist_head retrying = DLIST_STATIC_INIT(retrying);
static int	num_retrying;
static int	num_fetching;

static int64 remove_after;		/* not before, since another transaction is
								 * changing rows */

void
rinq_sent_init(void)
{
	messages = rinq_make_hash_table("rinq durable messages", 1024, sizeof(RinqMessageId), sizeof(RinqSent), TopMemoryContext);
}

RinqSent *
rinq_sent_find(const RinqMessageId *id)
{
	RinqMessageId key;

	rinq_message_id_key(id, &key);
	return hash_search(messages, &key, HASH_FIND, NULL);
}

static void
forget_sent(RinqSent * message)
{
	if (message->error != NULL)
		pfree(message->error);
	hash_search(messages, &message->id, HASH_REMOVE, NULL);
}

static void
set_confirmed(RinqSent * message)
{
	message->state = SENT_CONFIRMED;
	dlist_push_tail(&confirmed, &message->node);
	num_confirmed++;
}

static void
set_retry(RinqSent * message, int64 at)
{
	message->state = SENT_RETRY;
	message->retry_at = at;
	dlist_push_tail(&retrying, &message->node);
	num_retrying++;
}

/* take it out of the list that it is in, for another state */
static void
leave_state(RinqSent * message)
{
	switch (message->state)
	{
		case SENT_CONFIRMED:
			dlist_delete(&message->node);
			num_confirmed--;
			break;
		case SENT_REMOVING:
			dlist_delete(&message->node);
			break;
		case SENT_RETRY:
			dlist_delete(&message->node);
			num_retrying--;
			break;
		case SENT_FETCHING:
			num_fetching--;
			break;
		default:
			break;
	}
	Assert(num_confirmed >= 0 && num_retrying >= 0 && num_fetching >= 0);
}

/* ---------------- sending ---------------- */

/* Forget how earlier attempts at a message went. */
static void
begin_anew(RinqSent * message)
{
	message->attempts = 0;
	message->waits = 0;
	message->hopeless = false;
	message->expected = false;
	message->has_another = false;
	message->error = NULL;
}

/* Tell whether two items are the same row. */
static bool
is_same_row(const RinqOutboxItem *a, const RinqOutboxItem *b)
{
	return a->table == b->table && ItemPointerEquals(unconstify(ItemPointerData *, &a->tid), unconstify(ItemPointerData *, &b->tid));
}

/*
 * Note that a durable message is about to be published.  NULL when it is not
 * to be, since it is on its way already; that it has another row, since it was
 * asked again, is remembered.
 */
RinqSent *
rinq_sent_begin(const RinqOutbound *outbound)
{
	RinqMessageId key;
	bool		found;
	RinqSent   *message;

	rinq_message_id_key(&outbound->item.id, &key);
	message = hash_search(messages, &key, HASH_ENTER, &found);
	if (found && message->state != SENT_FETCHING)
	{
		if (!is_same_row(&message->item, &outbound->item))
		{
			message->has_another = true;
			message->another = outbound->item;
		}
		return NULL;
	}
	if (found)
		leave_state(message);
	else
		begin_anew(message);
	message->item = outbound->item;
	message->returned = false;
	message->state = SENT_PUBLISHED;
	return message;
}

/*
 * Undo rinq_sent_begin for a message that was not published, since it has to
 * wait: one that was fetched, or announced, is still expected, others come as if
 * for the first time.
 */
void
rinq_sent_undo(RinqSent * message)
{
	Assert(message->state == SENT_PUBLISHED);
	if (message->attempts + message->waits == 0 && !message->expected && !message->has_another)
	{
		forget_sent(message);
		return;
	}
	message->state = SENT_FETCHING;
	num_fetching++;
}

/*
 * Have the row of a confirmed message removed.
 */
void
rinq_sent_confirmed(RinqSent * message)
{
	Assert(message->state == SENT_PUBLISHED);
	set_confirmed(message);
}

/*
 * Have a message sent a little later that cannot be sent yet, which is no
 * attempt.
 */
void
rinq_sent_postponed(RinqSent * message)
{
	Assert(message->state == SENT_PUBLISHED);
	set_retry(message, rinq_peer.now + POSTPONE);
}

void
rinq_sent_returned(RinqSent * message)
{
	message->returned = true;
}

static void
note_sent_error(const char *error)
{
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.outbox.last_error, error, RINQ_LAST_ERROR_LEN);
	SpinLockRelease(&rinq_peer.db->mutex);
}

/*
 * Count a message that is given up: one that is not durable has but one attempt.
 */
void
rinq_sent_dropped(const char *error)
{
	rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
	note_sent_error(error);
}

/* Have a message tried again later and later, and remember why. */
static void
retry_later(RinqSent * message, const char *error)
{
	int			delay = rinq_backoff_after(message->attempts + message->waits, rinq_retry_delay,
										   Max(LAST_RETRY_DELAY, rinq_retry_delay));

	Assert(message->state == SENT_PUBLISHED);
	if (message->error != NULL)
		pfree(message->error);
	message->error = MemoryContextStrdup(TopMemoryContext, error);
	message->returned = false;
	set_retry(message, rinq_peer.now + delay);
	note_sent_error(error);
}

/*
 * Have a message tried again that was not taken.
 */
void
rinq_sent_failed(RinqSent * message, const char *error)
{
	message->attempts++;
	message->waits = 0;			/* it does not wait for a queue any more */
	retry_later(message, error);
}

/*
 * Have a message tried again that was not sent, since the queue of its namespace
 * cannot be had now: for as long as it takes.
 */
void
rinq_sent_waits(RinqSent * message, const char *error)
{
	message->waits++;
	retry_later(message, error);
}

/*
 * Have messages that wait for queues tried again now, since one is there.
 */
void
rinq_sent_queue_is_there(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &retrying)
	{
		RinqSent   *message = dlist_container(RinqSent, node, iter.cur);

		if (message->waits > 0)
			message->retry_at = rinq_peer.now;
	}
}

/*
 * Have a message tried again that the broker did not take, or set aside at once
 * when the broker never will take it ("for_good").
 */
void
rinq_sent_refused(RinqSent * message, const char *error, bool for_good)
{
	if (message->state != SENT_PUBLISHED)
		return;
	rinq_sent_failed(message, error);
	if (!for_good)
		return;
	message->hopeless = true;
	message->retry_at = rinq_peer.now;
}

/*
 * Settle a message that the broker has confirmed, or refused.
 */
void
rinq_sent_reported(const RinqMessageId *id, bool nack)
{
	RinqSent   *message = rinq_sent_find(id);

	if (message == NULL || message->state != SENT_PUBLISHED)
		return;
	if (nack)
		rinq_sent_failed(message, "the broker refused the message");
	else if (message->returned)
		rinq_sent_failed(message, "the broker has no queue for the message");
	else
		set_confirmed(message);
}

/* ---------------- what the outbox worker says ---------------- */

/*
 * Take notice of messages that have waited, before they are sent: a scan that
 * finds them from now on is told that they are known.
 */
void
rinq_sent_expect(RinqChunk *chunk)
{
	Size		at = 0;

	while (at < chunk->size)
	{
		RinqOutbound *outbound = rinq_chunk_message(chunk, at);
		RinqSent   *message = rinq_sent_begin(outbound);

		if (message != NULL)
		{
			message->expected = true;
			message->state = SENT_FETCHING;
			num_fetching++;
		}
		at += outbound->length;
	}
}

/*
 * Mark messages that a scan has found, and that are known here already.
 */
void
rinq_sent_sift(RinqChunk *chunk)
{
	Size		at = 0;

	while (at < chunk->size)
	{
		RinqOutbound *message = rinq_chunk_message(chunk, at);

		message->known = rinq_sent_find(&message->item.id) != NULL;
		at += message->length;
	}
}

/* Go on without a row that is gone: with another one of the message, if there is one. */
static void
end_row(RinqSent * message)
{
	if (!message->has_another)
	{
		forget_sent(message);
		return;
	}
	if (message->error != NULL)
		pfree(message->error);
	begin_anew(message);
	message->item = message->another;
	set_retry(message, rinq_peer.now);
}

/*
 * Forget rows that are not in the outbox any more; or keep those that could
 * not be removed, or set aside, since another transaction was changing them.
 */
void
rinq_sent_removed(const RinqOutboxItem *items, uint32 count)
{
	uint32		i;

	for (i = 0; i < count; i++)
	{
		RinqSent   *message = rinq_sent_find(&items[i].id);

		if (message == NULL ||
			(message->state != SENT_REMOVING && message->state != SENT_FETCHING))
			continue;
		leave_state(message);
		if (!items[i].postponed)
		{
			end_row(message);
			rinq_outbox_moved();
		}
		else if (message->state == SENT_REMOVING)
		{
			remove_after = rinq_peer.now + POSTPONE;
			set_confirmed(message);
		}
		else
			set_retry(message, rinq_peer.now + POSTPONE);
	}
}

/*
 * Tell whether a message is known here, whose row the outbox worker has seen.
 */
bool
rinq_sent_see(const RinqOutboxItem *item)
{
	RinqSent   *message = rinq_sent_find(&item->id);

	if (message == NULL)
		return false;
	message->item = *item;
	return true;
}

/*
 * Tell whether so much is to be removed that the outbox worker has to catch up
 * first.
 */
bool
rinq_sent_behind(void)
{
	return num_confirmed > MAX_CONFIRMED;
}

/*
 * Tell whether any messages are known here.
 */
bool
rinq_sent_any(void)
{
	return hash_get_num_entries(messages) > 0;
}

/*
 * Tell whether the outbox worker is to do something with messages that it was
 * told, or to be told soon.
 */
bool
rinq_sent_waits_for_worker(void)
{
	return num_confirmed > 0 || num_fetching > 0 || !dlist_is_empty(&removing);
}

/*
 * Count the messages that wait for another attempt, and give the most attempts
 * of any.
 */
void
rinq_sent_retrying(int64 *count, int *attempts)
{
	dlist_iter	iter;
	int			most = 0;

	dlist_foreach(iter, &retrying)
	{
		most = Max(most, dlist_container(RinqSent, node, iter.cur)->attempts);
	}
	*count = num_retrying;
	*attempts = most;
}

/*
 * Have the next outbox worker told what the one that has ended had been told,
 * and had not done.
 */
void
rinq_sent_worker_lost(void)
{
	HASH_SEQ_STATUS seq;
	RinqSent   *message;

	hash_seq_init(&seq, messages);
	while ((message = hash_seq_search(&seq)) != NULL)
	{
		if (message->state != SENT_REMOVING && message->state != SENT_FETCHING)
			continue;
		leave_state(message);
		if (message->state == SENT_REMOVING)
			set_confirmed(message);
		else
			set_retry(message, rinq_peer.now);
	}
}

/*
 * Forget what the lost connection has not confirmed, which is found again by a
 * scan.  Queues that could not be had may be there for the next one.
 */
void
rinq_sent_connection_lost(void)
{
	HASH_SEQ_STATUS seq;
	RinqSent   *message;

	hash_seq_init(&seq, messages);
	while ((message = hash_seq_search(&seq)) != NULL)
	{
		if (message->state == SENT_PUBLISHED)
			forget_sent(message);
	}
	rinq_sent_queue_is_there();
}

/* ---------------- telling the outbox worker ---------------- */

/* Have the rows of confirmed messages removed, one batch at a time. */
static int64
remove_confirmed(void)
{
	static RinqOutboxItem items[MAX_BATCH];
	int			count = 0;
	dlist_iter	iter;

	if (!dlist_is_empty(&removing) || num_confirmed == 0)
		return 0;
	if (rinq_peer.now < remove_after)
		return remove_after;
	if (!rinq_outbox_link_up())
		return rinq_peer.now + RINQ_SENDER_RETRY;
	dlist_foreach(iter, &confirmed)
	{
		RinqSent   *message = dlist_container(RinqSent, node, iter.cur);

		items[count] = message->item;
		items[count].id = message->id;
		if (++count == MAX_BATCH)
			break;
	}
	if (!rinq_outbox_tell(RINQ_CHUNK_REMOVE, items, count * sizeof(RinqOutboxItem), (uint32) count))
		return rinq_peer.now + RINQ_SENDER_RETRY;
	while (count-- > 0)
	{
		RinqSent   *message = dlist_container(RinqSent, node, dlist_pop_head_node(&confirmed));

		num_confirmed--;
		message->state = SENT_REMOVING;
		dlist_push_tail(&removing, &message->node);
	}
	return 0;
}

static bool
set_sent_aside(RinqSent * message)
{
	RinqOutboxFailed failed;

	memset(&failed, 0, sizeof(failed));
	failed.item = message->item;
	failed.item.id = message->id;
	failed.attempts = message->attempts;
	strlcpy(failed.error, message->error != NULL ? message->error : "", sizeof(failed.error));
	return rinq_outbox_tell(RINQ_CHUNK_SET_ASIDE, &failed, sizeof(failed), 1);
}

static void
set_fetching(RinqSent * message)
{
	leave_state(message);
	message->state = SENT_FETCHING;
	num_fetching++;
}

/* Tell whether the last attempt was made. */
static bool
is_given_up(const RinqSent * message)
{
	return message->hopeless || message->attempts >= rinq_send_attempts;
}

/*
 * Have failed messages set aside after the last attempt, and collect the
 * others that are due.  Returns when the next is due, or 0.
 */
static int64
collect_due(RinqSent * *due, int *num_due)
{
	dlist_mutable_iter iter;
	int64		next = 0;

	dlist_foreach_modify(iter, &retrying)
	{
		RinqSent   *message = dlist_container(RinqSent, node, iter.cur);

		if (message->retry_at > rinq_peer.now)
			next = rinq_clock_earlier(next, message->retry_at);
		else if (!is_given_up(message) && *num_due < MAX_BATCH)
			due[(*num_due)++] = message;
		else if (is_given_up(message) && set_sent_aside(message))
			set_fetching(message);
		else
			next = rinq_peer.now + RINQ_SENDER_RETRY;
	}
	return next;
}

/* Have messages read again that are due, or set aside. */
static int64
retry_sent(void)
{
	static RinqSent * due[MAX_BATCH];
	static RinqOutboxItem items[MAX_BATCH];
	int			count = 0;
	int64		next;
	int			i;

	if (num_retrying == 0)
		return 0;
	if (!rinq_peer.ready || !rinq_outbox_link_up())
		return rinq_peer.now + RINQ_SENDER_RETRY;
	next = collect_due(due, &count);
	if (count == 0)
		return next;
	for (i = 0; i < count; i++)
	{
		items[i] = due[i]->item;
		items[i].id = due[i]->id;
	}
	if (!rinq_outbox_tell(RINQ_CHUNK_FETCH, items, count * sizeof(RinqOutboxItem), (uint32) count))
		return rinq_peer.now + RINQ_SENDER_RETRY;
	for (i = 0; i < count; i++)
		set_fetching(due[i]);
	return next;
}

/*
 * Tell the outbox worker what is due.  Returns when to look again, or 0.
 */
int64
rinq_sent_step(void)
{
	int64		first = remove_confirmed();
	int64		second = retry_sent();

	return rinq_clock_earlier(first, second);
}
