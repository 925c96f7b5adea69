/*-------------------------------------------------------------------------
 *
 * session_cache.c
 *	  Sessions of other peers: asking their owners, and what is known of them.
 *
 * What an owner has told is kept with the revision it was told at, and answers
 * later questions where that is provably right (section 5 of the protocol).
 * It is forgotten when it was not used for a while, or when there is too much
 * of it, what was used least recently first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "guc.h"
#include "peer/command/invoker.h"
#include "peer/command/pending_calls.h"
#include "peer/operation/session_cache.h"
#include "peer/process.h"
#include "peer/operation/session_results.h"
#include "peer/turn.h"
#include "protocol/payload.h"
#include "protocol/sess_message.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* what a session takes, its attributes not counted; about */
#define REMOTE_BYTES 256

typedef struct RemoteKey
{
	uint64		clock;
	uint32		rand;
	uint32		seq;
} RemoteKey;

typedef struct Remote
{
	RemoteKey	key;			/* hash key */
	uint32		revision;		/* the highest one known */
	RinqAttributeTable *attributes; /* also of those known to be missing */
	int64		used_at;
	dlist_node	node;			/* in "by_use" */
} Remote;

static HTAB *remotes;
static dlist_head by_use;		/* the latest first */
static MemoryContext remote_context;
static Size bytes_used;
static int64 next_prune;

void
rinq_session_cache_init(void)
{
	remotes = rinq_make_hash_table("rinq remote sessions", 128, sizeof(RemoteKey), sizeof(Remote), TopMemoryContext);
	remote_context = AllocSetContextCreate(TopMemoryContext, "rinq remote attributes",
										   ALLOCSET_DEFAULT_SIZES);
	dlist_init(&by_use);
	bytes_used = 0;
	next_prune = 0;
}

static RemoteKey
remote_key(const RinqSessionId *id)
{
	RemoteKey	key;

	memset(&key, 0, sizeof(key));
	key.clock = id->peer.clock;
	key.rand = id->peer.rand;
	key.seq = id->seq;
	return key;
}

static void
forget_remote(Remote * remote)
{
	Assert(bytes_used >= REMOTE_BYTES + rinq_attributes_size(remote->attributes));
	bytes_used -= REMOTE_BYTES + rinq_attributes_size(remote->attributes);
	rinq_attributes_free(remote->attributes);
	dlist_delete(&remote->node);
	hash_search(remotes, &remote->key, HASH_REMOVE, NULL);
}

/* Find what is known of a session; made if need be. */
static Remote *
find_remote(const RinqSessionId *id, bool make)
{
	RemoteKey	key = remote_key(id);
	bool		found;
	Remote	   *remote = hash_search(remotes, &key, make ? HASH_ENTER : HASH_FIND, &found);

	if (remote == NULL)
		return NULL;
	if (found)
		dlist_delete(&remote->node);
	else
	{
		remote->revision = 0;
		remote->attributes = NULL;
		bytes_used += REMOTE_BYTES;
	}
	dlist_push_head(&by_use, &remote->node);
	remote->used_at = rinq_peer.now;
	return remote;
}

static Remote *
least_used(void)
{
	return dlist_is_empty(&by_use) ? NULL :
		dlist_container(Remote, node, dlist_tail_node(&by_use));
}

/*
 * Forget what exceeds the memory for it, as far as the slice goes; the last
 * used one, too, when changing it would take long for its number of
 * attributes.
 */
static void
shrink_cache(void)
{
	Remote	   *remote;

	if (!dlist_is_empty(&by_use))
	{
		remote = dlist_container(Remote, node, dlist_head_node(&by_use));
		if (rinq_attributes_count(remote->attributes) > RINQ_MAX_ATTRIBUTES)
			forget_remote(remote);
	}
	while (bytes_used > (Size) rinq_session_cache * 1024 * 1024 && (remote = least_used()) != NULL)
	{
		forget_remote(remote);
		if (rinq_slice_over())
			break;
	}
}

/*
 * Forget what was not used for two intervals.  Returns when to look again,
 * or 0.
 */
int64
rinq_session_cache_prune(void)
{
	int64		interval = (int64) rinq_prune_interval * 1000;
	Remote	   *remote;

	if (dlist_is_empty(&by_use))
		return 0;
	if (next_prune > rinq_peer.now && next_prune <= rinq_peer.now + interval)
		return next_prune;
	while ((remote = least_used()) != NULL && rinq_peer.now - remote->used_at >= 2 * interval)
	{
		forget_remote(remote);
		if (rinq_slice_over())
			return rinq_peer.now;
	}
	next_prune = rinq_peer.now + interval;
	return next_prune;
}

static void
put_remote_attribute(Remote * remote, RinqBytes namespace, const RinqAttribute *attribute)
{
	bytes_used -= rinq_attributes_size(remote->attributes);
	rinq_attribute_put(&remote->attributes, remote_context, namespace, attribute);
	bytes_used += rinq_attributes_size(remote->attributes);
}

static void
remove_remote_attribute(Remote * remote, RinqBytes namespace, RinqBytes key)
{
	bytes_used -= rinq_attributes_size(remote->attributes);
	rinq_attribute_remove(remote->attributes, namespace, key);
	bytes_used += rinq_attributes_size(remote->attributes);
}

static void
finish_with_remote_ref(uint32 index, uint32 revision)
{
	RinqRef		ref = rinq_peer.slots->slot[index].ref;

	ref.revision = revision;
	rinq_session_finish_ref(index, &ref);
}

static void take_owner_response(uint32 index, const RinqDelivery *delivery);

static void
ask_owner(uint32 index, const char *command, StringInfo body)
{
	rinq_invoker_ask(index, &rinq_peer.slots->slot[index].ref.session.peer, command,
					 rinq_bytes(body->data, body->len), take_owner_response);
}

typedef enum Knowledge
{
	UNKNOWN,
	KNOWN,
	KNOWN_STALE
} Knowledge;

/*
 * Say what is provable about an attribute at a revision; if known, *attribute
 * has its value.
 */
static Knowledge
consult_cache(Remote * remote, RinqBytes namespace, uint32 revision, RinqAttribute *attribute)
{
	RinqAttribute found;

	if (revision == 0)
		return KNOWN;			/* where nothing was set yet */
	if (remote == NULL || !rinq_attribute_find(remote->attributes, namespace, attribute->key, &found))
		return UNKNOWN;
	if (found.created > revision)
		return KNOWN;			/* not there yet */
	if (found.updated > revision)
		return KNOWN_STALE;
	if (!found.frozen && found.fetched < revision)
		return UNKNOWN;
	found.key = attribute->key;
	*attribute = found;
	return KNOWN;
}

/* answer from what is known; false when the owner has to be asked */
static bool
finish_get_from_cache(uint32 index, Remote * remote, uint32 revision, RinqBytes namespace,
					  RinqAttribute *attributes, int count)
{
	bool		known = true;
	int			i;

	for (i = 0; i < count; i++)
	{
		switch (consult_cache(remote, namespace, revision, &attributes[i]))
		{
			case KNOWN_STALE:
				rinq_session_finish(index, RINQ_OUTCOME_STALE_FETCH, attributes[i].key);
				return true;
			case UNKNOWN:
				known = false;
				break;
			case KNOWN:
				break;
		}
	}
	if (!known)
		return false;
	rinq_session_finish_attributes(index, attributes, count);
	return true;
}

static void
get_remote_attributes(uint32 index, RinqSlot *slot, Remote * remote, const RinqFields *fields,
					  RinqAttribute *attributes, int count, StringInfo body)
{
	RinqAttribute *missing = attributes;
	int			num_missing = count;
	int			i;

	if (!slot->current)
	{
		if (finish_get_from_cache(index, remote, slot->ref.revision, rinq_get_bytes(fields, RINQ_OP_NAMESPACE),
								  attributes, count))
			return;
		missing = palloc_extended(Max(count, 1) * sizeof(RinqAttribute), MCXT_ALLOC_HUGE);
		num_missing = 0;
		for (i = 0; i < count; i++)
		{
			if (consult_cache(remote, rinq_get_bytes(fields, RINQ_OP_NAMESPACE), slot->ref.revision,
							  &attributes[i]) == UNKNOWN)
				missing[num_missing++] = attributes[i];
		}
	}
	rinq_sess_encode_fetch(body, slot->ref.session.seq, rinq_get_bytes(fields, RINQ_OP_NAMESPACE), missing,
						   num_missing);
	ask_owner(index, "fetch", body);
}

/* Tell whether a change is to an attribute that is known to be frozen. */
static bool
is_refused(Remote * remote, RinqBytes namespace, const RinqAttribute *attribute)
{
	RinqAttribute found;

	return remote != NULL &&
		rinq_attribute_find(remote->attributes, namespace, attribute->key, &found) &&
		found.frozen &&
		(!attribute->frozen || !rinq_bytes_equal(found.value, attribute->value));
}

static void
update_remote(uint32 index, RinqSlot *slot, Remote * remote, const RinqFields *fields,
			  RinqAttribute *attributes, int count, StringInfo body)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		if (is_refused(remote, rinq_get_bytes(fields, RINQ_OP_NAMESPACE), &attributes[i]))
		{
			rinq_session_finish(index, RINQ_OUTCOME_FROZEN, attributes[i].key);
			return;
		}
	}
	rinq_sess_encode_update(body, slot->ref.session.seq, slot->ref.revision,
							rinq_get_bytes(fields, RINQ_OP_NAMESPACE), attributes, count);
	ask_owner(index, "update", body);
}

static void
start_remote_operation(uint32 index, RinqSlot *slot, StringInfo body)
{
	RinqFields	fields;
	Remote	   *remote = find_remote(&slot->ref.session, false);
	RinqAttribute *attributes;
	RinqBytes	frozen_key;
	int			count;

	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	if (!rinq_attributes_unpack(rinq_get_bytes(&fields, RINQ_OP_ATTRIBUTES), &attributes, &count))
	{
		rinq_session_finish(index, RINQ_OUTCOME_REFUSED, rinq_bytes_str("the attributes cannot be read"));
		return;
	}
	if (slot->op == RINQ_OP_REVISION)
	{
		rinq_sess_encode_fetch(body, slot->ref.session.seq, rinq_bytes(NULL, 0), NULL, 0);
		ask_owner(index, "fetch", body);
		return;
	}
	if (slot->op == RINQ_OP_GET)
	{
		get_remote_attributes(index, slot, remote, &fields, attributes, count, body);
		return;
	}
	if (slot->op != RINQ_OP_UPDATE && slot->op != RINQ_OP_CLEAR && slot->op != RINQ_OP_DESTROY)
	{
		/* what is left can only be done to sessions of this peer */
		rinq_session_finish(index, RINQ_OUTCOME_NOT_FOUND, rinq_bytes(NULL, 0));
		return;
	}
	if (slot->current || (remote != NULL && remote->revision > slot->ref.revision))
	{
		rinq_session_finish(index, RINQ_OUTCOME_STALE, rinq_bytes(NULL, 0));
		return;
	}
	switch (slot->op)
	{
		case RINQ_OP_UPDATE:
			update_remote(index, slot, remote, &fields, attributes, count, body);
			break;
		case RINQ_OP_CLEAR:
			if (remote != NULL &&
				rinq_attributes_frozen(remote->attributes, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), &frozen_key))
			{
				rinq_session_finish(index, RINQ_OUTCOME_FROZEN, frozen_key);
				break;
			}
			rinq_sess_encode_clear(body, slot->ref.session.seq, slot->ref.revision,
								   rinq_get_bytes(&fields, RINQ_OP_NAMESPACE));
			ask_owner(index, "clear", body);
			break;
		case RINQ_OP_DESTROY:
			rinq_sess_encode_destroy(body, slot->ref.session.seq, slot->ref.revision);
			ask_owner(index, "destroy", body);
			break;
		case RINQ_OP_CALL:
		case RINQ_OP_CREATE:
		case RINQ_OP_REVISION:
		case RINQ_OP_GET:
		case RINQ_OP_ALLOCATE_ID:
		case RINQ_OP_ON_RESPONSE:
		case RINQ_OP_LISTEN:
		case RINQ_OP_UNLISTEN:
		case RINQ_OP_FETCH:
		case RINQ_OP_LIST_SESSIONS:
		case RINQ_OP_LIST_ATTRIBUTES:
		case RINQ_OP_LIST_SUBSCRIPTIONS:
		case RINQ_OP_LIST_UNREADY:
			Assert(false);		/* done above, or refused there */
			break;
	}
}

/*
 * Do what a backend asks about a session of another peer, or begin to.
 */
void
rinq_session_cache_operation(uint32 index)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rinq remote operation",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	StringInfoData body;

	initStringInfo(&body);
	start_remote_operation(index, &rinq_peer.slots->slot[index], &body);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Carry what is known at the revision of the reference over to the next one,
 * where it is true but for what was just changed.
 */
static void
carry_over(Remote * remote, const RinqSlot *slot, uint32 revision)
{
	if (revision == slot->ref.revision + 1)
		rinq_attributes_refetched(remote->attributes, slot->ref.revision, revision);
}

/* Note at which revision an owner says its session is. */
static Remote *
learn_revision(const RinqSessionId *id, uint32 revision)
{
	Remote	   *remote = find_remote(id, true);

	remote->revision = Max(remote->revision, revision);
	return remote;
}

/* Keep what the owner has answered to a fetch, and finish if that is all. */
static void
take_fetched(uint32 index, RinqSlot *slot, const RinqSessBody *body)
{
	Remote	   *remote = learn_revision(&slot->ref.session, body->revision);
	RinqFields	fields;
	RinqAttribute *attributes;
	uint32		revision = slot->current ? body->revision : slot->ref.revision;
	int			count;
	int			i;

	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	(void) rinq_attributes_unpack(rinq_get_bytes(&fields, RINQ_OP_ATTRIBUTES), &attributes, &count);
	for (i = 0; i < count; i++)
	{
		RinqAttribute known;

		/* what it does not mention, it does not have; unless it was not asked */
		if (!slot->current &&
			consult_cache(remote, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), revision, &attributes[i]) != UNKNOWN)
			continue;
		memset(&known, 0, sizeof(known));
		known.key = attributes[i].key;
		known.fetched = body->revision;
		put_remote_attribute(remote, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), &known);
	}
	for (i = 0; i < body->num_attributes; i++)
	{
		body->attributes[i].fetched = body->revision;
		put_remote_attribute(remote, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), &body->attributes[i]);
	}
	if (!finish_get_from_cache(index, remote, revision, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), attributes, count))
		rinq_session_finish(index, RINQ_OUTCOME_STALE_FETCH, rinq_bytes(NULL, 0));
}

/*
 * Keep what is known after the owner has made an update: what was known at the
 * revision before is known at the new one, but for what has changed.
 */
static void
take_updated(uint32 index, RinqSlot *slot, const RinqSessBody *body)
{
	Remote	   *remote = learn_revision(&slot->ref.session, body->revision);
	RinqFields	fields;
	RinqAttribute *attributes;
	int			count;
	int			i;

	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	(void) rinq_attributes_unpack(rinq_get_bytes(&fields, RINQ_OP_ATTRIBUTES), &attributes, &count);
	carry_over(remote, slot, body->revision);
	for (i = 0; i < count; i++)
		remove_remote_attribute(remote, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), attributes[i].key);
	for (i = 0; i < count && i < body->num_created; i++)
	{
		/* of one that is new, all is known */
		if (body->created[i] != body->revision)
			continue;
		attributes[i].created = body->revision;
		attributes[i].updated = body->revision;
		attributes[i].fetched = body->revision;
		put_remote_attribute(remote, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE), &attributes[i]);
	}
	finish_with_remote_ref(index, body->revision);
}

static void
take_cleared(uint32 index, RinqSlot *slot, const RinqSessBody *body)
{
	Remote	   *remote = learn_revision(&slot->ref.session, body->revision);
	RinqFields	fields;

	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	bytes_used -= rinq_attributes_size(remote->attributes);
	rinq_attributes_remove_namespace(remote->attributes, rinq_get_bytes(&fields, RINQ_OP_NAMESPACE));
	bytes_used += rinq_attributes_size(remote->attributes);
	carry_over(remote, slot, body->revision);
	finish_with_remote_ref(index, body->revision);
}

static void
forget_destroyed(const RinqSessionId *id)
{
	Remote	   *remote = find_remote(id, false);

	if (remote != NULL)
		forget_remote(remote);
}

static void
handle_owner_success(uint32 index, RinqSlot *slot, RinqBytes data)
{
	RinqSessBody body;

	if (!rinq_sess_decode(data, &body))
	{
		rinq_session_finish(index, RINQ_OUTCOME_MALFORMED, rinq_bytes_str("its payload cannot be read"));
		return;
	}
	switch (slot->op)
	{
		case RINQ_OP_REVISION:
			(void) learn_revision(&slot->ref.session, body.revision);
			finish_with_remote_ref(index, body.revision);
			break;
		case RINQ_OP_GET:
			take_fetched(index, slot, &body);
			break;
		case RINQ_OP_UPDATE:
			take_updated(index, slot, &body);
			break;
		case RINQ_OP_CLEAR:
			take_cleared(index, slot, &body);
			break;
		case RINQ_OP_DESTROY:
			forget_destroyed(&slot->ref.session);
			rinq_session_finish(index, RINQ_OUTCOME_SUCCESS, rinq_bytes(NULL, 0));
			break;
		case RINQ_OP_CALL:
		case RINQ_OP_CREATE:
		case RINQ_OP_ALLOCATE_ID:
		case RINQ_OP_ON_RESPONSE:
		case RINQ_OP_LISTEN:
		case RINQ_OP_UNLISTEN:
		case RINQ_OP_FETCH:
		case RINQ_OP_LIST_SESSIONS:
		case RINQ_OP_LIST_ATTRIBUTES:
		case RINQ_OP_LIST_SUBSCRIPTIONS:
		case RINQ_OP_LIST_UNREADY:
			Assert(false);		/* no owner is asked for that */
			break;
	}
}

static void
handle_owner_failure(uint32 index, RinqSlot *slot, RinqBytes type)
{
	if (rinq_bytes_are(type, "not-found"))
	{
		forget_destroyed(&slot->ref.session);
		rinq_session_finish(index, RINQ_OUTCOME_NOT_FOUND, rinq_bytes(NULL, 0));
	}
	else if (rinq_bytes_are(type, "stale"))
		rinq_session_finish(index, RINQ_OUTCOME_STALE, rinq_bytes(NULL, 0));
	else if (rinq_bytes_are(type, "frozen"))
		rinq_session_finish(index, RINQ_OUTCOME_FROZEN, rinq_bytes(NULL, 0));
	else
		rinq_session_finish(index, RINQ_OUTCOME_MALFORMED, rinq_bytes_str("its failure type is unknown"));
}

/*
 * Take the response of the owner of a session.
 */
static void
take_owner_response(uint32 index, const RinqDelivery *delivery)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqBytes	type = delivery->message.type;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rinq remote response",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	if (delivery->oversize)
		rinq_session_finish(index, RINQ_OUTCOME_TOO_LARGE, rinq_bytes(NULL, 0));
	else if (delivery->malformed_headers)
		rinq_session_finish(index, RINQ_OUTCOME_MALFORMED, rinq_bytes_str("its headers cannot be read"));
	else if (rinq_bytes_are(type, "s"))
		handle_owner_success(index, slot, delivery->body);
	else if (rinq_bytes_are(type, "f"))
		handle_owner_failure(index, slot, delivery->message.target);
	else if (rinq_bytes_are(type, "e"))
		rinq_session_finish(index, RINQ_OUTCOME_ERROR, delivery->body);
	else
		rinq_session_finish(index, RINQ_OUTCOME_MALFORMED, rinq_bytes_str("its type is unknown"));
	shrink_cache();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
