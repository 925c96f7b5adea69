/*-------------------------------------------------------------------------
 *
 * mailbox_responses.c
 *	  Answers to durable calls, and the calls' handlers.
 *
 * Answers are handed to the outbox worker in batches, one batch at a time, which
 * writes them into the rows of their calls; only then are they acknowledged.
 * Where a row says that a function handles its outcome, an executor is told to
 * do that.  The outbox worker is also asked, now and then, which calls are due:
 * the ones without an answer by their deadline, and the ones whose handler is to
 * be tried again.
 *
 * Nothing here is known only to this process: what it forgets is found in the
 * rows again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "base/hash_table.h"
#include "guc.h"
#include "lib/ilist.h"
#include "peer/command/server.h"
#include "peer/mailbox/mailbox_responses.h"
#include "peer/mailbox/sources.h"
#include "peer/process.h"
#include "peer/sending/intake.h"
#include "peer/sending/outbox_link.h"
#include "peer/topology/mailbox.h"
#include "protocol/packed.h"
#include "protocol/response.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_HANDLING 500		/* handlers in an executor, or on their way */
#define MAX_BATCH_BYTES (1024 * 1024)	/* of answers, unless one is larger */
#define RETRY_INTERVAL 20		/* ms until the outbox worker is told again */
#define SOONEST_LOOK 100		/* ms between looks, whatever is due */

/* an answer, until it is acknowledged */
typedef struct MailboxResponse
{
	dlist_node	node;
	uint64		tag;
	bool		lost;			/* it is the broker's again */
	uint32		size;
	char		packed[FLEXIBLE_ARRAY_MEMBER];
} MailboxResponse;

/* a durable call whose handler runs, or waits for an executor */
typedef struct Handling
{
	RinqMessageId id;			/* hash key */
	dlist_node	node;			/* in "repeated", between two attempts */
	Oid			role;
} Handling;

static dlist_head arrived = DLIST_STATIC_INIT(arrived);
static dlist_head told = DLIST_STATIC_INIT(told);	/* to the outbox worker,
													 * in this order */
static int64 tell_after;		/* not before */
static HTAB *handling;
static dlist_head repeated = DLIST_STATIC_INIT(repeated);

/* the look that is due, on the monotonic clock; 0 is none */
static RinqClockWatch wall_clock;	/* looks are due by it */
static int64 next_look;
static bool looking;			/* the outbox worker was told */
static bool looked;				/* this process has had one before */
static char renewed[RINQ_PEER_ID_SIZE]; /* mailbox that the outbox worker was
										 * told to have another one for */
static uint32 losses_seen;		/* of outbox workers */

static void take_mailbox_report(RinqChunk *chunk);

void
rinq_mailbox_responses_init(void)
{
	handling = rinq_make_hash_table("rinq durable calls", 64, sizeof(RinqMessageId), sizeof(Handling), TopMemoryContext);
	rinq_intake_set_taker(take_mailbox_report);
}

/* ---------------- what arrives ---------------- */

/*
 * Fill in what an answer says; one that makes no sense is an error for who has
 * called, as elsewhere.
 */
static void
read_response(const RinqDelivery *delivery, RinqFields *response)
{
	const RinqMessage *msg = &delivery->message;
	const char *outcome = delivery->malformed_headers ? NULL : rinq_server_outcome(msg);
	const char *problem = delivery->oversize ? "the response exceeds \"rinq.max_payload\"" :
		outcome == NULL ? "the response is malformed" : NULL;

	if (problem != NULL)
	{
		rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_OUTCOME, rinq_bytes_str(RINQ_RESPONSE_IS_ERROR));
		rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_MESSAGE, rinq_bytes_str(problem));
		return;
	}
	rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_OUTCOME, rinq_bytes_str(outcome));
	if (strcmp(outcome, RINQ_RESPONSE_IS_ERROR) == 0)
	{
		rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_MESSAGE, delivery->body);
		return;
	}
	rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_PAYLOAD, delivery->body);
	if (strcmp(outcome, RINQ_RESPONSE_IS_FAILURE) != 0)
		return;
	rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_FAILURE_TYPE, msg->target);
	rinq_put_bytes(response, RINQ_MAILBOX_RESPONSE_MESSAGE, msg->failure_message);
}

/* Drop an answer that no caller waits for, which is a rejection on the wire. */
static void
drop_response(uint64 tag)
{
	rinq_count(rinq_peer.db, RINQ_RESPONSES_DROPPED);
	(void) rinq_basic_reject(rinq_peer.conn, CHANNEL_MAILBOX, tag, false);
}

/*
 * Take what has arrived in the mailbox.
 */
void
rinq_mailbox_delivery(const RinqDelivery *delivery)
{
	RinqMessageId id;
	RinqFields	fields;
	MailboxResponse *response;
	size_t		size;

	if (rinq_mailbox_is_request(delivery->consumer_tag))
	{
		rinq_sources_request(delivery);
		return;
	}
	if (!rinq_message_id_parse(delivery->routing_key.data, delivery->routing_key.len, &id) ||
		!rinq_mailbox_owns(&id.ref.session.peer))
	{
		drop_response(delivery->delivery_tag);
		return;
	}
	rinq_fields_init(&fields, RINQ_KIND_MAILBOX_RESPONSE);
	rinq_put_message_id(&fields, RINQ_MAILBOX_RESPONSE_ID, &id);
	read_response(delivery, &fields);
	size = rinq_fields_size(&fields);
	response = MemoryContextAllocHuge(TopMemoryContext, offsetof(MailboxResponse, packed) + size);
	response->tag = delivery->delivery_tag;
	response->lost = false;
	response->size = (uint32) size;
	rinq_fields_write(&fields, response->packed);
	dlist_push_tail(&arrived, &response->node);
}

/* Forget all answers that no worker was told of. */
static void
forget_arrived(void)
{
	while (!dlist_is_empty(&arrived))
		pfree(dlist_container(MailboxResponse, node, dlist_pop_head_node(&arrived)));
}

/*
 * Note that the mailbox's channel was closed: what was not acknowledged comes
 * again.
 */
void
rinq_mailbox_responses_lost(void)
{
	dlist_iter	iter;

	forget_arrived();
	dlist_foreach(iter, &told)
		dlist_container(MailboxResponse, node, iter.cur)->lost = true;
}

/* ---------------- handlers ---------------- */

/*
 * Note that the handler of a call is not at work any more.  If its next attempt
 * is due already, it follows without a look: one that was begun meanwhile may
 * have found the call, which was dropped then, and leaves it alone for a while.
 */
static void
handler_ended(RinqInbound * request)
{
	RinqMessageId key;
	Handling   *entry;

	rinq_message_id_key(&request->id, &key);
	entry = hash_search(handling, &key, HASH_FIND, NULL);
	Assert(entry != NULL);
	if (request->settle_at != 0 && request->settle_at <= rinq_clock_ms() + 1 && !rinq_peer.stopping)
	{
		dlist_push_tail(&repeated, &entry->node);
		return;
	}
	next_look = rinq_clock_earlier(next_look, request->settle_at);
	(void) hash_search(handling, &key, HASH_REMOVE, NULL);
}

/* Run handlers again whose next attempt was due when the one before had ended. */
static void
repeat_handlers(void)
{
	while (!rinq_peer.stopping && !dlist_is_empty(&repeated))
	{
		Handling   *entry = dlist_container(Handling, node, dlist_pop_head_node(&repeated));
		RinqMessageId id = entry->id;

		rinq_server_stored_outcome(&id, entry->role, true, handler_ended);
	}
}

/*
 * Have the handler of a call run, unless it does.  When it has not ended well,
 * its row says when to look again, and else is looked at after a while.
 */
static void
run_outcome_handler(const RinqCallItem * item, bool again)
{
	RinqMessageId key;
	Handling   *entry;
	bool		found;

	next_look = rinq_clock_earlier(next_look, rinq_peer.now + RINQ_CALL_LEASE);
	if (rinq_peer.stopping)
		return;
	rinq_message_id_key(&item->id, &key);
	entry = hash_search(handling, &key, HASH_ENTER, &found);
	if (found)
		return;
	entry->role = item->role;
	rinq_server_stored_outcome(&item->id, item->role, again, handler_ended);
}

/* ---------------- reports ---------------- */

/* Have an outcome deleted that is kept for a while: a look finds out when that is over. */
static void
await_end_of_retention(void)
{
	next_look = rinq_clock_earlier(next_look, rinq_peer.now + rinq_result_retention * INT64CONST(1000) + SOONEST_LOOK);
}

/* Settle an answer by what the outbox worker has made of it. */
static void
settle_response(MailboxResponse * response, const RinqCallItem * item)
{
	if (item->state == RINQ_STORE_POSTPONED)
	{
		tell_after = rinq_peer.now + SOONEST_LOOK;
		if (response->lost)
			pfree(response);
		else
			dlist_push_tail(&arrived, &response->node);
		return;
	}
	if (item->state == RINQ_STORE_DONE)
		rinq_count(rinq_peer.db, RINQ_RESPONSES_RECEIVED);
	if (!response->lost && item->state == RINQ_STORE_DONE)
		(void) rinq_basic_ack(rinq_peer.conn, CHANNEL_MAILBOX, response->tag, false);
	else if (!response->lost)
		drop_response(response->tag);
	pfree(response);
	if (OidIsValid(item->role))
		run_outcome_handler(item, false);
	else if (item->state == RINQ_STORE_DONE)
		await_end_of_retention();
}

static void
take_stored_responses(const RinqCallItem * items, uint32 count)
{
	uint32		i;

	for (i = 0; i < count && !dlist_is_empty(&told); i++)
		settle_response(dlist_container(MailboxResponse, node, dlist_pop_head_node(&told)), &items[i]);
	Assert(i == count && dlist_is_empty(&told));
}

static void
take_look(const RinqCallLook * look, uint32 count)
{
	uint32		i;

	looking = false;
	looked = true;
	if (look->next != 0)
		next_look = rinq_clock_earlier(next_look, Max(rinq_clock_of_wall(look->next), rinq_peer.now + SOONEST_LOOK));
	for (i = 0; i < count && i < look->room; i++)
		run_outcome_handler(&look->items[i], true);
}

/* Take what the outbox worker reports. */
static void
take_mailbox_report(RinqChunk *chunk)
{
	if (chunk->kind == RINQ_CHUNK_SOURCE_READ)
		rinq_sources_take((const RinqSourceRead *) RINQ_CHUNK_DATA(chunk));
	else if (chunk->kind == RINQ_CHUNK_RESPONSES_STORED)
		take_stored_responses(rinq_chunk_items(chunk, sizeof(RinqCallItem)), chunk->count);
	else
		take_look((const RinqCallLook *) RINQ_CHUNK_DATA(chunk), chunk->count);
}

/* Have the next outbox worker told what the one that has ended had been told. */
static void
notice_lost_worker(void)
{
	if (losses_seen == rinq_outbox_link_losses())
		return;
	losses_seen = rinq_outbox_link_losses();
	while (!dlist_is_empty(&told))
	{
		MailboxResponse *response = dlist_container(MailboxResponse, node, dlist_tail_node(&told));

		dlist_delete(&response->node);
		if (response->lost)
			pfree(response);
		else
			dlist_push_head(&arrived, &response->node);
	}
	if (looking)
		next_look = rinq_peer.now;
	looking = false;
	rinq_sources_worker_lost();
	renewed[0] = '\0';
}

/* ---------------- telling the outbox worker ---------------- */

/* Count the answers of the next batch, and their bytes. */
static uint32
measure_batch(Size *bytes)
{
	uint32		room = (uint32) (MAX_HANDLING - hash_get_num_entries(handling));
	uint32		count = 0;
	dlist_iter	iter;

	*bytes = 0;
	if (hash_get_num_entries(handling) >= MAX_HANDLING)
		return 0;
	dlist_foreach(iter, &arrived)
	{
		const		MailboxResponse *response = dlist_container(MailboxResponse, node, iter.cur);

		if (count == room || (count > 0 && *bytes + response->size > MAX_BATCH_BYTES))
			break;
		*bytes += response->size;
		count++;
	}
	return count;
}

/* Hand the next batch of answers over; false when that has to be tried again. */
static bool
tell_responses(void)
{
	Size		bytes;
	uint32		count = measure_batch(&bytes);
	dsa_pointer pointer;
	RinqResponseBatch *batch;

	if (count == 0 || !rinq_outbox_link_up())
		return count == 0;
	pointer = rinq_chunk_alloc(RINQ_CHUNK_RESPONSES,
							   Max(offsetof(RinqResponseBatch, data) + bytes, count * sizeof(RinqCallItem)));
	if (!DsaPointerIsValid(pointer))
		return false;
	batch = (RinqResponseBatch *) RINQ_CHUNK_DATA(rinq_chunk(pointer));
	batch->bytes = 0;
	rinq_chunk(pointer)->count = count;
	while (count-- > 0)
	{
		MailboxResponse *response = dlist_container(MailboxResponse, node, dlist_pop_head_node(&arrived));

		memcpy(batch->data + batch->bytes, response->packed, response->size);
		batch->bytes += response->size;
		dlist_push_tail(&told, &response->node);
	}
	rinq_sendqueue_order(rinq_peer.db, pointer);
	return true;
}

/* Have calls looked at whose time has come; false when that has to be tried again. */
static bool
tell_look(void)
{
	uint32		room = MAX_HANDLING;
	RinqCallLook *look;
	dsa_pointer pointer;

	if (!rinq_outbox_link_up())
		return false;
	pointer = rinq_chunk_alloc(RINQ_CHUNK_CALLS_LOOK, offsetof(RinqCallLook, items) + room * sizeof(RinqCallItem));
	if (!DsaPointerIsValid(pointer))
		return false;
	look = (RinqCallLook *) RINQ_CHUNK_DATA(rinq_chunk(pointer));
	memset(look, 0, offsetof(RinqCallLook, items));
	look->room = (uint32) Max(0, MAX_HANDLING - hash_get_num_entries(handling));
	look->first = !looked;
	rinq_sendqueue_order(rinq_peer.db, pointer);
	looking = true;
	next_look = 0;
	return true;
}

/* Have another mailbox taken, since another server has this one. */
static void
renew_mailbox(void)
{
	char		id[RINQ_PEER_ID_SIZE];

	if (!rinq_mailbox_is_taken(id) || strcmp(renewed, id) == 0 || !rinq_outbox_link_up())
		return;
	if (rinq_outbox_tell(RINQ_CHUNK_NEW_MAILBOX, id, sizeof(id), 1))
		strlcpy(renewed, id, sizeof(renewed));
}

/* Learn of looks that others have become aware of. */
static void
hear_of_looks(void)
{
	uint64		due = pg_atomic_exchange_u64(&rinq_peer.db->durable_due, 0);

	if (due != 0)
		next_look = rinq_clock_earlier(next_look, Max(rinq_clock_of_wall((int64) due), 1));
	if (next_look != 0 && rinq_clock_stepped(&wall_clock, rinq_peer.now))
		next_look = rinq_peer.now;
	if (!looked && !looking && next_look == 0 && rinq_mailbox_wanted())
		next_look = rinq_peer.now;
}

/*
 * Have the outbox worker do what there is to do.  Returns when to look again, or
 * 0.
 */
int64
rinq_mailbox_responses_step(void)
{
	int64		next = 0;

	notice_lost_worker();
	repeat_handlers();
	hear_of_looks();
	renew_mailbox();
	next = rinq_sources_step();
	if (!dlist_is_empty(&arrived) && dlist_is_empty(&told) &&
		(rinq_peer.now < tell_after || !tell_responses()))
		next = rinq_clock_earlier(next, Max(tell_after, rinq_peer.now + RETRY_INTERVAL));
	if (looking || next_look == 0 || rinq_peer.stopping)
		return next;
	if (rinq_peer.now >= next_look && tell_look())
		return next;
	return rinq_clock_earlier(next, Max(rinq_clock_earlier(next_look, wall_clock.next), rinq_peer.now + RETRY_INTERVAL));
}
