/*-------------------------------------------------------------------------
 *
 * session_requests.c
 *	  What backends ask about sessions.
 *
 * Sessions of this peer are worked on here and now; for those of others,
 * session_cache.c asks their owner.  Who may use a session of this peer: its
 * own process, the role it belongs to, and a role that the backend vouches
 * for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/command/pending_calls.h"
#include "peer/notification/buffer.h"
#include "peer/notification/notifications.h"
#include "peer/notification/subscriptions.h"
#include "peer/operation/readiness.h"
#include "peer/operation/session_cache.h"
#include "peer/operation/session_requests.h"
#include "peer/process.h"
#include "peer/operation/session_results.h"
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

#define PAGE_SESSIONS 500		/* in one list of sessions */
#define PAGE_BYTES (1024 * 1024)	/* of a list */

/* answer with a session at its revision */
static void
finish_with_own_ref(uint32 index, uint32 seq, uint32 revision)
{
	RinqRef		ref;

	ref.session.peer = rinq_peer.id;
	ref.session.seq = seq;
	ref.revision = revision;
	rinq_session_finish_ref(index, &ref);
}

static void
create_own_session(uint32 index, const RinqSlot *slot)
{
	RinqSession *session = rinq_own_session_create(slot->asker);

	if (session == NULL)
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, RINQ_NO_SESSION_MEMORY);
	else
		finish_with_own_ref(index, session->seq, session->revision);
}

/*
 * Get attributes at a revision: one that came later is not there yet, and of
 * one that was changed later the value is not known any more.
 */
static void
get_own_attributes(uint32 index, RinqSession * session, uint32 revision, const RinqFields *fields)
{
	RinqAttribute *attributes;
	int			count;
	int			i;

	if (!rinq_attributes_unpack(rinq_get_bytes(fields, RINQ_OP_ATTRIBUTES), &attributes, &count))
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "the keys cannot be read");
		return;
	}
	for (i = 0; i < count; i++)
	{
		RinqAttribute found;

		if (!rinq_attribute_find(session->attributes, rinq_get_bytes(fields, RINQ_OP_NAMESPACE),
								 attributes[i].key, &found) || found.created > revision)
			continue;
		if (found.updated > revision)
		{
			rinq_session_finish(index, RINQ_OUTCOME_STALE_FETCH, attributes[i].key);
			return;
		}
		attributes[i] = found;
	}
	rinq_session_finish_attributes(index, attributes, count);
}

static void
update_own_session(uint32 index, RinqSession * session, uint32 revision, const RinqFields *fields)
{
	RinqAttribute *attributes;
	RinqBytes	detail = rinq_bytes(NULL, 0);
	RinqOutcome outcome;
	uint32		seq = session->seq;
	int			count;

	if (!rinq_attributes_unpack(rinq_get_bytes(fields, RINQ_OP_ATTRIBUTES), &attributes, &count))
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "the attributes cannot be read");
		return;
	}

	/* nothing to do is nothing new, for the session's own peer */
	if (count == 0 && session->revision == revision)
	{
		finish_with_own_ref(index, seq, revision);
		return;
	}
	outcome = rinq_own_session_update(seq, revision, rinq_get_bytes(fields, RINQ_OP_NAMESPACE),
									  attributes, count, &detail);
	if (outcome == RINQ_OUTCOME_SUCCESS)
		finish_with_own_ref(index, seq, revision + 1);
	else
		rinq_session_finish(index, outcome, detail);
}

static void
clear_own_session(uint32 index, RinqSession * session, uint32 revision, const RinqFields *fields)
{
	RinqBytes	detail = rinq_bytes(NULL, 0);
	uint32		seq = session->seq;
	RinqOutcome outcome = rinq_own_session_clear(seq, revision,
												 rinq_get_bytes(fields, RINQ_OP_NAMESPACE),
												 &detail);

	if (outcome == RINQ_OUTCOME_SUCCESS)
		finish_with_own_ref(index, seq, revision + 1);
	else
		rinq_session_finish(index, outcome, detail);
}

/* Allocate the next message id of a session that belongs to no process. */
static void
allocate_own_id(uint32 index, RinqSession * session)
{
	RinqMessageId id;
	RinqFields	result;

	if (session->client != 0)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "it is the session of a connection");
		return;
	}
	if (session->next_message == PG_UINT32_MAX)
		rinq_own_session_renumber(session);
	id.ref.session.peer = rinq_peer.id;
	id.ref.session.seq = session->seq;
	id.ref.revision = session->revision;
	id.seq = session->next_message++;
	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_message_id(&result, RINQ_OP_RESULT_ID, &id);
	rinq_put_flag(&result, RINQ_OP_RESULT_UNCORRELATED, session->on_response != NULL);
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}

static void
append_session(StringInfo rows, const RinqSession * session)
{
	StringInfoData namespaces;
	RinqFields	row;

	initStringInfo(&namespaces);
	rinq_subscriptions_list(session, &namespaces);
	rinq_fields_init(&row, RINQ_KIND_SESSION);
	rinq_put_uint32(&row, RINQ_SESSION_NUMBER, session->seq);
	rinq_put_uint32(&row, RINQ_SESSION_REVISION, session->revision);
	rinq_put_oid(&row, RINQ_SESSION_ROLE, session->role);
	if (session->pid != 0)
		rinq_put_uint32(&row, RINQ_SESSION_PID, (uint32) session->pid);
	rinq_put_uint32(&row, RINQ_SESSION_PENDING, (uint32) session->pending);
	rinq_put_uint32(&row, RINQ_SESSION_BUFFERED, (uint32) session->num_buffered);
	rinq_put_int64(&row, RINQ_SESSION_CREATED, session->created);
	rinq_put_bytes(&row, RINQ_SESSION_NAMESPACES, rinq_bytes(namespaces.data, namespaces.len));
	rinq_fields_append(rows, &row);
	pfree(namespaces.data);
}

static void
append_attribute(StringInfo rows, const RinqSession * session, const RinqAttributeEntry *entry)
{
	StringInfoData list;
	RinqAttribute attribute;
	RinqFields	row;

	attribute.key = rinq_entry_key(entry);
	attribute.value = rinq_entry_value(entry);
	attribute.frozen = entry->frozen;
	attribute.created = entry->created;
	attribute.updated = entry->updated;
	initStringInfo(&list);
	rinq_attributes_pack(&list, &attribute, 1);
	rinq_fields_init(&row, RINQ_KIND_SESSION_ATTRIBUTE);
	rinq_put_uint32(&row, RINQ_SESSION_ATTRIBUTE_SESSION, session->seq);
	rinq_put_oid(&row, RINQ_SESSION_ATTRIBUTE_ROLE, session->role);
	rinq_put_bytes(&row, RINQ_SESSION_ATTRIBUTE_NAMESPACE, rinq_entry_namespace(entry));
	rinq_put_bytes(&row, RINQ_SESSION_ATTRIBUTE_ATTRIBUTE, rinq_bytes(list.data, list.len));
	rinq_fields_append(rows, &row);
	pfree(list.data);
}

static void
append_attributes(StringInfo rows, const RinqSession * session)
{
	RinqAttributeScan scan;
	const RinqAttributeEntry *entry;

	rinq_attribute_scan_begin(&scan, session->attributes);
	while ((entry = rinq_attribute_scan_next(&scan)) != NULL &&
		   rows->len < rinq_payload_limit())
		append_attribute(rows, session, entry);
}

static void
finish_with_rows(uint32 index, const StringInfoData *rows, uint32 last)
{
	RinqFields	result;

	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_bytes(&result, RINQ_OP_RESULT_ROWS, rinq_bytes(rows->data, rows->len));
	if (last != 0)
		rinq_put_uint32(&result, RINQ_OP_RESULT_LAST, last);
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}

/*
 * List a page of the sessions whose numbers are higher than one,
 * or of their
 * attributes, with the last one's number unless it is the
 * last page.
 */
static void
list_own_sessions(uint32 index, uint32 after, bool of_attributes)
{
	RinqSession *session = rinq_own_session_after(after);
	StringInfoData page;
	uint32		last = 0;
	int			count;

	initStringInfo(&page);
	for (count = 0; session != NULL && count < PAGE_SESSIONS && page.len < PAGE_BYTES; count++)
	{
		if (of_attributes)
			append_attributes(&page, session);
		else
			append_session(&page, session);
		last = session->seq;
		session = rinq_own_session_after(session->seq);
	}
	finish_with_rows(index, &page, session == NULL ? 0 : last);
}

/* Note that the session listens to other namespaces now, or in another way. */
static void
listening_changed(RinqSession * session)
{
	rinq_durable_look(session);
	if (!rinq_buffers_notifications(session))
		rinq_buffer_no_more(session);
}

/* listen to notifications; answered when they can come */
static void
listen_to_session(uint32 index, RinqSession * session, const RinqSlot *slot, const RinqFields *fields)
{
	RinqNamespace *ns = rinq_topology_namespace(rinq_get_bytes(fields, RINQ_OP_NAMESPACE), rinq_max_namespaces);
	RinqBytes	handler = rinq_get_bytes(fields, RINQ_OP_HANDLER);
	RinqBytes	channel = rinq_get_bytes(fields, RINQ_OP_CHANNEL);
	RinqReceiveMode mode = handler.data != NULL ? RINQ_RECEIVE_HANDLER :
		channel.data != NULL ? RINQ_RECEIVE_CHANNEL : RINQ_RECEIVE_BUFFER;

	if (ns == NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED,
								 "\"rinq.max_namespaces\" namespaces are known already");
		return;
	}
	rinq_notifications_subscribe(session, ns, mode,
								 mode == RINQ_RECEIVE_HANDLER ? handler : channel, slot->asker,
								 rinq_get_oid(fields, RINQ_OP_HANDLER_OWNER));
	listening_changed(session);
	if (rinq_topology_subscribe(ns, index))
		rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, "");
}

/* answer whether the session did listen */
static void
unlisten_from(uint32 index, RinqSession * session, const RinqFields *fields)
{
	RinqNamespace *ns = rinq_topology_find(rinq_get_bytes(fields, RINQ_OP_NAMESPACE));
	RinqFields	result;
	bool		listened = rinq_notifications_unsubscribe(session, ns);

	listening_changed(session);
	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_flag(&result, RINQ_OP_RESULT_LISTENED, listened);
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}

/*
 * End the operations that wait until the broker sends the notifications of a
 * namespace: it does, or cannot, for the error.
 */
void
rinq_operations_bound(RinqNamespace * ns, const char *error)
{
	List	   *binding = ns->binding;
	ListCell   *lc;

	ns->binding = NIL;
	foreach(lc, binding)
	{
		const		RinqWaiter *waiting = lfirst(lc);

		if (rinq_waits(waiting))
			rinq_pending_finish_text(waiting->index,
									 error == NULL ? RINQ_OUTCOME_SUCCESS : RINQ_OUTCOME_CONNECTION_LOST,
									 error == NULL ? "" : error);
	}
	list_free_deep(binding);
}

static bool
may_use(const RinqSlot *slot, const RinqSession * session)
{
	return slot->privilege_checked || slot->asker == session->role ||
		(session->client != 0 && session->client == slot->client);
}

static void
on_own_session(uint32 index, RinqSlot *slot, const RinqFields *fields)
{
	RinqSession *session = rinq_own_session_find(slot->ref.session.seq);
	uint32		revision;

	if (session == NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_NOT_FOUND, "");
		return;
	}
	if (!may_use(slot, session))
	{
		RinqFields	result;

		rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
		rinq_put_oid(&result, RINQ_OP_RESULT_OWNER, session->role);
		rinq_pending_finish(index, RINQ_OUTCOME_NOT_OURS, &result);
		return;
	}
	revision = slot->current ? session->revision : slot->ref.revision;
	switch (slot->op)
	{
		case RINQ_OP_REVISION:
			finish_with_own_ref(index, session->seq, session->revision);
			break;
		case RINQ_OP_GET:
			get_own_attributes(index, session, revision, fields);
			break;
		case RINQ_OP_UPDATE:
			update_own_session(index, session, revision, fields);
			break;
		case RINQ_OP_CLEAR:
			clear_own_session(index, session, revision, fields);
			break;
		case RINQ_OP_DESTROY:
			rinq_session_finish(index, rinq_own_session_destroy(session->seq, revision),
								rinq_bytes(NULL, 0));
			break;
		case RINQ_OP_ALLOCATE_ID:
			allocate_own_id(index, session);
			break;
		case RINQ_OP_ON_RESPONSE:
			if (session->client != 0)
			{
				rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED,
										 "it is the session of a connection");
				break;
			}
			rinq_own_session_on_response(session, rinq_get_bytes(fields, RINQ_OP_HANDLER),
										 slot->asker, rinq_get_oid(fields, RINQ_OP_HANDLER_OWNER));
			rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, "");
			break;
		case RINQ_OP_LISTEN:
			listen_to_session(index, session, slot, fields);
			break;
		case RINQ_OP_FETCH:
			if (session->num_buffered == 0 && !rinq_buffers_notifications(session))
				rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED,
										 RINQ_NOTHING_BUFFERED);
			else
				rinq_buffer_fetch(session, index, rinq_get_flag(fields, RINQ_OP_WAIT));
			break;
		case RINQ_OP_UNLISTEN:
			unlisten_from(index, session, fields);
			break;
		case RINQ_OP_CALL:
		case RINQ_OP_CREATE:
		case RINQ_OP_LIST_SESSIONS:
		case RINQ_OP_LIST_ATTRIBUTES:
		case RINQ_OP_LIST_SUBSCRIPTIONS:
		case RINQ_OP_LIST_UNREADY:
			/* of no session, and done elsewhere */
			rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "unknown operation");
			break;
	}
}

/* Tell whether an operation is this peer's, and not about a session of another one. */
static bool
is_about_own(const RinqSlot *slot)
{
	switch (slot->op)
	{
		case RINQ_OP_CREATE:
		case RINQ_OP_LIST_SESSIONS:
		case RINQ_OP_LIST_ATTRIBUTES:
		case RINQ_OP_LIST_SUBSCRIPTIONS:
		case RINQ_OP_LIST_UNREADY:
			return true;
		case RINQ_OP_CALL:
		case RINQ_OP_REVISION:
		case RINQ_OP_GET:
		case RINQ_OP_UPDATE:
		case RINQ_OP_CLEAR:
		case RINQ_OP_DESTROY:
		case RINQ_OP_ALLOCATE_ID:
		case RINQ_OP_ON_RESPONSE:
		case RINQ_OP_LISTEN:
		case RINQ_OP_UNLISTEN:
		case RINQ_OP_FETCH:
			break;
	}
	return rinq_peer_id_equal(&slot->ref.session.peer, &rinq_peer.id);
}

static void
list_own_subscriptions(uint32 index)
{
	StringInfoData all;

	initStringInfo(&all);
	rinq_durable_list(&all);
	finish_with_rows(index, &all, 0);
}

static void
list_unready(uint32 index)
{
	StringInfoData words;
	RinqFields	result;

	initStringInfo(&words);
	rinq_unready_list(&words);
	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_bytes(&result, RINQ_OP_RESULT_UNREADY, rinq_bytes(words.data, words.len));
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}

static void
operate_on_own(uint32 index, RinqSlot *slot, const RinqFields *fields)
{
	uint32		after = rinq_get_uint32(fields, RINQ_OP_AFTER);

	if (slot->op == RINQ_OP_CREATE)
		create_own_session(index, slot);
	else if (slot->op == RINQ_OP_LIST_SESSIONS || slot->op == RINQ_OP_LIST_ATTRIBUTES)
		list_own_sessions(index, after, slot->op == RINQ_OP_LIST_ATTRIBUTES);
	else if (slot->op == RINQ_OP_LIST_SUBSCRIPTIONS)
		list_own_subscriptions(index);
	else if (slot->op == RINQ_OP_LIST_UNREADY)
		list_unready(index);
	else
		on_own_session(index, slot, fields);
}

/*
 * Do what a backend asks about a session, or begin to.
 */
void
rinq_operation(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqFields	fields;
	MemoryContext context;
	MemoryContext old;

	Assert(rinq_slot_state(slot) == RINQ_SLOT_QUEUED || rinq_slot_state(slot) == RINQ_SLOT_ABANDONED);
	if (!is_about_own(slot))
	{
		rinq_session_cache_operation(index);
		return;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "rinq operation", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);

	/* the answer takes the place of the fields, and may be made of them */
	rinq_slot_read(slot, RINQ_KIND_OPERATION, &fields);
	operate_on_own(index, slot, &fields);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
