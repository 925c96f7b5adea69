/*-------------------------------------------------------------------------
 *
 * pending_calls.c
 *	  Calls, and operations on sessions, that wait in their slots: matching
 *	  responses to them, and ending them.
 *
 * A response is matched by its routing key, which is the id of the request.  The
 * backend watches its own deadline, and abandons the call when it passes; a
 * response that comes later finds no call, and is dropped and counted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "peer/command/pending_calls.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* a request that is waiting for its response */
typedef struct PendingKey
{
	uint32		session;
	uint32		revision;
	uint32		message;
} PendingKey;

typedef struct Pending
{
	PendingKey	key;			/* hash key */
	RinqWaiter	call;
	RinqResponseHandler handler;	/* of the response to a question; NULL: it
									 * is that to a call */
} Pending;

/* for each slot, the request it waits for; message 0 is none */
static PendingKey * pending_of_slot;
static HTAB *pending;

void
rinq_pending_init(void)
{
	pending = rinq_make_hash_table("rinq pending calls", 256, sizeof(PendingKey), sizeof(Pending), TopMemoryContext);
	pending_of_slot = MemoryContextAllocZero(TopMemoryContext,
											 rinq_peer.slots->num_calls * sizeof(PendingKey));
}

/*
 * Forget the response that a slot waits for, if it does.
 */
void
rinq_pending_forget(uint32 index)
{
	PendingKey *key = &pending_of_slot[index];

	Assert(index < rinq_peer.slots->num_calls);
	if (key->message == 0)
		return;
	if (key->session != 0)
		rinq_own_session_pending(key->session, -1);
	if (hash_search(pending, key, HASH_REMOVE, NULL) == NULL)
		Assert(false);			/* a request that waits is in the table */
	memset(key, 0, sizeof(*key));
}

/*
 * Expect a response to this request for the slot; "handler" gets it, or with NULL
 * the backend that made the call.
 */
void
rinq_pending_expect(uint32 index, const RinqMessageId *id, RinqResponseHandler handler)
{
	PendingKey *key = &pending_of_slot[index];
	Pending    *entry;

	Assert(index < rinq_peer.slots->num_calls && key->message == 0 && id->seq != 0);
	key->session = id->ref.session.seq;
	key->revision = id->ref.revision;
	key->message = id->seq;
	entry = hash_search(pending, key, HASH_ENTER, NULL);
	entry->call.index = index;
	entry->call.serial = rinq_peer.slots->slot[index].serial;
	entry->handler = handler;
}

/* Make a result of a call or an operation that has nothing but a text. */
static void
init_text_result(RinqFields *result, RinqOperation op, const char *text)
{
	rinq_fields_init(result, rinq_result_kind(op));
	rinq_put_bytes(result, op == RINQ_OP_CALL ? RINQ_RESULT_TEXT : RINQ_OP_RESULT_TEXT,
				   rinq_bytes_str(text));
}

/*
 * Put the result of a call into its slot and wake the backend; false when that
 * has stopped waiting.  "written" is false when it gets a text instead of a
 * result that there is no room for.
 */
static bool
put_result(uint32 index, RinqOutcome outcome, const RinqFields *result, bool *written)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	int			owner = slot->owner;

	Assert(index < rinq_peer.slots->num_calls);
	Assert(result->kind == rinq_result_kind(slot->op));
	rinq_pending_forget(index);
	slot->outcome = outcome;
	*written = rinq_slot_write(slot, result);
	if (!*written)
	{
		RinqFields	text;

		init_text_result(&text, slot->op, "the response does not fit into \"rinq.payload_memory\"");
		slot->outcome = RINQ_OUTCOME_REFUSED;
		(void) rinq_slot_write(slot, &text);
	}
	/* otherwise it is abandoned, and freed when the inbox says so */
	if (!rinq_slot_move(slot, RINQ_SLOT_QUEUED, RINQ_SLOT_DONE))
		return false;
	rinq_peer_wake_later(owner);
	return true;
}

/*
 * End a call: put the result into its slot and wake the backend, unless
 * that has stopped waiting.  True when it gets all of the result.
 */
bool
rinq_pending_finish(uint32 index, RinqOutcome outcome, const RinqFields *result)
{
	bool		written;

	return put_result(index, outcome, result, &written) && written;
}

/* End a call with nothing but a text; false when no backend waits for it. */
static bool
put_text_result(uint32 index, RinqOutcome outcome, const char *text)
{
	RinqFields	result;
	bool		written;

	init_text_result(&result, rinq_peer.slots->slot[index].op, text);
	return put_result(index, outcome, &result, &written);
}

/*
 * End a call with nothing but a text, which says more than the outcome.
 */
void
rinq_pending_finish_text(uint32 index, RinqOutcome outcome, const char *text)
{
	(void) put_text_result(index, outcome, text);
}

/* Put a response with a payload, or an error, into the slot of its call; false when no backend waits for it. */
static bool
put_response(uint32 index, const RinqDelivery *delivery)
{
	const RinqMessage *msg = &delivery->message;
	RinqOutcome outcome = RINQ_OUTCOME_SUCCESS;
	RinqFields	result;
	bool		written;

	rinq_fields_init(&result, RINQ_KIND_RESULT);
	switch (msg->type.data[0])
	{
		case 's':
			rinq_put_bytes(&result, RINQ_RESULT_PAYLOAD, delivery->body);
			break;
		case 'e':
			outcome = RINQ_OUTCOME_ERROR;
			rinq_put_bytes(&result, RINQ_RESULT_TEXT, delivery->body);
			break;
		default:
			outcome = RINQ_OUTCOME_FAILURE;
			rinq_put_bytes(&result, RINQ_RESULT_FAILURE_TYPE, msg->target);
			rinq_put_bytes(&result, RINQ_RESULT_TEXT, msg->failure_message);
			rinq_put_bytes(&result, RINQ_RESULT_PAYLOAD, delivery->body);
			break;
	}
	return put_result(index, outcome, &result, &written);
}

/* Hand a response to the call it is for; false when no backend waits for it. */
static bool
deliver_response(uint32 index, const RinqDelivery *delivery)
{
	const RinqMessage *msg = &delivery->message;
	char		kind = msg->type.len == 1 ? msg->type.data[0] : '\0';

	if (delivery->oversize)
		return put_text_result(index, RINQ_OUTCOME_TOO_LARGE, "");
	if (delivery->malformed_headers)
		return put_text_result(index, RINQ_OUTCOME_MALFORMED, "its headers cannot be read");
	if (kind == 's' || kind == 'e' || (kind == 'f' && msg->target.len > 0))
		return put_response(index, delivery);
	return put_text_result(index, RINQ_OUTCOME_MALFORMED,
						   kind == 'f' ? "it is a failure without a type" : "its type is unknown");
}

/*
 * Hand a response to what waits for it: false when that has stopped waiting,
 * whether or not the peer was told so already.
 */
static bool
hand_response(Pending * entry, const RinqDelivery *delivery)
{
	uint32		index = entry->call.index;

	if (!rinq_waits(&entry->call))
	{
		rinq_pending_forget(index);
		return false;
	}
	if (entry->handler == NULL)
		return deliver_response(index, delivery);
	entry->handler(index, delivery);
	return true;
}

/*
 * Match a response that has arrived to the call, or the question, that waits for
 * it, by its routing key, which is the id of the request.
 */
void
rinq_pending_response(const RinqDelivery *delivery)
{
	RinqMessageId id;
	PendingKey	key;
	Pending    *entry = NULL;

	if (rinq_message_id_parse(delivery->routing_key.data, delivery->routing_key.len, &id) &&
		rinq_peer_id_equal(&id.ref.session.peer, &rinq_peer.id))
	{
		memset(&key, 0, sizeof(key));
		key.session = id.ref.session.seq;
		key.revision = id.ref.revision;
		key.message = id.seq;
		entry = hash_search(pending, &key, HASH_FIND, NULL);
	}

	if (entry != NULL && hand_response(entry, delivery))
	{
		rinq_count(rinq_peer.db, RINQ_RESPONSES_RECEIVED);
		(void) rinq_basic_ack(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
		return;
	}

	/* late, or repeated */
	rinq_count(rinq_peer.db, RINQ_RESPONSES_DROPPED);
	(void) rinq_basic_reject(rinq_peer.conn, delivery->channel, delivery->delivery_tag, false);
}

/*
 * Do calls wait for their responses?
 */
bool
rinq_pending_any(void)
{
	return hash_get_num_entries(pending) > 0;
}
