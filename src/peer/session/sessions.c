/*-------------------------------------------------------------------------
 *
 * sessions.c
 *	  The sessions that belong to this peer: those of processes, made by their
 *	  first use, and those that live until they are destroyed.
 *
 * A session lives no longer than the peer's identity; a reconnected peer has
 * a new one, and all its sessions are new.  The rules are section 5 of the
 * protocol; sessions of other peers are the subject of session_cache.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/hash_table.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* what a session takes, its attributes not counted; about */
#define SESSION_BYTES 256

typedef struct Client
{
	uint32		client;			/* hash key */
	uint32		session;
} Client;

static const RinqSessionHooks *session_hooks;

static HTAB *sessions;			/* by number */
static HTAB *clients;			/* by the number of their process */
static dlist_head in_order;		/* by number, rising */
static MemoryContext attribute_context;

/* what all of them take together */
static Size bytes_used;

static void
make_empty(void)
{
	sessions = rinq_make_hash_table("rinq sessions", 128, sizeof(uint32), sizeof(RinqSession), TopMemoryContext);
	clients = rinq_make_hash_table("rinq clients", 128, sizeof(uint32), sizeof(Client), TopMemoryContext);
	attribute_context = AllocSetContextCreate(TopMemoryContext, "rinq session attributes",
											  ALLOCSET_DEFAULT_SIZES);
	dlist_init(&in_order);
	bytes_used = 0;
}

/*
 * Begin without sessions; "hooks" are told what happens to those that come.
 */
void
rinq_sessions_init(const RinqSessionHooks *hooks)
{
	session_hooks = hooks;
	make_empty();
}

static void
free_handler(RinqSession * session)
{
	if (session->on_response == NULL)
		return;
	pfree(session->on_response->handler);
	pfree(session->on_response);
	session->on_response = NULL;
}

/*
 * Forget all sessions, because the identity they belong to is gone.
 */
void
rinq_sessions_clear(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &in_order)
	{
		RinqSession *session = dlist_container(RinqSession, node, iter.cur);

		free_handler(session);
		session_hooks->ended(session);
	}
	hash_destroy(sessions);
	hash_destroy(clients);
	MemoryContextDelete(attribute_context);
	make_empty();
}

RinqSession *
rinq_own_session_find(uint32 seq)
{
	return hash_search(sessions, &seq, HASH_FIND, NULL);
}

/*
 * Return the session with the next higher number than this one, or NULL.
 */
RinqSession *
rinq_own_session_after(uint32 seq)
{
	RinqSession *session = rinq_own_session_find(seq);
	dlist_iter	iter;

	if (session != NULL)
		return dlist_has_next(&in_order, &session->node) ?
			dlist_container(RinqSession, node, dlist_next_node(&in_order, &session->node)) : NULL;
	dlist_foreach(iter, &in_order)
	{
		session = dlist_container(RinqSession, node, iter.cur);
		if (session->seq > seq)
			return session;
	}
	return NULL;
}

static bool
sessions_have_room(Size bytes)
{
	return bytes_used + bytes <= (Size) rinq_session_memory * 1024 * 1024;
}

static RinqSession *
add_session(uint32 seq)
{
	static uint64 last_serial = 0;
	bool		found;
	RinqSession *session = hash_search(sessions, &seq, HASH_ENTER, &found);
	dlist_node *before;

	if (found)
		return session;
	memset((char *) session + sizeof(uint32), 0, sizeof(RinqSession) - sizeof(uint32));
	session->serial = ++last_serial;
	dlist_init(&session->subscriptions);
	dlist_init(&session->buffered);
	session->procno = RINQ_NO_PROC;
	session->next_message = 1;
	session->created = GetCurrentTimestamp();

	/* processes may tell of theirs out of order */
	for (before = in_order.head.prev;
		 !dlist_is_empty(&in_order) && before != &in_order.head &&
		 dlist_container(RinqSession, node, before)->seq > seq;
		 before = before->prev)
		;
	Assert(seq != 0);
	if (dlist_is_empty(&in_order) || before == &in_order.head)
		dlist_push_head(&in_order, &session->node);
	else
		dlist_insert_after(before, &session->node);
	bytes_used += SESSION_BYTES;
	return session;
}

static void
moved_on(RinqSession * session)
{
	Assert(session->revision < PG_UINT32_MAX);
	session->revision++;
	session->next_message = 1;
	if (session->client != 0)
		rinq_backend_session_move(rinq_peer.db, session->procno, session->seq, session->revision);
}

/*
 * See to it that there are numbers for further messages: in the next revision,
 * in which nothing else has changed.
 */
void
rinq_own_session_renumber(RinqSession * session)
{
	if (session->revision < PG_UINT32_MAX)
		moved_on(session);
}

/*
 * Make the session of a process known to the network.
 */
void
rinq_own_session_of_process(int procno, uint32 client)
{
	RinqBackendSession backend_session;
	RinqSession *session;
	Client	   *entry;

	if (!rinq_backend_session_read(rinq_peer.db, procno, &backend_session) || backend_session.client != client)
		return;
	session = rinq_own_session_find(backend_session.seq);
	if (session != NULL &&
		RINQ_POSITION_NEXT(pg_atomic_read_u64(&backend_session.position)) >= RINQ_RENUMBER_AT)
	{
		/* the session is known, and runs out of numbers for messages */
		rinq_own_session_renumber(session);
		return;
	}
	session = add_session(backend_session.seq);
	session->client = client;
	session->procno = procno;
	session->pid = backend_session.pid;
	session->role = backend_session.role;
	entry = hash_search(clients, &client, HASH_ENTER, NULL);
	entry->session = backend_session.seq;
}

/*
 * Make a session that lives until it is destroyed; NULL when there is no room.
 */
RinqSession *
rinq_own_session_create(Oid role)
{
	RinqSession *session;
	uint32		seq;

	if (!sessions_have_room(SESSION_BYTES))
		return NULL;
	SpinLockAcquire(&rinq_peer.db->mutex);
	seq = rinq_peer.db->next_session++;
	SpinLockRelease(&rinq_peer.db->mutex);
	session = add_session(seq);
	session->role = role;
	return session;
}

/*
 * Set the function that responses to asynchronous calls go to; NULL for none.
 */
void
rinq_own_session_on_response(RinqSession * session, RinqBytes handler, Oid role, Oid owner)
{
	MemoryContext old;

	free_handler(session);
	if (handler.data == NULL)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	session->on_response = palloc0(sizeof(RinqListener));
	session->on_response->handler = pnstrdup(handler.data, handler.len);
	session->on_response->role = role;
	session->on_response->owner = owner;
	MemoryContextSwitchTo(old);
}

static void
end_session(RinqSession * session)
{
	Assert(bytes_used >= SESSION_BYTES + rinq_attributes_size(session->attributes));
	bytes_used -= SESSION_BYTES + rinq_attributes_size(session->attributes);
	rinq_attributes_free(session->attributes);
	free_handler(session);
	session_hooks->ended(session);
	Assert(dlist_is_empty(&session->subscriptions));
	Assert(session->num_buffered == 0 && session->fetching == NIL);
	dlist_delete(&session->node);
	hash_search(sessions, &session->seq, HASH_REMOVE, NULL);
}

/*
 * End the session of a process that has ended.
 */
void
rinq_own_session_client_gone(uint32 client)
{
	Client	   *entry = hash_search(clients, &client, HASH_FIND, NULL);
	RinqSession *session;

	if (entry == NULL)
		return;
	session = rinq_own_session_find(entry->session);
	if (session != NULL)
		end_session(session);
	hash_search(clients, &client, HASH_REMOVE, NULL);
}

/*
 * Compare the sessions of processes that are known with those that the
 * processes have: not all of them could tell.
 */
void
rinq_own_sessions_look(void)
{
	HASH_SEQ_STATUS seq;
	Client	   *entry;
	RinqBackendSession backend_session;
	int			procno;

	hash_seq_init(&seq, clients);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		RinqSession *session = rinq_own_session_find(entry->session);

		if (session == NULL || !rinq_backend_session_read(rinq_peer.db, session->procno, &backend_session) ||
			backend_session.client != entry->client)
			rinq_own_session_client_gone(entry->client);
	}
	for (procno = 0; procno < rinq_backend_sessions_count(); procno++)
	{
		if (rinq_backend_session_read(rinq_peer.db, procno, &backend_session))
			rinq_own_session_of_process(procno, backend_session.client);
	}
}

/*
 * Find the session at the revision of a reference: *session is NULL when the
 * result is not RINQ_OUTCOME_SUCCESS.
 */
static RinqOutcome
find_at(uint32 seq, uint32 revision, RinqSession * *session)
{
	*session = rinq_own_session_find(seq);
	if (*session == NULL)
		return RINQ_OUTCOME_NOT_FOUND;
	if ((*session)->revision == revision)
		return RINQ_OUTCOME_SUCCESS;
	*session = NULL;
	return RINQ_OUTCOME_STALE;
}

/*
 * Say why a change is refused, as the text of RINQ_OUTCOME_REFUSED; NULL if it
 * is not.
 */
static const char *
change_refusal(const RinqSession * session, Size needed, RinqBytes namespace)
{
	if (namespace.len > PG_UINT16_MAX)
		return "the namespace is too long";
	if (session->revision == PG_UINT32_MAX)
		return "the session is at its last revision";
	return sessions_have_room(needed) ? NULL : RINQ_NO_SESSION_MEMORY;
}

/*
 * Change attributes of a session at a revision.  On success, the session is
 * at the next one, and each attribute of the list has its own revisions.  When
 * it is refused, *detail says why; when an attribute is frozen, its key.
 */
RinqOutcome
rinq_own_session_update(uint32 seq, uint32 revision, RinqBytes namespace,
						RinqAttribute *attributes, int count, RinqBytes *detail)
{
	const char *problem;
	RinqSession *session;
	RinqOutcome outcome = find_at(seq, revision, &session);
	Size		before;
	Size		needed = 0;
	int			i;

	if (outcome != RINQ_OUTCOME_SUCCESS)
		return outcome;
	for (i = 0; i < count; i++)
		needed += rinq_attribute_size(namespace, &attributes[i]);
	problem = change_refusal(session, needed, namespace);
	if (problem != NULL)
	{
		*detail = rinq_bytes_str(problem);
		return RINQ_OUTCOME_REFUSED;
	}
	before = rinq_attributes_size(session->attributes);
	switch (rinq_attributes_update(&session->attributes, attribute_context, namespace, attributes,
								   count, revision + 1, detail))
	{
		case RINQ_UPDATE_FROZEN:
			return RINQ_OUTCOME_FROZEN;
		case RINQ_UPDATE_TOO_MANY:
			*detail = rinq_bytes_str("a session can have "
									 CppAsString2(RINQ_MAX_ATTRIBUTES) " attributes");
			return RINQ_OUTCOME_REFUSED;
		case RINQ_UPDATE_DONE:
			break;
	}
	bytes_used += rinq_attributes_size(session->attributes) - before;
	for (i = 0; i < count && !dlist_is_empty(&session->subscriptions); i++)
		session_hooks->changed(session, namespace, &attributes[i].key);
	moved_on(session);
	return RINQ_OUTCOME_SUCCESS;
}

/*
 * Empty a namespace of a session at a revision; *detail is as for an update.
 */
RinqOutcome
rinq_own_session_clear(uint32 seq, uint32 revision, RinqBytes namespace, RinqBytes *detail)
{
	const char *problem;
	RinqSession *session;
	RinqOutcome outcome = find_at(seq, revision, &session);
	Size		before;

	if (outcome != RINQ_OUTCOME_SUCCESS)
		return outcome;
	problem = change_refusal(session, 0, namespace);
	if (problem != NULL)
	{
		*detail = rinq_bytes_str(problem);
		return RINQ_OUTCOME_REFUSED;
	}
	before = rinq_attributes_size(session->attributes);
	if (!rinq_attributes_clear(session->attributes, attribute_context, namespace, revision + 1,
							   detail))
		return RINQ_OUTCOME_FROZEN;
	bytes_used += rinq_attributes_size(session->attributes) - before;
	if (!dlist_is_empty(&session->subscriptions))
		session_hooks->changed(session, namespace, NULL);
	moved_on(session);
	return RINQ_OUTCOME_SUCCESS;
}

/*
 * Destroy a session at a revision.  The process that it belonged to, if any,
 * has a new one when it needs one.
 */
RinqOutcome
rinq_own_session_destroy(uint32 seq, uint32 revision)
{
	RinqSession *session;
	RinqOutcome outcome = find_at(seq, revision, &session);

	if (outcome != RINQ_OUTCOME_SUCCESS)
		return outcome;
	if (session->client != 0)
	{
		rinq_backend_session_end(rinq_peer.db, session->procno, session->seq);
		hash_search(clients, &session->client, HASH_REMOVE, NULL);
	}
	end_session(session);
	return RINQ_OUTCOME_SUCCESS;
}

/*
 * Count the calls of a session that wait for their response.
 */
void
rinq_own_session_pending(uint32 seq, int change)
{
	RinqSession *session = rinq_own_session_find(seq);

	if (session == NULL)
		return;
	Assert(session->pending + change >= 0);
	session->pending += change;
}
