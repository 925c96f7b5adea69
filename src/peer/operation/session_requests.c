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
#include "peer/session/sessions.h"
#include "peer/topology/namespaces.h"
#include "peer/topology/topology.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

#define PAGE_SESSIONS 500		/* in one list of sessions */
#define PAGE_BYTES (1024 * 1024)	/* of a list */

static void
finish_outcome(uint32 index, RinqOutcome outcome, RinqBytes text)
{
	/* the text may be in the slot that is written */
	rinq_pending_finish(index, outcome, rinq_bytes(NULL, 0), rinq_bytes_copy(text),
						rinq_bytes(NULL, 0));
}

/* answer with a session at its revision */
static void
finish_with_own_ref(uint32 index, uint32 seq, uint32 revision)
{
	RinqRef		ref;
	char		text[RINQ_REF_SIZE];

	ref.session.peer = rinq_peer.id;
	ref.session.seq = seq;
	ref.revision = revision;
	rinq_ref_format(&ref, text, sizeof(text));
	rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, text);
}

static void
create_own_session(uint32 index, const RinqSlot *slot)
{
	RinqSession *session = rinq_own_session_create(slot->role);

	if (session == NULL)
		finish_outcome(index, RINQ_OUTCOME_REFUSED, rinq_bytes_str(RINQ_NO_SESSION_MEMORY));
	else
		finish_with_own_ref(index, session->seq, session->revision);
}

/*
 * Get attributes at a revision: one that came later is not there yet, and of
 * one that was changed later the value is not known any more.
 */
static void
get_own_attributes(uint32 index, RinqSession * session, uint32 revision, const RinqBytes *fields)
{
	RinqAttribute *attributes;
	StringInfoData result;
	int			count;
	int			i;

	if (!rinq_attributes_unpack(fields[RINQ_OP_ATTRIBUTES], &attributes, &count))
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "the keys cannot be read");
		return;
	}
	for (i = 0; i < count; i++)
	{
		RinqAttribute found;

		if (!rinq_attribute_find(session->attributes, fields[RINQ_OP_NAMESPACE],
								 attributes[i].key, &found) || found.created > revision)
			continue;
		if (found.updated > revision)
		{
			finish_outcome(index, RINQ_OUTCOME_STALE_FETCH, attributes[i].key);
			return;
		}
		attributes[i] = found;
	}
	initStringInfo(&result);
	rinq_attributes_pack(&result, attributes, count);
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, rinq_bytes(NULL, 0), rinq_bytes(NULL, 0),
						rinq_bytes(result.data, result.len));
}

static void
update_own_session(uint32 index, RinqSession * session, uint32 revision, const RinqBytes *fields)
{
	RinqAttribute *attributes;
	RinqBytes	detail = rinq_bytes(NULL, 0);
	RinqOutcome outcome;
	uint32		seq = session->seq;
	int			count;

	if (!rinq_attributes_unpack(fields[RINQ_OP_ATTRIBUTES], &attributes, &count))
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
	outcome = rinq_own_session_update(seq, revision, fields[RINQ_OP_NAMESPACE], attributes, count,
									  &detail);
	if (outcome == RINQ_OUTCOME_SUCCESS)
		finish_with_own_ref(index, seq, revision + 1);
	else
		finish_outcome(index, outcome, detail);
}

static void
clear_own_session(uint32 index, RinqSession * session, uint32 revision, const RinqBytes *fields)
{
	RinqBytes	detail = rinq_bytes(NULL, 0);
	uint32		seq = session->seq;
	RinqOutcome outcome = rinq_own_session_clear(seq, revision, fields[RINQ_OP_NAMESPACE],
												 &detail);

	if (outcome == RINQ_OUTCOME_SUCCESS)
		finish_with_own_ref(index, seq, revision + 1);
	else
		finish_outcome(index, outcome, detail);
}

/* Allocate the next message id of a session that belongs to no process. */
static void
allocate_own_id(uint32 index, RinqSession * session)
{
	RinqMessageId id;
	char		text[RINQ_MESSAGE_ID_SIZE];

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
	rinq_message_id_format(&id, text, sizeof(text));
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS,
						session->on_response != NULL ? rinq_bytes_str("u") : rinq_bytes(NULL, 0),
						rinq_bytes_str(text), rinq_bytes(NULL, 0));
}

static void
append_session(StringInfo page, const RinqSession * session)
{
	appendBinaryStringInfo(page, (const char *) &session->seq, sizeof(uint32));
	appendBinaryStringInfo(page, (const char *) &session->revision, sizeof(uint32));
	appendBinaryStringInfo(page, (const char *) &session->role, sizeof(Oid));
	appendBinaryStringInfo(page, (const char *) &session->pid, sizeof(int));
	appendBinaryStringInfo(page, (const char *) &session->pending, sizeof(int));
	appendBinaryStringInfo(page, (const char *) &session->num_buffered, sizeof(int));
	appendBinaryStringInfo(page, (const char *) &session->created, sizeof(TimestampTz));
	rinq_subscriptions_list(session, page);
}

static void
append_attributes(StringInfo page, const RinqSession * session)
{
	RinqAttributeScan scan;
	const RinqAttributeEntry *entry;

	rinq_attribute_scan_begin(&scan, session->attributes);
	while ((entry = rinq_attribute_scan_next(&scan)) != NULL &&
		   page->len < rinq_payload_limit())
	{
		RinqBytes	namespace = rinq_entry_namespace(entry);
		uint32		len = (uint32) namespace.len;
		uint32		start;
		RinqAttribute attribute;

		attribute.key = rinq_entry_key(entry);
		attribute.value = rinq_entry_value(entry);
		attribute.frozen = entry->frozen;
		attribute.created = entry->created;
		attribute.updated = entry->updated;
		appendBinaryStringInfo(page, (const char *) &session->seq, sizeof(uint32));
		appendBinaryStringInfo(page, (const char *) &session->role, sizeof(Oid));
		appendBinaryStringInfo(page, (const char *) &len, sizeof(len));
		appendBinaryStringInfo(page, namespace.data, (int) len);
		start = page->len;
		appendBinaryStringInfo(page, (const char *) &len, sizeof(len));
		rinq_attributes_pack(page, &attribute, 1);
		len = (uint32) page->len - start - sizeof(len);
		memcpy(page->data + start, &len, sizeof(len));
	}
}

/*
 * List a page of the sessions whose numbers are higher than the reference's,
 * or of their attributes; its text is the last one's number, or empty at the
 * end.
 */
static void
list_own_sessions(uint32 index, uint32 after, bool of_attributes)
{
	RinqSession *session = rinq_own_session_after(after);
	StringInfoData page;
	char		last[16] = "";
	int			count;

	initStringInfo(&page);
	for (count = 0; session != NULL && count < PAGE_SESSIONS && page.len < PAGE_BYTES; count++)
	{
		if (of_attributes)
			append_attributes(&page, session);
		else
			append_session(&page, session);
		snprintf(last, sizeof(last), "%u", session->seq);
		session = rinq_own_session_after(session->seq);
	}
	if (session == NULL)
		last[0] = '\0';
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, rinq_bytes(NULL, 0), rinq_bytes_str(last),
						rinq_bytes(page.data, page.len));
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
listen_to_session(uint32 index, RinqSession * session, const RinqSlot *slot, const RinqBytes *fields)
{
	RinqNamespace *ns = rinq_topology_namespace(fields[RINQ_OP_NAMESPACE], rinq_max_namespaces);
	RinqReceiveMode mode = RINQ_RECEIVE_BUFFER;
	Oid			owner = InvalidOid;

	if (ns == NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED,
								 "\"rinq.max_namespaces\" namespaces are known already");
		return;
	}
	if (fields[RINQ_OP_OWNER].len == sizeof(Oid))
		memcpy(&owner, fields[RINQ_OP_OWNER].data, sizeof(Oid));
	if (fields[RINQ_OP_MODE].len == 1)
		mode = (RinqReceiveMode) fields[RINQ_OP_MODE].data[0];
	rinq_notifications_subscribe(session, ns, mode, fields[RINQ_OP_HANDLER], slot->role, owner);
	listening_changed(session);
	if (rinq_topology_subscribe(ns, index))
		rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, "");
}

/* answer whether the session did listen */
static void
unlisten_from(uint32 index, RinqSession * session, const RinqBytes *fields)
{
	RinqNamespace *ns = rinq_topology_find(fields[RINQ_OP_NAMESPACE]);

	bool		listened = rinq_notifications_unsubscribe(session, ns);

	listening_changed(session);
	rinq_pending_finish_text(index, RINQ_OUTCOME_SUCCESS, listened ? "t" : "");
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
	return slot->privilege_checked || slot->role == session->role ||
		(session->client != 0 && session->client == slot->client);
}

static void
on_own_session(uint32 index, RinqSlot *slot, const RinqBytes *fields)
{
	RinqSession *session = rinq_own_session_find(slot->ref.session.seq);
	Oid			owner = InvalidOid;
	uint32		revision;

	if (session == NULL)
	{
		rinq_pending_finish_text(index, RINQ_OUTCOME_NOT_FOUND, "");
		return;
	}
	if (!may_use(slot, session))
	{
		char		role[16];

		snprintf(role, sizeof(role), "%u", session->role);
		rinq_pending_finish_text(index, RINQ_OUTCOME_NOT_OURS, role);
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
			finish_outcome(index, rinq_own_session_destroy(session->seq, revision),
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
			if (fields[RINQ_OP_OWNER].len == sizeof(Oid))
				memcpy(&owner, fields[RINQ_OP_OWNER].data, sizeof(Oid));
			rinq_own_session_on_response(session, fields[RINQ_OP_HANDLER], slot->role, owner);
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
				rinq_buffer_fetch(session, index, fields[RINQ_OP_MODE].len > 0);
			break;
		case RINQ_OP_UNLISTEN:
			unlisten_from(index, session, fields);
			break;
		default:
			rinq_pending_finish_text(index, RINQ_OUTCOME_REFUSED, "unknown operation");
			break;
	}
}

/*
 * Do what a backend asks about a session, or begin to.
 */
void
rinq_operation(uint32 index)
{
	RinqSlot   *slot = &rinq_peer.slots->slot[index];
	RinqBytes	fields[RINQ_OP_FIELDS];
	MemoryContext context;
	MemoryContext old;

	if (slot->op == RINQ_OP_CREATE)
	{
		create_own_session(index, slot);
		return;
	}
	if (slot->op != RINQ_OP_LIST_SESSIONS && slot->op != RINQ_OP_LIST_ATTRIBUTES &&
		slot->op != RINQ_OP_LIST_SUBSCRIPTIONS && slot->op != RINQ_OP_LIST_UNREADY &&
		!rinq_peer_id_equal(&slot->ref.session.peer, &rinq_peer.id))
	{
		rinq_session_cache_operation(index);
		return;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "rinq operation", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);

	/* the answer takes the place of the fields, and may be made of them */
	rinq_slot_read(slot, fields, RINQ_OP_FIELDS);
	if (slot->op == RINQ_OP_LIST_SESSIONS || slot->op == RINQ_OP_LIST_ATTRIBUTES)
		list_own_sessions(index, slot->ref.session.seq, slot->op == RINQ_OP_LIST_ATTRIBUTES);
	else if (slot->op == RINQ_OP_LIST_SUBSCRIPTIONS || slot->op == RINQ_OP_LIST_UNREADY)
	{
		StringInfoData all;

		initStringInfo(&all);
		if (slot->op == RINQ_OP_LIST_SUBSCRIPTIONS)
			rinq_durable_list(&all);
		else
			rinq_unready_list(&all);
		rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, rinq_bytes(NULL, 0),
							rinq_bytes(NULL, 0), rinq_bytes(all.data, all.len));
	}
	else
		on_own_session(index, slot, fields);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
