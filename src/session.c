/*-------------------------------------------------------------------------
 *
 * session.c
 *	  The implicit session of a connection: its number on the network, and the
 *	  ids of the messages it sends.
 *
 * A message id has to be known when a message is written, before the peer
 * hears of it, so it is drawn in the sender's own process: from a cell in
 * shared memory that holds the session's revision and message number in one
 * atomic word.  A session belongs to one identity of the peer; after a
 * reconnect, the next message gets a new one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "request.h"
#include "session.h"

static RinqSessionCell *
cells(void)
{
	return (RinqSessionCell *) ((char *) rinq_shared + rinq_shared->cells_offset);
}

Size
rinq_session_cells_size(void)
{
	return MAXALIGN(mul_size((Size) RINQ_MAX_BACKENDS + NUM_AUXILIARY_PROCS,
							 sizeof(RinqSessionCell)));
}

void
rinq_session_cells_init(void)
{
	int			i;

	for (i = 0; i < RINQ_MAX_BACKENDS + NUM_AUXILIARY_PROCS; i++)
	{
		cells()[i].identity = 0;
		cells()[i].seq = 0;
		pg_atomic_init_u64(&cells()[i].position, RINQ_POSITION(0, 1));
	}
}

/*
 * The peer of a database has become somebody on the network.
 */
void
rinq_identity_set(RinqDatabase *db, const RinqPeerId *id)
{
	uint32		serial = pg_atomic_fetch_add_u32(&rinq_shared->next_identity, 1);

	SpinLockAcquire(&db->mutex);
	db->identity = serial;
	db->identity_id = *id;
	db->next_session = 1;
	SpinLockRelease(&db->mutex);
}

/*
 * It is nobody any more.
 */
void
rinq_identity_clear(RinqDatabase *db)
{
	SpinLockAcquire(&db->mutex);
	db->identity = 0;
	SpinLockRelease(&db->mutex);
}

/*
 * Draws the id of the next message of this process's session, which is made
 * if need be.  Returns the serial of the identity it belongs to, or 0, without
 * an id, while the peer has none.
 */
uint32
rinq_session_draw(RinqDatabase *db, RinqMessageId *id)
{
	RinqSessionCell *mine = &cells()[RINQ_MY_PROCNO];
	uint32		identity;
	uint64		position;

	SpinLockAcquire(&db->mutex);
	identity = db->identity;
	id->ref.session.peer = db->identity_id;
	if (identity != 0 && mine->identity != identity)
	{
		mine->seq = db->next_session++;
		pg_atomic_write_u64(&mine->position, RINQ_POSITION(0, 1));
		mine->identity = identity;
	}
	SpinLockRelease(&db->mutex);
	if (identity == 0)
		return 0;

	position = pg_atomic_fetch_add_u64(&mine->position, 1);
	id->ref.session.seq = mine->seq;
	id->ref.revision = RINQ_POSITION_REVISION(position);
	id->seq = RINQ_POSITION_NEXT(position);
	return identity;
}

/*
 * Draws a message id while the peer is nobody on the network: of a session that
 * nobody can reach, like one whose peer is gone by the time it is received.
 */
void
rinq_session_draw_unconnected(RinqMessageId *id)
{
	static RinqMessageId last;

	while (last.seq == 0 || last.seq == PG_UINT32_MAX ||
		   last.ref.session.peer.rand == 0 || last.ref.session.seq == 0)
	{
		memset(&last, 0, sizeof(last));
		if (!pg_strong_random(&last.ref.session.peer.rand, sizeof(last.ref.session.peer.rand)) ||
			!pg_strong_random(&last.ref.session.seq, sizeof(last.ref.session.seq)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random message id")));
		last.ref.session.peer.clock = (uint64) (rinq_now_ms() / 1000);
		last.seq = 1;
	}
	*id = last;
	last.seq++;
}

/*
 * This process ends: whoever gets its number next has a session of its own.
 */
void
rinq_session_leave(void)
{
	cells()[RINQ_MY_PROCNO].identity = 0;
}
