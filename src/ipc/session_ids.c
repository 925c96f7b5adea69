/*-------------------------------------------------------------------------
 *
 * session_ids.c
 *	  The implicit session of a connection: its number on the network, and the
 *	  ids of the messages it sends.
 *
 * A message id has to be known when a message is written, before the peer
 * hears of it, so it is allocated in the sender's own process: from an entry
 * in shared memory that has the session's revision and message number in one
 * atomic word.  A session belongs to one identity of the peer; after a
 * reconnect, the next message gets a new one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "base/request_end.h"
#include "ipc/session_ids.h"
#include "ipc/slots.h"
#include "miscadmin.h"

/* whose peer this process has told of its session; NULL while it has none */
static RinqDatabase *told = NULL;

static RinqBackendSession *
backend_sessions(void)
{
	return (RinqBackendSession *) ((char *) rinq_shared + rinq_shared->backend_sessions_offset);
}

/*
 * Return the number of processes that can have a session.
 */
int
rinq_backend_sessions_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

Size
rinq_backend_sessions_size(void)
{
	return MAXALIGN(mul_size((Size) rinq_backend_sessions_count(), sizeof(RinqBackendSession)));
}

void
rinq_backend_sessions_init(void)
{
	int			i;

	for (i = 0; i < rinq_backend_sessions_count(); i++)
	{
		backend_sessions()[i].identity = 0;
		backend_sessions()[i].seq = 0;
		pg_atomic_init_u64(&backend_sessions()[i].position, RINQ_POSITION(0, 1));
	}
}

/*
 * Set the identity that the peer of a database has on the network from now on.
 */
void
rinq_identity_set(RinqDatabase *db, const RinqPeerId *id)
{
	uint32		serial = pg_atomic_fetch_add_u32(&rinq_shared->next_identity, 1);

	Assert(id->clock != 0 && id->rand != 0);
	SpinLockAcquire(&db->mutex);
	db->identity = serial;
	db->identity_id = *id;
	db->next_session = 1;
	SpinLockRelease(&db->mutex);
}

/*
 * Clear the identity of a peer that has left the network.
 */
void
rinq_identity_clear(RinqDatabase *db)
{
	SpinLockAcquire(&db->mutex);
	db->identity = 0;
	SpinLockRelease(&db->mutex);
}

/*
 * See to it that this process has a session of the peer's current identity,
 * which the peer is told of.  Returns the serial of that identity, or 0 while
 * the peer has none.
 */
static uint32
ensure_session(RinqDatabase *db, uint32 client, RinqPeerId *peer)
{
	RinqBackendSession *mine = &backend_sessions()[RINQ_MY_PROCNO];
	bool		made = false;
	uint32		identity;

	Assert(RINQ_MY_PROCNO >= 0 && RINQ_MY_PROCNO < rinq_backend_sessions_count());
	Assert(client != 0);
	SpinLockAcquire(&db->mutex);
	identity = db->identity;
	*peer = db->identity_id;
	if (identity != 0 && mine->identity != identity)
	{
		mine->seq = db->next_session++;
		mine->client = client;
		mine->pid = MyProcPid;
		mine->role = InvalidOid;
		pg_atomic_write_u64(&mine->position, RINQ_POSITION(0, 1));
		mine->identity = identity;
		made = true;
	}
	SpinLockRelease(&db->mutex);

	/*
	 * the entry may have been another database's by the time its identity was
	 * read
	 */
	if (db->oid != MyDatabaseId)
	{
		if (made)
			mine->identity = 0;
		return 0;
	}
	if (made)
	{
		mine->role = GetUserId();
		told = db;
		rinq_event_put(db, RINQ_EVENT_SESSION, (uint32) RINQ_MY_PROCNO, client);
	}
	return identity;
}

/*
 * Allocate the id of the next message of this process's session, which is made
 * if need be.  Returns the serial of the identity it belongs to, or 0, with
 * the id of no message, while the peer has none.
 */
uint32
rinq_session_allocate_id(RinqDatabase *db, uint32 client, RinqMessageId *id)
{
	RinqBackendSession *mine = &backend_sessions()[RINQ_MY_PROCNO];
	uint32		identity = ensure_session(db, client, &id->ref.session.peer);
	uint64		position;
	uint64		after;

	if (identity == 0)
	{
		memset(id, 0, sizeof(*id));
		return 0;
	}
	position = pg_atomic_read_u64(&mine->position);
	do
	{
		if (!rinq_position_advance(position, &after))
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the session has no numbers left for messages"),
					 errhint("Try again in a moment, or change an attribute of the session, which numbers them anew.")));
	} while (!pg_atomic_compare_exchange_u64(&mine->position, &position, after));
	if (rinq_position_is_worn(position))
		rinq_event_put(db, RINQ_EVENT_SESSION, (uint32) RINQ_MY_PROCNO, client);
	id->ref.session.seq = mine->seq;
	id->ref.revision = RINQ_POSITION_REVISION(position);
	id->seq = RINQ_POSITION_NEXT(position);
	Assert(id->seq != 0 && id->ref.session.seq != 0);
	return identity;
}

/*
 * Return the session of this process, which is made if need be; false while
 * the peer has no identity on the network.
 */
bool
rinq_session_current(RinqDatabase *db, uint32 client, RinqSessionId *id)
{
	if (ensure_session(db, client, &id->peer) == 0)
		return false;
	id->seq = backend_sessions()[RINQ_MY_PROCNO].seq;
	return true;
}

/*
 * Read what a process has said about its session; false when that is not of
 * the peer's current identity.
 */
bool
rinq_backend_session_read(RinqDatabase *db, int procno, RinqBackendSession *copy)
{
	bool		valid;

	if (procno < 0 || procno >= rinq_backend_sessions_count())
		return false;
	SpinLockAcquire(&db->mutex);
	copy->identity = backend_sessions()[procno].identity;
	copy->seq = backend_sessions()[procno].seq;
	copy->client = backend_sessions()[procno].client;
	copy->pid = backend_sessions()[procno].pid;
	copy->role = backend_sessions()[procno].role;
	pg_atomic_init_u64(&copy->position, pg_atomic_read_u64(&backend_sessions()[procno].position));
	valid = copy->identity != 0 && copy->identity == db->identity;
	SpinLockRelease(&db->mutex);
	return valid;
}

/*
 * Move the session of a process to another revision: its messages are numbered
 * anew.
 */
void
rinq_backend_session_move(RinqDatabase *db, int procno, uint32 seq, uint32 revision)
{
	RinqBackendSession *backend_session = &backend_sessions()[procno];

	Assert(procno >= 0 && procno < rinq_backend_sessions_count());
	SpinLockAcquire(&db->mutex);
	if (backend_session->identity == db->identity && backend_session->seq == seq)
		pg_atomic_write_u64(&backend_session->position, RINQ_POSITION(revision, 1));
	SpinLockRelease(&db->mutex);
}

/*
 * End the session of a process, which has a new one when it needs one.
 */
void
rinq_backend_session_end(RinqDatabase *db, int procno, uint32 seq)
{
	RinqBackendSession *backend_session = &backend_sessions()[procno];

	Assert(procno >= 0 && procno < rinq_backend_sessions_count());
	SpinLockAcquire(&db->mutex);
	if (backend_session->identity == db->identity && backend_session->seq == seq)
		backend_session->identity = 0;
	SpinLockRelease(&db->mutex);
}

/* the message id that was made up last */
static RinqMessageId unconnected;

static void
forget_unconnected(void)
{
	memset(&unconnected, 0, sizeof(unconnected));
}

/*
 * Allocate a message id while the peer is not on the network: of a session
 * that cannot be reached, like one whose peer is gone by the time it is
 * received.
 */
void
rinq_session_allocate_id_unconnected(RinqMessageId *id)
{
	RinqMessageId *last = &unconnected;

	rinq_at_request_end(forget_unconnected);
	while (last->seq == 0 || last->seq == PG_UINT32_MAX ||
		   last->ref.session.peer.rand == 0 || last->ref.session.seq == 0)
	{
		memset(last, 0, sizeof(*last));
		if (!pg_strong_random(&last->ref.session.peer.rand, sizeof(last->ref.session.peer.rand)) ||
			!pg_strong_random(&last->ref.session.seq, sizeof(last->ref.session.seq)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random message id")));
		last->ref.session.peer.clock = (uint64) (rinq_wall_ms() / 1000);
		last->seq = 1;
	}
	*id = *last;
	last->seq++;
}

/*
 * End the session of this process, which ends itself, or a request that it
 * has handled.  Returns whose peer is to be told, or NULL.
 */
RinqDatabase *
rinq_session_leave(void)
{
	RinqDatabase *db = told;

	told = NULL;
	backend_sessions()[RINQ_MY_PROCNO].identity = 0;
	return db;
}
