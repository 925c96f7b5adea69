/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  Settling requests that have arrived with the broker, and giving them back.
 *
 * Each delivery is settled exactly once: acknowledged after its response was
 * published, given back to the broker, or rejected.  The rules which of these
 * are section 4 of the protocol.  A delivery whose channel was closed in the
 * meantime is the broker's again, and is not settled at all.  Responses and
 * notifications were acknowledged when they arrived.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/backoff.h"
#include "base/burst.h"
#include "base/clock.h"
#include "base/hash_table.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/due.h"
#include "peer/process.h"
#include "protocol/payload.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define FIRST_RETURN_DELAY 1000 /* ms before a request goes back a second time */
#define LAST_RETURN_DELAY 60000 /* ms, of one that goes back again and again */
#define LAST_STANDBY_DELAY 10000	/* ms, the same on a standby: another
									 * server may be the primary by then */
#define MAX_RETURNED 4096		/* requests whose returns are counted */
#define RETURN_MEMORY (10 * LAST_RETURN_DELAY)	/* ms that a count is kept */
#define MAX_UNBALANCED 10000	/* that wait, and cannot wait at the broker */

/* of those that wait, what the broker keeps no count of; of each kind of work */
static struct
{
	int			waiting;
	Size		bytes;
}			unbalanced[RINQ_WORK_NOTIFICATION + 1];

/* requests on their way back to the broker, each after a while of its own */
static dlist_head delayed = DLIST_STATIC_INIT(delayed);

/* how often a request was given back lately */
typedef struct Returned
{
	RinqMessageId id;			/* hash key */
	int			count;
	int64		last;			/* time of the latest return */
} Returned;

static HTAB *returned;
static bool delayed_for_primary;	/* some wait for a promotion, maybe */

void		(*rinq_inbound_leaves) (RinqInbound * request) = NULL;

/* for each channel, counts how often it was lost */
static uint32 epochs[RINQ_CONN_MAX_CHANNEL + 1];

/*
 * Count a request, response or notification among those that wait.
 */
void
rinq_inbound_waits(RinqInbound * request, Size body_len)
{
	Assert(!request->waits);
	request->waits = true;
	if (!request->balanced)
	{
		unbalanced[request->work].waiting++;
		unbalanced[request->work].bytes += body_len;
	}
}

/*
 * Take note of one that has just arrived, and waits from now on.
 */
void
rinq_inbound_register(RinqInbound * request, Size body_len)
{
	Assert(request->channel <= RINQ_CONN_MAX_CHANNEL);
	request->epoch = epochs[request->channel];
	rinq_inbound_waits(request, body_len);
}

/*
 * Make a request that is the first command that is due in the inbox, for a
 * namespace; or the first notification, for a subscription to it.
 */
RinqInbound *
rinq_inbound_from_inbox(const char *namespace, RinqSubscriber * subscriber)
{
	RinqInbound *request;
	RinqFields	fields;

	rinq_fields_init(&fields, subscriber == NULL ? RINQ_KIND_REQUEST : RINQ_KIND_NOTIFICATION);
	rinq_put_bytes(&fields, rinq_common_fields_of(&fields)->namespace, rinq_bytes_str(namespace));
	if (subscriber != NULL)
	{
		rinq_put_bytes(&fields, RINQ_NOTIFICATION_SUBSCRIPTION, rinq_bytes_str(subscriber->name));
		rinq_subscriber_use(subscriber);
	}
	request = MemoryContextAllocZero(TopMemoryContext,
									 offsetof(RinqInbound, texts) + rinq_fields_bytes(&fields));
	request->work = subscriber == NULL ? RINQ_WORK_REQUEST : RINQ_WORK_NOTIFICATION;
	request->subscriber = subscriber;
	request->from_inbox = true;
	request->balanced = true;
	request->fields = fields;
	(void) rinq_fields_move(&request->fields, request->texts);
	request->body_field = rinq_common_fields_of(&fields)->payload;
	rinq_inbound_register(request, 0);
	return request;
}

/*
 * Tell whether a notification is kept when it fails, and handled even if its
 * session ends before.
 */
bool
rinq_inbound_is_kept(const RinqInbound * request)
{
	return request->subscriber != NULL && (request->from_inbox || rinq_subscriber_keeps(request->subscriber));
}

/*
 * Note that of what is kept for the same namespace, or subscription, one may be
 * due at a time; 0 is never.
 */
void
rinq_inbound_due_at(const RinqInbound * request, int64 at)
{
	RinqNamespace *ns;

	if (request->subscriber != NULL)
		rinq_inbox_subscriber_due_at(request->subscriber, at);
	if (request->work != RINQ_WORK_REQUEST)
		return;
	ns = rinq_topology_find(rinq_get_bytes(&request->fields, RINQ_REQUEST_NAMESPACE));
	if (ns != NULL && ns->listener != NULL)
		rinq_inbox_due_at(ns, at);
}

/*
 * Tell whether no more work of a kind may be taken, because too much of it
 * waits.
 */
bool
rinq_inbound_too_many(RinqWork work)
{
	return unbalanced[work].waiting >= MAX_UNBALANCED ||
		unbalanced[work].bytes > (Size) rinq_payload_memory * 1024 * 1024;
}

/*
 * Note that a channel was closed: what came through it is the broker's again.
 */
void
rinq_inbound_channel_lost(uint16 channel)
{
	Assert(channel <= RINQ_CONN_MAX_CHANNEL);
	epochs[channel]++;
}

/*
 * Tell whether the deadline of a request is over.
 */
bool
rinq_inbound_expired(const RinqInbound * request)
{
	return request->deadline != 0 && rinq_clock_ms() >= request->deadline;
}

/* Stop counting a request among those that wait. */
static void
end_waiting(RinqInbound * request)
{
	if (!request->balanced && request->waits)
	{
		Assert(unbalanced[request->work].waiting > 0);
		Assert(unbalanced[request->work].bytes >= request->body.len);
		unbalanced[request->work].waiting--;
		unbalanced[request->work].bytes -= request->body.len;
	}
	request->waits = false;
}

/*
 * Note that a request was put into a slot, with a copy of its body, which is kept
 * if the request may have to be put into another one.
 */
void
rinq_inbound_started(RinqInbound * request, bool may_repeat)
{
	if (may_repeat)
		end_waiting(request);
	else
		rinq_inbound_free_body(request);
}

/*
 * Free the body of a request, which is of no use any more.
 */
void
rinq_inbound_free_body(RinqInbound * request)
{
	end_waiting(request);
	if (request->body.data != NULL)
		pfree((char *) request->body.data);
	request->body = rinq_bytes(NULL, 0);
}

/* Note that one from the inbox asks no more what is due there. */
static void
end_asking(const RinqInbound * request)
{
	RinqNamespace *ns;

	if (request->subscriber != NULL)
	{
		if (request->subscriber->asking == request)
			request->subscriber->asking = NULL;
		return;
	}
	ns = rinq_topology_find(rinq_get_bytes(&request->fields, RINQ_REQUEST_NAMESPACE));
	if (ns != NULL && ns->asking == request)
		ns->asking = NULL;
}

/*
 * Free a request that is over, and settled if it had to be.
 */
void
rinq_inbound_free(RinqInbound * request)
{
	if (request->ended != NULL)
		request->ended(request);
	if (request->from_inbox)
		end_asking(request);
	if (request->turn != NULL)
		rinq_inbound_leaves(request);
	if (request->subscriber != NULL)
		rinq_subscriber_release(request->subscriber);
	rinq_inbound_free_body(request);
	if (request->own.handler != NULL)
		pfree(request->own.handler);
	if (request->own.channel != NULL)
		pfree(request->own.channel);
	pfree(request);
}

/*
 * Tell whether a request can still be settled.  Of a response or notification,
 * there is nothing to settle any more.
 */
bool
rinq_inbound_can_settle(const RinqInbound * request)
{
	if (request->work != RINQ_WORK_REQUEST || request->from_inbox)
		return true;
	return rinq_peer.conn != NULL &&
		(request->settled || request->epoch == epochs[request->channel]);
}

/*
 * End a request without a response: the broker may give a balanced one to
 * another peer, as long as its deadline allows.
 */
void
rinq_inbound_settle(RinqInbound * request)
{
	bool		late = rinq_inbound_expired(request);
	bool		requeue = request->balanced && !late;

	if (request->from_inbox)
	{
		rinq_inbound_due_at(request, rinq_peer.now + 1);
		rinq_inbound_free(request);
		return;
	}
	if (request->ended != NULL)
	{
		rinq_inbound_free(request); /* its owner sees to that */
		return;
	}
	if (request->work != RINQ_WORK_REQUEST)
	{
		rinq_count(rinq_peer.db, request->work == RINQ_WORK_RESPONSE ?
				   RINQ_RESPONSES_DROPPED : RINQ_NOTIFICATIONS_DROPPED);
		rinq_inbound_free(request);
		return;
	}
	rinq_count(rinq_peer.db, requeue ? RINQ_REQUESTS_REQUEUED :
			   late ? RINQ_REQUESTS_EXPIRED : RINQ_REQUESTS_REJECTED);
	if (rinq_inbound_can_settle(request) && !request->settled)
		(void) rinq_basic_reject(rinq_peer.conn, request->channel, request->tag, requeue);
	rinq_inbound_free(request);
}

/*
 * Forget requests that were not given back for long; of those that end for
 * good elsewhere, this peer is not told.
 */
static void
forget_old_returns(void)
{
	HASH_SEQ_STATUS seq;
	Returned   *entry;

	hash_seq_init(&seq, returned);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (rinq_peer.now - entry->last > RETURN_MEMORY)
			hash_search(returned, &entry->id, HASH_REMOVE, NULL);
	}
}

/* Forget how often requests were given back. */
static void
forget_returns(void)
{
	if (returned != NULL)
		hash_destroy(returned);
	returned = NULL;
}

static void
make_returned(void)
{
	returned = rinq_make_hash_table("rinq returned requests", 64, sizeof(RinqMessageId), sizeof(Returned), TopMemoryContext);
}

/*
 * Count a return of a request.  Returns how often it was given back, as far as
 * this peer knows: when too many are, all further ones count as frequent.
 */
static int
count_return(const RinqInbound * request)
{
	RinqBytes	text = rinq_get_bytes(&request->fields, RINQ_REQUEST_ID);
	RinqMessageId id;
	RinqMessageId key;
	Returned   *entry;
	bool		found;

	if (returned == NULL)
		make_returned();
	if (!rinq_message_id_parse(text.data, text.len, &id))
		return 1;
	rinq_message_id_key(&id, &key);
	if (hash_get_num_entries(returned) >= MAX_RETURNED)
		forget_old_returns();
	entry = hash_search(returned, &key,
						hash_get_num_entries(returned) < MAX_RETURNED ? HASH_ENTER : HASH_FIND,
						&found);
	if (entry == NULL)
		return 5;
	if (!found)
		entry->count = request->redelivered ? 1 : 0;
	entry->last = rinq_peer.now;
	return ++entry->count;
}

/* Log that a request goes back again, once for each and within limits. */
static void
log_return(const RinqInbound * request)
{
	static RinqBurst logged;
	uint64		suppressed;
	char		id[RINQ_DISPLAY_LEN];
	char		ns[RINQ_DISPLAY_LEN];
	char		command[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];

	if (!rinq_may_log(&logged, rinq_peer.now, &suppressed))
		return;
	ereport(LOG,
			(errmsg("rinq peer %s gives request %s back to the broker again, since %s",
					rinq_peer.id_text, rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_ID), id),
					RecoveryInProgress() ? "it has not succeeded on this standby" : "its handler did not end"),
			 errdetail_internal("Namespace \"%s\", command \"%s\", trace id \"%s\"; "
								UINT64_FORMAT " more requests since the last such entry.",
								rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_NAMESPACE), ns),
								rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_COMMAND), command),
								rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_TRACE), trace), suppressed),
			 errhint("From now on it goes back later and later.")));
}

/*
 * Give a request back whose executor has ended.  The first return is made at
 * once; each further one is delayed, longer and longer, up to the deadline, so
 * that a request that cannot be handled is no busy loop.
 */
void
rinq_inbound_give_back(RinqInbound * request)
{
	int			count;
	int64		delay;

	if (request->from_inbox)
	{
		rinq_inbound_due_at(request, rinq_peer.now + RINQ_ATTEMPT_GRACE);
		rinq_inbound_free(request);
		return;
	}
	if (!request->balanced || rinq_peer.stopping || request->work != RINQ_WORK_REQUEST)
	{
		rinq_inbound_settle(request);
		return;
	}
	count = count_return(request);
	if (count == 1)
	{
		rinq_inbound_settle(request);
		return;
	}
	if (count == 2)
		log_return(request);
	delay = rinq_backoff_after(count - 1, FIRST_RETURN_DELAY,
							   RecoveryInProgress() ? LAST_STANDBY_DELAY : LAST_RETURN_DELAY);
	delayed_for_primary |= RecoveryInProgress();
	if (request->deadline != 0)
		delay = Min(delay, Max(0, request->deadline - rinq_clock_ms()));
	request->settle_at = rinq_peer.now + delay;
	dlist_push_tail(&delayed, &request->node);
}

/*
 * Tell, once, whether requests were delayed until there might be a primary, which
 * this server has become since.
 */
static bool
was_promoted_meanwhile(void)
{
	if (!delayed_for_primary || RecoveryInProgress())
		return false;
	delayed_for_primary = false;
	forget_returns();
	return true;
}

/*
 * Give back the requests whose time has come, or all, as also after a promotion.
 * Returns when the next one goes back, 0 when there is none.
 */
int64
rinq_inbound_settle_delayed(bool all)
{
	dlist_mutable_iter iter;
	int64		next = 0;

	all |= was_promoted_meanwhile();
	dlist_foreach_modify(iter, &delayed)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (!all && request->settle_at > rinq_peer.now && rinq_inbound_can_settle(request))
		{
			next = rinq_clock_earlier(next, request->settle_at);
			continue;
		}
		dlist_delete(&request->node);
		rinq_inbound_settle(request);
	}
	return next;
}
