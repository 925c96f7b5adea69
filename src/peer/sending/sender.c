/*-------------------------------------------------------------------------
 *
 * sender.c
 *	  Sending what transactions have committed.
 *
 * Messages are published in the order in which they come, on a channel in
 * confirm mode, a bounded number ahead of the broker's confirmations, and not
 * many in one turn of the peer, which has others to serve.
 *
 * Which messages come next, and what a scan has to do with that, is intake.c's
 * business; what becomes of durable ones that were sent, sent.c's; that there is
 * an outbox worker, and how it is told, outbox_link.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "peer/headers.h"
#include "peer/process.h"
#include "peer/sending/intake.h"
#include "peer/sending/notification.h"
#include "peer/sending/outbox_link.h"
#include "peer/sending/outbox_look.h"
#include "peer/sending/outbox_watch.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sender.h"
#include "peer/sending/sent.h"
#include "peer/sending/stall.h"
#include "peer/topology/consume.h"
#include "peer/topology/declare.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/mending.h"
#include "peer/topology/namespaces.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

#define WINDOW 8192				/* messages published and not confirmed; a
								 * power of two */
#define SHARED_WINDOW 256		/* the same while calls are made, which queue
								 * up behind them */
#define SHARE_FOR 2000			/* ms since the last call */
#define TURN_MESSAGES 1024		/* sent in one turn, */
#define TURN_BYTES (256 * 1024) /* or this number of bytes of them */
#define DURABLE_PATIENCE 500	/* ms that others wait for a queue to be
								 * declared */
#define STREAM_WINDOW 2			/* ms, in which STREAM messages are a stream */
#define STREAM_MESSAGES 10

/* what was published under each delivery tag; durable ones are looked up by id */
typedef struct Published
{
	bool		durable;
	bool		confirmed;
	RinqMessageId id;
} Published;

static Published window[WINDOW];
static uint64 next_tag;			/* of the next publish */
static uint64 oldest_tag;		/* that is not confirmed */

/* the chunk that is being sent, and how far */
static RinqTaken current =
{
	InvalidDsaPointer
};
static Size current_at;

/* calls wait for their responses */
static bool calls_wait = false;

/* why the last turn has not sent all there was */
typedef enum Obstacle
{
	OBSTACLE_NONE,
	OBSTACLE_TURN,				/* others are to have their turn */
	OBSTACLE_WAIT				/* for the broker, or the outbox worker */
} Obstacle;

void
rinq_sender_init(void)
{
	rinq_sent_init();
	rinq_intake_init();
	rinq_outbox_look_init();
}

/* ---------------- the broker's answers ---------------- */

static void
settle_published(Published * published, bool nack)
{
	rinq_outbox_moved();
	if (published->durable)
		rinq_sent_reported(&published->id, nack);
	else if (nack)
		rinq_sent_dropped("the broker refused the message");
}

static void
forget_confirmed(void)
{
	while (oldest_tag < next_tag && window[oldest_tag & (WINDOW - 1)].confirmed)
		oldest_tag++;
}

/* Note that the broker has confirmed one message, or not taken it. */
static void
confirm_published(uint64 tag, bool nack)
{
	Published  *published;

	if (tag >= next_tag || tag < oldest_tag)
		return;
	published = &window[tag & (WINDOW - 1)];
	if (!published->confirmed)
	{
		published->confirmed = true;
		settle_published(published, nack);
	}
	forget_confirmed();
}

static void
message_taken(const RinqPublication * what)
{
	confirm_published(what->tag, false);
}

static void
message_nacked(const RinqPublication * what)
{
	confirm_published(what->tag, true);
}

/*
 * Note that the broker has refused one message for good, by closing the channel.
 */
static void
message_refused(const RinqPublication * what, const char *text, bool for_good)
{
	uint64		tag = what->tag;
	Published  *published;
	RinqSent   *message;

	if (tag >= next_tag || tag < oldest_tag)
		return;
	published = &window[tag & (WINDOW - 1)];
	if (published->confirmed)
		return;
	published->confirmed = true;
	rinq_outbox_moved();
	message = published->durable ? rinq_sent_find(&published->id) : NULL;
	if (message != NULL)
		rinq_sent_refused(message, text, for_good);
	else if (!published->durable)
		rinq_sent_dropped(text);
	forget_confirmed();
}

static const RinqPublishOwner message_owner = {
	.taken = message_taken,
	.refused = message_refused,
	.nacked = message_nacked
};

/* ---------------- publishing ---------------- */

static RinqMsgStatus
publish_outbound(const RinqOutbound *message, RinqNamespace * ns, const RinqFields *fields)
{
	RinqMessage msg;
	RinqPublication what;
	char		id[RINQ_MESSAGE_ID_SIZE];
	char		expiration[RINQ_EXPIRATION_SIZE];

	memset(&msg, 0, sizeof(msg));
	msg.message_id = rinq_bytes(id, rinq_message_id_format(&message->item.id, id, sizeof(id)));
	rinq_message_set_trace(&msg, rinq_get_bytes(fields, RINQ_SEND_TRACE));
	msg.persistent = true;

	/*
	 * said even though it is the least: quorum queues of RabbitMQ 4.3 take 4
	 * for none
	 */
	msg.has_priority = true;
	msg.priority = message->kind == RINQ_SEND_DURABLE_CALL ? 1 : 0;
	if (message->kind == RINQ_SEND_DURABLE_CALL)
		msg.reply_to = rinq_bytes_str("u");
	rinq_message_set_deadline(&msg, rinq_clock_of_wall(message->deadline), expiration);
	msg.ns = rinq_get_bytes(fields, RINQ_SEND_NAMESPACE);
	msg.command = rinq_get_bytes(fields, RINQ_SEND_COMMAND);
	msg.span_context = rinq_get_bytes(fields, RINQ_SEND_SPAN);
	msg.traceparent = rinq_get_bytes(fields, RINQ_SEND_TRACEPARENT);
	msg.tracestate = rinq_get_bytes(fields, RINQ_SEND_TRACESTATE);
	memset(&what, 0, sizeof(what));
	what.kind = RINQ_PUBLISH_EXECUTE;
	what.owner = &message_owner;
	what.tag = next_tag;
	what.durable = message->durable;
	return rinq_publish(&what, "cmd.bal", rinq_bytes_str(ns->name), true, &msg,
						rinq_get_bytes(fields, RINQ_SEND_PAYLOAD));
}

static void
note_published(const RinqOutbound *outbound)
{
	Published  *published = &window[next_tag & (WINDOW - 1)];

	published->durable = outbound->durable;
	published->confirmed = false;
	published->id = outbound->item.id;
	next_tag++;
	rinq_count(rinq_peer.db, RINQ_MESSAGES_SENT);
}

/* send a notification; false, with nothing done, when it has to wait */
static bool
send_notification(const RinqOutbound *outbound, const RinqFields *fields)
{
	RinqMsgStatus status = rinq_notification_publish(outbound, fields);

	if (status == RINQ_MSG_OK)
		rinq_count(rinq_peer.db, RINQ_MESSAGES_SENT);
	else if (status != RINQ_MSG_BACKLOG)
		rinq_sent_dropped(rinq_publish_problem(status));
	return status != RINQ_MSG_BACKLOG;
}

/*
 * Find the namespace of a message, NULL with *problem when there cannot be
 * one; false when its queue has to be declared first, since the message would
 * be returned.  That is not waited for long where others wait behind it: a
 * durable message waits by itself for a queue that cannot be had now.
 */
static bool
find_namespace(RinqBytes name, bool durable, RinqNamespace * *ns, const char **problem)
{
	*ns = rinq_topology_namespace(name, rinq_max_namespaces);
	*problem = NULL;
	if (*ns == NULL)
		*problem = "\"rinq.max_namespaces\" namespaces were called already";
	else if ((*ns)->state == NAMESPACE_FAILED && (*ns)->retry_at > rinq_peer.now)
		*problem = (*ns)->refused ? "the broker refuses the queue of the namespace" :
			"the queue of the namespace cannot be had now";
	else if ((*ns)->state != NAMESPACE_DECLARED)
	{
		rinq_declare_namespace(*ns);
		*problem = rinq_declare_problem(*ns, durable ? DURABLE_PATIENCE : RINQ_DECLARE_PATIENCE);
		return *problem != NULL;
	}
	return true;
}

/*
 * Tell whether a message hangs on the mailbox, and that is not open yet; it is
 * opened when the first one comes.  What is answered before would be lost.
 */
static bool
is_mailbox_closed(const RinqOutbound *outbound)
{
	if (!outbound->durable || !rinq_mailbox_owns(&outbound->item.id.ref.session.peer) ||
		rinq_mailbox_ready())
		return false;
	rinq_mailbox_want();
	return true;
}

/*
 * Send a message; false, with nothing done, when it has to wait.
 */
static bool
send_message(const RinqOutbound *outbound)
{
	RinqFields	fields;
	RinqNamespace *ns;
	RinqSent   *message = NULL;
	const char *problem;
	RinqMsgStatus status = RINQ_MSG_OK;

	rinq_outbound_read(outbound, &fields);
	if (outbound->kind == RINQ_SEND_NOTIFICATION || outbound->kind == RINQ_SEND_MULTICAST)
		return send_notification(outbound, &fields);
	if (!find_namespace(rinq_get_bytes(&fields, RINQ_SEND_NAMESPACE), outbound->durable, &ns, &problem))
		return false;
	if (outbound->durable && (message = rinq_sent_begin(outbound)) == NULL)
		return true;
	if (outbound->deadline != 0 && outbound->deadline <= rinq_wall_ms())
	{
		rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
		if (message != NULL)
			rinq_sent_confirmed(message);
		return true;
	}
	if (is_mailbox_closed(outbound))
	{
		rinq_sent_postponed(message);
		return true;
	}
	if (problem == NULL && outbound->kind == RINQ_SEND_DURABLE_CALL &&
		!rinq_mailbox_owns(&outbound->item.id.ref.session.peer))
	{
		rinq_peer_ask_for_reading();
		problem = "the call is of another mailbox than the database has";
	}
	if (problem == NULL)
	{
		status = publish_outbound(outbound, ns, &fields);
		if (status == RINQ_MSG_BACKLOG)
		{
			if (message != NULL)
				rinq_sent_undo(message);
			return false;
		}
		if (status == RINQ_MSG_OK)
		{
			note_published(outbound);
			return true;
		}
		problem = rinq_publish_problem(status);
	}
	if (message != NULL && status == RINQ_MSG_OVER_BROKER_LIMIT)
		rinq_sent_refused(message, problem, true);
	else if (message != NULL && ns != NULL && ns->state != NAMESPACE_DECLARED && !ns->refused)
	{
		rinq_consume_want(ns);
		rinq_sent_waits(message, problem);
	}
	else if (message != NULL)
		rinq_sent_failed(message, problem);
	else
		rinq_sent_dropped(problem);
	return true;
}

/* ---------------- sending chunks ---------------- */

/* Tell whether a message is one of those that are to be sent now. */
static bool
is_outbound_due(const RinqOutbound *message)
{
	if (message->known)
		return false;
	return current.part == RINQ_PART_ALL ||
		message->durable == (current.part == RINQ_PART_DURABLE);
}

static bool
take_chunk(void)
{
	current_at = 0;
	return !rinq_sent_behind() && rinq_intake_next(&current);
}

/*
 * Tell whether more may be sent now.  What was published goes through the same
 * connection as calls, and the broker deals with it first: while calls are
 * made, not much of it is ahead of them.
 */
static bool
may_send(void)
{
	static int64 last_call = 0;
	bool		shared;

	if (calls_wait)
		last_call = rinq_peer.now;
	shared = last_call != 0 && rinq_peer.now - last_call < SHARE_FOR;
	return rinq_peer.ready && next_tag - oldest_tag < (shared ? SHARED_WINDOW : WINDOW);
}

/* send what can be sent now, and is not too much for a turn */
static Obstacle
send_chunks(void)
{
	int			messages = 0;
	Size		bytes = 0;

	while (DsaPointerIsValid(current.chunk) || take_chunk())
	{
		RinqChunk  *chunk = rinq_chunk(current.chunk);

		while (current_at < chunk->size)
		{
			RinqOutbound *message = rinq_chunk_message(chunk, current_at);

			if (is_outbound_due(message))
			{
				if (messages == TURN_MESSAGES || bytes >= TURN_BYTES)
					return OBSTACLE_TURN;
				if (!may_send() || !send_message(message))
					return OBSTACLE_WAIT;
				messages++;
				bytes += message->length;
				if (!message->durable)
					chunk->plain--;
				rinq_outbox_moved();
			}
			current_at += message->length;
		}
		rinq_intake_sent(&current);
	}
	return rinq_sent_behind() ? OBSTACLE_WAIT : OBSTACLE_NONE;
}

/* ---------------- returned messages ---------------- */

/*
 * Note that the broker had no queue for a message, which it confirms next.
 * The queue must have been deleted, and is declared again before the next
 * attempt.
 */
void
rinq_sender_returned(const RinqReturn *ret)
{
	RinqMessageId id;
	RinqNamespace *ns = rinq_topology_find(ret->routing_key);
	RinqSent   *message;

	if (ns != NULL)
		rinq_mend_namespace(ns);
	if (ret->malformed_headers ||
		!rinq_message_id_parse(ret->message.message_id.data, ret->message.message_id.len, &id))
		return;
	message = rinq_sent_find(&id);
	if (message != NULL)
		rinq_sent_returned(message);
	else
		rinq_sent_dropped("the broker has no queue for the message");
}

/* ---------------- turns ---------------- */

static void
show_status(void)
{
	static RinqOutboxStatus shown = {.in_flight = -1};
	RinqOutboxStatus now;
	RinqOutboxStatus *status = &rinq_peer.db->status.outbox;

	now.direct = !rinq_intake_scans();
	now.in_flight = (int64) (next_tag - oldest_tag);
	rinq_sent_retrying(&now.retrying, &now.attempts);
	if (now.direct == shown.direct && now.in_flight == shown.in_flight &&
		now.retrying == shown.retrying)
		return;
	SpinLockAcquire(&rinq_peer.db->mutex);
	status->direct = now.direct;
	status->in_flight = now.in_flight;
	status->retrying = now.retrying;
	status->attempts = now.attempts;
	SpinLockRelease(&rinq_peer.db->mutex);
	shown = now;
}

/* Say what messages wait for, if any do; NULL when none does. */
static const char *
obstacle_text(Obstacle obstacle)
{
	if (!rinq_peer.ready)
		return NULL;			/* rinq_peer says so */
	if (rinq_peer.db->status.blocked && (obstacle == OBSTACLE_WAIT || next_tag != oldest_tag))
		return "the broker refuses to take messages for now";
	if (rinq_peer.slots->send.starved)
		return "the payload memory is full";
	if (obstacle == OBSTACLE_WAIT && !rinq_sent_behind())
		return "the broker does not take messages as fast as they come";
	if (next_tag != oldest_tag)
		return "the broker does not confirm messages";
	if (rinq_sent_waits_for_worker() || (rinq_intake_scans() && rinq_outbox_is_ours()))
		return "the outbox worker does not get on: it is not started, or waits for a lock on a table of the outbox";
	return NULL;
}

/*
 * Send what can be sent, and see to what was; "calls" tells whether calls wait
 * for their responses.  Returns when to look again, or 0.
 */
int64
rinq_sender_step(bool calls)
{
	bool		lost = rinq_outbox_link_lost();
	Obstacle	obstacle;
	int64		next;

	calls_wait = calls;
	rinq_intake_reports(&current);
	if (lost)
	{
		rinq_sent_worker_lost();
		rinq_intake_worker_lost();
		rinq_outbox_watch_worker_lost();
		rinq_outbox_look_worker_lost();
	}
	obstacle = send_chunks();
	next = rinq_intake_scan(&current);
	next = rinq_clock_earlier(next, rinq_sent_step());
	next = rinq_clock_earlier(next, rinq_outbox_watch(obstacle == OBSTACLE_NONE && !rinq_intake_busy(),
													  rinq_intake_scans()));
	next = rinq_clock_earlier(next, rinq_outbox_watch_space());
	next = rinq_clock_earlier(next, rinq_outbox_watch_records());
	next = rinq_clock_earlier(next, rinq_outbox_look_when_due());
	next = rinq_clock_earlier(next, rinq_outbox_look_for_stall(obstacle_text(obstacle)));
	show_status();
	if (obstacle == OBSTACLE_TURN)
		next = rinq_peer.now;
	else if (obstacle == OBSTACLE_WAIT && rinq_peer.ready)
		next = rinq_clock_earlier(next, rinq_peer.now + RINQ_SENDER_RETRY);
	return next;
}

/*
 * Tell whether transactions send messages at such a rate that it is better to
 * take them by the dozen.  Each of them would wake this process otherwise, for
 * one message.
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
 * Tell whether anything from memory is still to be sent, or to be confirmed.
 */
bool
rinq_sender_busy(void)
{
	return rinq_peer.ready &&
		(next_tag != oldest_tag || DsaPointerIsValid(current.chunk) ||
		 DsaPointerIsValid(rinq_sendqueue_peek(&rinq_peer.slots->send, RINQ_SEND_LIST_TRANSACTIONS)));
}

/*
 * Begin to send on a channel that is open: delivery tags count from 1.
 */
void
rinq_sender_opened(void)
{
	next_tag = 1;
	oldest_tag = 1;
}

/*
 * Forget what was published on the connection that is lost.  What that has not
 * confirmed is sent again, if it is durable; transactions that commit from now
 * on leave their durable messages to the scan that comes with the next
 * connection.
 */
void
rinq_sender_connection_lost(void)
{
	rinq_sent_connection_lost();
	for (; oldest_tag < next_tag; oldest_tag++)
	{
		Published  *published = &window[oldest_tag & (WINDOW - 1)];

		if (!published->durable && !published->confirmed)
			rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
	}
	next_tag = 1;
	oldest_tag = 1;
	rinq_intake_connection_lost(&current);
}

/*
 * Give back the memory of what was not sent, since the peer ends.
 */
void
rinq_sender_end(void)
{
	RinqSendQueue *queue = &rinq_peer.slots->send;

	if (DsaPointerIsValid(current.chunk))
	{
		pg_atomic_fetch_add_u64(&rinq_peer.db->counters[RINQ_MESSAGES_DROPPED],
								rinq_chunk(current.chunk)->plain);
		rinq_sendqueue_free(queue, current.chunk);
	}
	current.chunk = InvalidDsaPointer;
	for (; oldest_tag < next_tag; oldest_tag++)
	{
		Published  *published = &window[oldest_tag & (WINDOW - 1)];

		if (!published->durable && !published->confirmed)
			rinq_count(rinq_peer.db, RINQ_MESSAGES_DROPPED);
	}
	rinq_intake_end();
}
