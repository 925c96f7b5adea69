/*-------------------------------------------------------------------------
 *
 * sender.c
 *	  Sending what transactions have committed.
 *
 * Messages are published in the order in which they come, on a channel in
 * confirm mode, a bounded number ahead of the broker's confirmations.  Of the
 * durable ones, the id and the place in the outbox are remembered: until the
 * broker has confirmed the message and the outbox worker has removed the row,
 * or while another attempt is due.  The payload is not kept; what has to be
 * sent again is read again.
 *
 * When the connection is lost, durable messages that were not confirmed are
 * forgotten here, and found again by a scan of the outbox.
 *
 * Which messages come next, and what a scan has to do with that, is intake.c's
 * business; that there is an outbox worker, and how it is told, outbox_link.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "clock.h"
#include "guc.h"
#include "payload.h"
#include "peer/peer.h"
#include "request.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define WINDOW 8192				/* messages published and not confirmed; a power of two */
#define MAX_CONFIRMED 100000	/* that wait for the outbox worker, before sending pauses */
#define MAX_BATCH 8192			/* items in one chunk for the outbox worker */
#define LAST_RETRY_DELAY 60000	/* ms */
#define STREAM_WINDOW 2			/* ms, in which so many messages are a stream */
#define STREAM_MESSAGES 10
#define RETRY_INTERVAL 10		/* ms between looks for room in the connection */

typedef enum MessageState
{
	MESSAGE_SENT,				/* published, not confirmed */
	MESSAGE_CONFIRMED,			/* its row is to be removed */
	MESSAGE_REMOVING,			/* the outbox worker was told so */
	MESSAGE_RETRY,				/* to be sent again, at "retry_at" */
	MESSAGE_FETCHING			/* the outbox worker reads it again */
} MessageState;

/* a durable message; its place and id are in "item" */
typedef struct Message
{
	RinqMessageId id;			/* hash key */
	RinqOutboxItem item;
	MessageState state;
	int			attempts;		/* that have failed */
	int64		retry_at;
	bool		returned;		/* by the broker, which is about to confirm it */
	char	   *error;			/* of the last attempt, NULL for none */
	dlist_node	node;			/* in one of the lists, but for "sent" ones */
} Message;

/* what was published under each delivery tag; durable ones are looked up by id */
typedef struct Published
{
	bool		durable;
	bool		confirmed;
	RinqMessageId id;
} Published;

static HTAB *messages;
static Published window[WINDOW];
static uint64 next_tag;			/* of the next publish */
static uint64 oldest_tag;		/* that is not confirmed */

static dlist_head confirmed = DLIST_STATIC_INIT(confirmed);
static int	num_confirmed;
static dlist_head removing = DLIST_STATIC_INIT(removing);
static dlist_head retrying = DLIST_STATIC_INIT(retrying);
static int	num_retrying;

/* the chunk that is being sent, and how far */
static dsa_pointer current = InvalidDsaPointer;
static Size current_at;
static bool skip_durable;		/* of it, since they are found in the outbox */

static bool remove_under_way;	/* the outbox worker was told so, and has not done it yet */

void
rinq_sender_init(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(RinqMessageId);
	ctl.entrysize = sizeof(Message);
	ctl.hcxt = TopMemoryContext;
	messages = hash_create("rinq durable messages", 1024, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	rinq_intake_init();
}

static Message *
find(const RinqMessageId *id)
{
	RinqMessageId key;

	rinq_message_id_key(id, &key);
	return hash_search(messages, &key, HASH_FIND, NULL);
}

static void
forget(Message *message)
{
	if (message->error != NULL)
		pfree(message->error);
	hash_search(messages, &message->id, HASH_REMOVE, NULL);
}

/* ---------------- attempts that fail ---------------- */

static void
note_error(const char *error)
{
	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(rinq_peer.db->status.outbox.last_error, error, RINQ_LAST_ERROR_LEN);
	SpinLockRelease(&rinq_peer.db->mutex);
}

/* a durable message was not taken: it is tried again, later and later */
static void
failed(Message *message, const char *error)
{
	int64		delay = (int64) rinq_retry_delay << Min(message->attempts, 16);

	if (message->error != NULL)
		pfree(message->error);
	message->error = MemoryContextStrdup(TopMemoryContext, error);
	message->attempts++;
	message->returned = false;
	message->state = MESSAGE_RETRY;
	message->retry_at = rinq_peer.now + Min(delay, Max(LAST_RETRY_DELAY, rinq_retry_delay));
	dlist_push_tail(&retrying, &message->node);
	num_retrying++;
	note_error(error);
}

/* one from memory has but one attempt */
static void
drop(const char *error)
{
	rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
	note_error(error);
}

static void
set_confirmed(Message *message)
{
	message->state = MESSAGE_CONFIRMED;
	dlist_push_tail(&confirmed, &message->node);
	num_confirmed++;
}

/* ---------------- publishing ---------------- */

static RinqMsgStatus
publish(const RinqOutgoing *message, RinqNamespace *ns, const RinqBytes *fields)
{
	RinqMessage msg;
	char		id[RINQ_MESSAGE_ID_SIZE];
	char		expiration[RINQ_EXPIRATION_SIZE];

	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id, rinq_message_id_format(&message->item.id, id, sizeof(id)));
	rinq_message_set_trace(&msg, fields[RINQ_SEND_TRACE]);
	msg.persistent = true;
	rinq_message_set_deadline(&msg, rinq_clock_of_wall(message->deadline), expiration);
	msg.ns = fields[RINQ_SEND_NAMESPACE];
	msg.command = fields[RINQ_SEND_COMMAND];
	msg.span_context = fields[RINQ_SEND_SPAN];
	msg.traceparent = fields[RINQ_SEND_TRACEPARENT];
	msg.tracestate = fields[RINQ_SEND_TRACESTATE];
	return rinq_basic_publish(rinq_peer.conn, CHANNEL_CONFIRMED, rinq_bytes_str("cmd.bal"),
							  rinq_bytes_str(ns->name), true, &msg,
							  fields[RINQ_SEND_PAYLOAD].len > 0 ?
							  fields[RINQ_SEND_PAYLOAD].data : "",
							  fields[RINQ_SEND_PAYLOAD].len);
}

/* the entry of a durable message that is to be sent now; NULL when it is not */
static Message *
note_message(const RinqOutgoing *outgoing)
{
	RinqMessageId key;
	bool		found;
	Message    *message;

	rinq_message_id_key(&outgoing->item.id, &key);
	message = hash_search(messages, &key, HASH_ENTER, &found);
	if (found && message->state != MESSAGE_FETCHING)
		return NULL;			/* on its way already */
	if (!found)
	{
		message->attempts = 0;
		message->error = NULL;
	}
	message->item = outgoing->item;
	message->returned = false;
	message->state = MESSAGE_SENT;
	return message;
}

/*
 * Sends a message; false, with nothing done, when it has to wait.
 */
static bool
send_message(const RinqOutgoing *outgoing)
{
	RinqBytes	fields[RINQ_SEND_FIELDS];
	RinqNamespace *ns;
	Message    *message = NULL;
	const char *problem = NULL;
	RinqMsgStatus status;

	rinq_outgoing_read(outgoing, fields);
	if (outgoing->kind != RINQ_SEND_COMMAND_REQUEST)
	{
		status = rinq_notification_publish(outgoing, fields);
		if (status == RINQ_MSG_OK)
			rinq_count(rinq_peer.db, RINQ_MESSAGES_SENT);
		else if (status != RINQ_MSG_BACKLOG)
			drop(rinq_msg_status_text(status));
		return status != RINQ_MSG_BACKLOG;
	}
	ns = rinq_topology_namespace(fields[RINQ_SEND_NAMESPACE], rinq_max_namespaces);
	if (ns == NULL)
		problem = "\"rinq.max_namespaces\" namespaces were called already";
	else if (ns->state == NAMESPACE_FAILED && ns->retry_at > rinq_peer.now)
		problem = "the broker refuses the queue of the namespace";
	else if (ns->state != NAMESPACE_DECLARED)
	{
		/* until its queue exists, the message would be returned */
		rinq_topology_declare(ns);
		return false;
	}

	if (outgoing->durable)
	{
		message = note_message(outgoing);
		if (message == NULL)
			return true;
		if (outgoing->deadline != 0 && outgoing->deadline <= rinq_wall_ms())
		{
			rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
			set_confirmed(message);
			return true;
		}
	}
	if (problem == NULL)
	{
		status = publish(outgoing, ns, fields);
		if (status == RINQ_MSG_BACKLOG)
		{
			/* a fetched one is still expected, others come as if for the first time */
			if (message != NULL && message->attempts > 0)
				message->state = MESSAGE_FETCHING;
			else if (message != NULL)
				forget(message);
			return false;
		}
		if (status == RINQ_MSG_OK)
		{
			Published  *published = &window[next_tag & (WINDOW - 1)];

			published->durable = message != NULL;
			published->confirmed = false;
			published->id = outgoing->item.id;
			next_tag++;
			rinq_count(rinq_peer.db, RINQ_MESSAGES_SENT);
			return true;
		}
		problem = rinq_msg_status_text(status);
	}
	if (message != NULL)
		failed(message, problem);
	else
		drop(problem);
	return true;
}

/* ---------------- what the outbox worker says ---------------- */

/*
 * Rows are not in the outbox any more.
 */
void
rinq_sender_removed(const RinqOutboxItem *items, uint32 count)
{
	uint32		i;

	for (i = 0; i < count; i++)
	{
		Message    *message = find(&items[i].id);

		if (message == NULL)
			continue;
		if (message->state == MESSAGE_REMOVING)
			dlist_delete(&message->node);
		else if (message->state != MESSAGE_FETCHING)
			continue;
		forget(message);
	}
	if (dlist_is_empty(&removing))
		remove_under_way = false;
}

/*
 * Is so much to be removed that the outbox worker has to catch up first?
 */
bool
rinq_sender_worker_behind(void)
{
	return num_confirmed > MAX_CONFIRMED;
}

/* ---------------- sending chunks ---------------- */

/* the next chunk becomes the current one */
static bool
take_chunk(void)
{
	current = rinq_intake_next(&skip_durable);
	current_at = 0;
	return DsaPointerIsValid(current);
}

/* sends what can be sent now; true when there is more */
static bool
send_chunks(void)
{
	while (DsaPointerIsValid(current) || take_chunk())
	{
		RinqChunk  *chunk = rinq_chunk(current);

		while (current_at < chunk->size)
		{
			RinqOutgoing *message = (RinqOutgoing *) (RINQ_CHUNK_DATA(chunk) + current_at);

			if (!(message->durable && skip_durable))
			{
				if (!rinq_peer.ready || next_tag - oldest_tag >= WINDOW ||
					!send_message(message))
					return true;
			}
			current_at += message->length;
		}
		rinq_chunk_free(current);
		current = InvalidDsaPointer;
		rinq_intake_let_others_write();
	}
	return false;
}

/* ---------------- the broker's answers ---------------- */

static void
settle(Published *published, bool nack)
{
	Message    *message;

	if (!published->durable)
	{
		if (nack)
			drop("the broker refused the message");
		return;
	}
	message = find(&published->id);
	if (message == NULL || message->state != MESSAGE_SENT)
		return;
	if (nack)
		failed(message, "the broker refused the message");
	else if (message->returned)
		failed(message, "the broker has no queue for the message");
	else
		set_confirmed(message);
}

/*
 * The broker has confirmed, or refused, one message or all up to it.
 */
void
rinq_sender_confirmed(uint64 tag, bool multiple, bool nack)
{
	uint64		i;

	if (tag >= next_tag || tag < oldest_tag)
		return;
	for (i = multiple ? oldest_tag : tag; i <= tag; i++)
	{
		Published  *published = &window[i & (WINDOW - 1)];

		if (published->confirmed)
			continue;
		published->confirmed = true;
		settle(published, nack);
	}
	while (oldest_tag < next_tag && window[oldest_tag & (WINDOW - 1)].confirmed)
		oldest_tag++;
}

/*
 * The broker had no queue for a message; it confirms it next.  Somebody has
 * deleted the queue, which is declared again before the next attempt.
 */
void
rinq_sender_returned(const RinqReturn *ret)
{
	RinqMessageId id;
	RinqNamespace *ns = rinq_topology_find(ret->routing_key);
	Message    *message;

	if (ns != NULL && ns->state == NAMESPACE_DECLARED && !ns->consuming)
		ns->state = NAMESPACE_UNDECLARED;
	if (ret->malformed_headers ||
		!rinq_message_id_parse(ret->message.message_id.data, ret->message.message_id.len, &id))
		return;
	message = find(&id);
	if (message != NULL)
		message->returned = true;
	else
		drop("the broker has no queue for the message");
}

/* ---------------- telling the outbox worker ---------------- */

/* what an outbox worker had been told, and had not done when it ended */
static void
worker_lost(void)
{
	HASH_SEQ_STATUS seq;
	Message    *message;

	hash_seq_init(&seq, messages);
	while ((message = hash_seq_search(&seq)) != NULL)
	{
		if (message->state == MESSAGE_REMOVING)
		{
			dlist_delete(&message->node);
			set_confirmed(message);
		}
		else if (message->state == MESSAGE_FETCHING)
		{
			message->state = MESSAGE_RETRY;
			message->retry_at = rinq_peer.now;
			dlist_push_tail(&retrying, &message->node);
			num_retrying++;
		}
	}
	remove_under_way = false;
	rinq_intake_worker_lost();
}

/* has the rows of confirmed messages removed, one batch at a time */
static void
remove_confirmed(void)
{
	static RinqOutboxItem items[MAX_BATCH];
	int			count = 0;
	dlist_mutable_iter iter;

	if (remove_under_way || num_confirmed == 0 || !rinq_outbox_link_up())
		return;
	dlist_foreach_modify(iter, &confirmed)
	{
		Message    *message = dlist_container(Message, node, iter.cur);

		if (count == MAX_BATCH)
			break;
		items[count] = message->item;
		items[count].id = message->id;
		count++;
		dlist_delete(&message->node);
		dlist_push_tail(&removing, &message->node);
		message->state = MESSAGE_REMOVING;
		num_confirmed--;
	}
	if (rinq_outbox_tell(RINQ_CHUNK_REMOVE, items, count * sizeof(RinqOutboxItem), (uint32) count))
	{
		remove_under_way = true;
		return;
	}
	while (!dlist_is_empty(&removing))
	{
		Message    *message = dlist_container(Message, node, dlist_pop_head_node(&removing));

		set_confirmed(message);
	}
}

/* has failed messages read again, or set aside after the last attempt */
static int64
retry(void)
{
	dlist_mutable_iter iter;
	int64		next = 0;

	if (num_retrying == 0)
		return 0;
	dlist_foreach_modify(iter, &retrying)
	{
		Message    *message = dlist_container(Message, node, iter.cur);
		RinqOutboxFailed f;
		bool		told;

		if (message->retry_at > rinq_peer.now)
		{
			next = next == 0 ? message->retry_at : Min(next, message->retry_at);
			continue;
		}
		if (!rinq_peer.ready || !rinq_outbox_link_up())
			return rinq_peer.now + RETRY_INTERVAL;
		memset(&f, 0, sizeof(f));
		f.item = message->item;
		f.item.id = message->id;
		if (message->attempts >= rinq_send_attempts)
		{
			f.attempts = message->attempts;
			strlcpy(f.error, message->error != NULL ? message->error : "", sizeof(f.error));
			told = rinq_outbox_tell(RINQ_CHUNK_SET_ASIDE, &f, sizeof(f), 1);
			if (told)
				ereport(WARNING,
						(errmsg("rinq peer %s has set a message aside after %d attempts: %s",
								rinq_peer.id_text, f.attempts, f.error),
						 errhint("Look at the view rinq_outbox_dead_letter.")));
		}
		else
			told = rinq_outbox_tell(RINQ_CHUNK_FETCH, &f.item, sizeof(f.item), 1);
		if (!told)
			return rinq_peer.now + RETRY_INTERVAL;
		dlist_delete(&message->node);
		num_retrying--;
		message->state = MESSAGE_FETCHING;
	}
	return next;
}

static void
show_status(void)
{
	static RinqOutboxStatus shown = {.in_flight = -1};
	RinqOutboxStatus now;
	RinqOutboxStatus *status = &rinq_peer.db->status.outbox;
	dlist_iter	iter;

	now.direct = rinq_sendqueue_direct(&rinq_peer.channel->send);
	now.in_flight = (int64) (next_tag - oldest_tag);
	now.retrying = num_retrying;
	if (now.direct == shown.direct && now.in_flight == shown.in_flight &&
		now.retrying == shown.retrying)
		return;
	now.attempts = 0;
	dlist_foreach(iter, &retrying)
		now.attempts = Max(now.attempts, dlist_container(Message, node, iter.cur)->attempts);
	SpinLockAcquire(&rinq_peer.db->mutex);
	status->direct = now.direct;
	status->in_flight = now.in_flight;
	status->retrying = now.retrying;
	status->attempts = now.attempts;
	SpinLockRelease(&rinq_peer.db->mutex);
	shown = now;
}

/*
 * Sends what can be sent, and sees to what was.  Returns when to look again,
 * or 0.
 */
int64
rinq_sender_step(void)
{
	bool		more;
	int64		next;

	if (rinq_outbox_link_lost())
		worker_lost();
	rinq_intake_scan();
	more = send_chunks();
	remove_confirmed();
	next = retry();
	show_status();
	if ((more && rinq_peer.ready) || (num_confirmed > 0 && !remove_under_way))
		next = next == 0 ? rinq_peer.now + RETRY_INTERVAL :
			Min(next, rinq_peer.now + RETRY_INTERVAL);
	return next;
}

/*
 * Do transactions send so many messages that it is better to take them by the
 * dozen?  Each of them would wake this process otherwise, for one message.
 */
bool
rinq_sender_streams(void)
{
	static int64 window = 0;
	static uint64 sent_before = 0;
	static bool streams = false;
	uint64		sent = pg_atomic_read_u64(&rinq_peer.db->counters[RINQ_MESSAGES_SENT]);

	if (rinq_peer.now != window)
	{
		streams = rinq_peer.now - window <= STREAM_WINDOW && sent - sent_before >= STREAM_MESSAGES;
		window = rinq_peer.now;
		sent_before = sent;
	}
	return streams;
}

/*
 * Is anything from memory still to be sent, or to be confirmed?
 */
bool
rinq_sender_busy(void)
{
	return rinq_peer.ready &&
		(next_tag != oldest_tag || DsaPointerIsValid(current) ||
		 rinq_sendqueue_bytes(&rinq_peer.channel->send) > 0);
}

/*
 * The channel is open: delivery tags count from 1.
 */
void
rinq_sender_opened(void)
{
	next_tag = 1;
	oldest_tag = 1;
}

/*
 * The connection is lost.  What it has not confirmed is sent again, if it is
 * durable; transactions that commit from now on leave their durable messages
 * to the scan that comes with the next connection.
 */
void
rinq_sender_connection_lost(void)
{
	HASH_SEQ_STATUS seq;
	Message    *message;

	hash_seq_init(&seq, messages);
	while ((message = hash_seq_search(&seq)) != NULL)
	{
		if (message->state == MESSAGE_SENT)
			forget(message);
	}
	for (; oldest_tag < next_tag; oldest_tag++)
	{
		Published  *published = &window[oldest_tag & (WINDOW - 1)];

		if (!published->durable && !published->confirmed)
			rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
	}
	next_tag = 1;
	oldest_tag = 1;
	rinq_sendqueue_leave_direct(&rinq_peer.channel->send);
}

/*
 * The peer ends: gives back the memory of what it had not sent.
 */
void
rinq_sender_end(void)
{
	rinq_chunk_free(current);
	current = InvalidDsaPointer;
	rinq_intake_end();
}
