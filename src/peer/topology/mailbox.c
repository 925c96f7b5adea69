/*-------------------------------------------------------------------------
 *
 * mailbox.c
 *	  The mailbox: queues that outlive connections, and belong to a database.
 *
 * A mailbox is a second peer id.  Answers to durable calls are sent to its queue
 * for responses, where they wait for this peer, and questions about sessions of
 * durable messages to its queue for requests.  Nothing of it is made before it
 * is used for the first time.
 *
 * It belongs to one server at a time, which is seen to by exclusive consumers.
 * Where another one has it, that may be this peer's own last connection, which
 * the broker has not noticed to be lost; so it is tried again for a while, before
 * the database is taken for a copy.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "peer/process.h"
#include "peer/topology/bindings.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/namespaces.h"

#define QUEUE_SIZE (RINQ_PEER_ID_SIZE + 8)
#define FIRST_RETRY_DELAY 250	/* ms */
#define LAST_RETRY_DELAY 5000	/* ms */

typedef enum MailboxState
{
	MAILBOX_CLOSED,				/* nothing was asked of the broker */
	MAILBOX_OPENING,
	MAILBOX_OPEN,				/* answers arrive */
	MAILBOX_WAITING				/* to be tried again, at "retry_at" */
} MailboxState;

static RinqPeerId id;			/* zero: none is known */
static char id_text[RINQ_PEER_ID_SIZE];
static bool wanted;				/* something hangs on it */
static MailboxState state;
static int64 retry_at;
static int	retry_delay;
static int64 taken_since;		/* another server has it; 0 is not so */

/*
 * Take what the reader has found: the mailbox of the database, and whether
 * anything in it hangs on that.  What was wanted once is wanted for good.  When
 * the reader could not tell, since a table is not as it should be, what is known
 * stays.
 */
void
rinq_mailbox_configure(const RinqPeerId *new_id, bool used)
{
	if (new_id->clock != 0 && !rinq_peer_id_equal(new_id, &id))
	{
		if (state != MAILBOX_CLOSED && state != MAILBOX_WAITING)
			rinq_peer_fail("the database has another mailbox");
		state = MAILBOX_CLOSED;
		taken_since = 0;
		retry_delay = 0;
		id = *new_id;
		rinq_peer_id_format(&id, id_text, sizeof(id_text));
	}
	if (used)
		rinq_mailbox_want();
	else if (wanted)
		rinq_mailbox_open();
}

/*
 * Tell whether a peer id is that of the mailbox.
 */
bool
rinq_mailbox_owns(const RinqPeerId *peer)
{
	return id.clock != 0 && rinq_peer_id_equal(peer, &id);
}

/*
 * Have the mailbox opened, since something hangs on it.
 */
void
rinq_mailbox_want(void)
{
	wanted = true;
	rinq_mailbox_open();
}

/*
 * Tell whether anything hangs on the mailbox.
 */
bool
rinq_mailbox_wanted(void)
{
	return wanted;
}

/*
 * Tell whether what is sent to the mailbox gets there.
 */
bool
rinq_mailbox_ready(void)
{
	return state == MAILBOX_OPEN;
}

/*
 * Tell whether another server has had the mailbox for so long that this
 * database needs another one; then *text is its id.
 */
bool
rinq_mailbox_is_taken(char text[RINQ_PEER_ID_SIZE])
{
	if (taken_since == 0 || rinq_peer.now - taken_since < rinq_mailbox_patience)
		return false;
	strlcpy(text, id_text, RINQ_PEER_ID_SIZE);
	return true;
}

static RinqBytes
mailbox_queue(const char *suffix, char buf[QUEUE_SIZE])
{
	snprintf(buf, QUEUE_SIZE, "%s%s", id_text, suffix);
	return rinq_bytes_str(buf);
}

/* Declare both queues, and bind them; the replies have this step. */
static void
declare_mailbox(void)
{
	char		responses[QUEUE_SIZE];
	char		requests[QUEUE_SIZE];
	char		all[RINQ_PEER_ID_SIZE + 2];
	uint64		cookie = RINQ_COOKIE(STEP_MAILBOX, 0);

	mailbox_queue(".rsp", responses);
	mailbox_queue(".req", requests);
	snprintf(all, sizeof(all), "%s.*", id_text);
	rinq_queue_declare(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(responses), true, false, 0,
					   "classic", cookie);
	rinq_queue_declare(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(requests), true, false, 3,
					   "classic", cookie);
	rinq_queue_bind(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(responses),
					rinq_bytes_str("cmd.rsp"), rinq_bytes_str(all), cookie);
	rinq_queue_bind(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(requests),
					rinq_bytes_str("cmd.uc"), rinq_bytes_str(id_text), cookie);
}

/*
 * Tell whether what came to a consumer is a request, and not a response.
 */
bool
rinq_mailbox_is_request(RinqBytes consumer_tag)
{
	char		queue[QUEUE_SIZE];

	return rinq_bytes_equal(consumer_tag, mailbox_queue(".req", queue));
}

/* Have the mailbox opened again later. */
static void
open_later(void)
{
	state = MAILBOX_WAITING;
	retry_delay = rinq_backoff_next(retry_delay, FIRST_RETRY_DELAY, LAST_RETRY_DELAY);
	retry_at = rinq_peer.now + retry_delay;
}

/*
 * Open the mailbox, if it is wanted, and the peer is on the network; without
 * waiting for any of it.
 */
void
rinq_mailbox_open(void)
{
	char		queue[QUEUE_SIZE];

	if (!wanted || id.clock == 0 || !rinq_peer.ready || rinq_peer.stopping || state != MAILBOX_CLOSED)
		return;
	if (!rinq_amqp_channel_usable(rinq_peer.conn, CHANNEL_MAILBOX) &&
		rinq_amqp_channel_open(rinq_peer.conn, CHANNEL_MAILBOX, 0) != RINQ_MSG_OK)
	{
		open_later();			/* the broker has not closed it yet */
		return;
	}
	state = MAILBOX_OPENING;
	rinq_basic_qos(rinq_peer.conn, CHANNEL_MAILBOX, (uint16_t) rinq_session_prefetch, false, 0);
	declare_mailbox();
	mailbox_queue(".req", queue);
	rinq_basic_consume(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(queue), rinq_bytes_str(queue), true,
					   RINQ_COOKIE(STEP_MAILBOX, 0));
	mailbox_queue(".rsp", queue);
	rinq_basic_consume(rinq_peer.conn, CHANNEL_MAILBOX, rinq_bytes_str(queue), rinq_bytes_str(queue), true,
					   RINQ_COOKIE(STEP_MAILBOX_LAST, 0));
}

/*
 * Note that the mailbox is open, and this peer's.
 */
void
rinq_mailbox_opened(void)
{
	if (state != MAILBOX_OPENING)
		return;
	state = MAILBOX_OPEN;
	retry_delay = 0;
	taken_since = 0;
}

/*
 * Declare queues and bindings again, should any have been deleted.
 */
void
rinq_mailbox_mend(void)
{
	if (state == MAILBOX_OPEN)
		declare_mailbox();
}

/*
 * Take no more answers, since the peer stops; requests still come, since
 * handlers that run may ask.
 */
void
rinq_mailbox_stop(void)
{
	char		queue[QUEUE_SIZE];

	if (state == MAILBOX_OPEN)
		rinq_basic_cancel(rinq_peer.conn, CHANNEL_MAILBOX, mailbox_queue(".rsp", queue), 0);
}

/*
 * Take the end of a consumer, whose queue was deleted; false when that is
 * another one's.
 */
bool
rinq_mailbox_cancelled(RinqBytes consumer_tag)
{
	char		queue[QUEUE_SIZE];

	if (id.clock == 0 || (!rinq_bytes_equal(consumer_tag, mailbox_queue(".rsp", queue)) &&
						  !rinq_bytes_equal(consumer_tag, mailbox_queue(".req", queue))))
		return false;
	if (state != MAILBOX_OPEN && state != MAILBOX_OPENING)
		return true;
	ereport(LOG,
			(errmsg("rinq peer %s: a queue of mailbox %s was deleted on the broker, declaring it again",
					rinq_peer.id_text, id_text)));

	/* the other consumer would be in the way */
	rinq_topology_hooks->channel_lost(CHANNEL_MAILBOX);
	rinq_amqp_channel_close(rinq_peer.conn, CHANNEL_MAILBOX, 0);
	open_later();
	return true;
}

/* Tell whether the broker has closed the channel since another server has the queue. */
static bool
is_in_use(const RinqAmqpChannelClosed *info)
{
	return strcmp(info->method, "basic.consume") == 0 && (info->code == 403 || info->code == 405) &&
		strstr(info->text, "exclusive") != NULL;
}

/*
 * Handle the closing of the mailbox's channel by the broker.
 */
void
rinq_mailbox_channel_closed(const RinqAmqpChannelClosed *info)
{
	bool		in_use = is_in_use(info);
	char		text[RINQ_LAST_ERROR_LEN];

	if (state != MAILBOX_OPENING && state != MAILBOX_OPEN)
		return;
	if (in_use && taken_since == 0)
		taken_since = rinq_peer.now;
	else if (!in_use)
		taken_since = 0;
	snprintf(text, sizeof(text), "the broker refused %s for mailbox %s: %u %s", info->method, id_text,
			 info->code, info->text);
	if (retry_delay == 0)
		ereport(WARNING,
				(errmsg("rinq cannot open the mailbox of database \"%s\"", NameStr(rinq_peer.db->name)),
				 errdetail_internal("%s", text),
				 in_use ?
				 errhint("Another server has it, or the broker has not noticed yet that this one's last connection is lost.") :
				 errhint("With 403, grant the permission that the broker's user lacks. The peer tries again by itself.")));
	rinq_peer_show_error(text);
	open_later();
}

/*
 * Forget what was opened on the connection that is lost.
 */
void
rinq_mailbox_connection_lost(void)
{
	state = MAILBOX_CLOSED;
	retry_delay = 0;
	taken_since = 0;
}

/*
 * Open the mailbox again when its time has come.  Returns when to look again, or
 * 0.
 */
int64
rinq_mailbox_step(void)
{
	if (state != MAILBOX_WAITING || !rinq_peer.ready)
		return 0;
	if (rinq_peer.now < retry_at)
		return retry_at;
	state = MAILBOX_CLOSED;
	rinq_mailbox_open();
	return 0;
}
