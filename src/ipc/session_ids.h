/*-------------------------------------------------------------------------
 *
 * session_ids.h
 *	  The implicit session of a connection: its number on the network, and the
 *	  ids of the messages it sends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_IPC_SESSION_IDS_H
#define RINQ_IPC_SESSION_IDS_H

#include "postgres.h"

#include "base/ident.h"
#include "ipc/shared.h"

/*
 * One for each process, at its number.  Its owner alone assigns a session to
 * it, under the mutex of its database; messages are numbered by the process
 * that sends in its name, and the peer moves it to another revision.
 */
typedef struct RinqBackendSession
{
	uint32		identity;		/* serial of the peer's identity; 0 is none */
	uint32		seq;			/* of the session */
	uint32		client;			/* number of the process (backend/calls.c) */
	int			pid;
	Oid			role;			/* that used it first */
	pg_atomic_uint64 position;	/* revision and next message: base/ident.h */
} RinqBackendSession;

extern int	rinq_backend_sessions_count(void);
extern Size rinq_backend_sessions_size(void);
extern void rinq_backend_sessions_init(void);

extern void rinq_identity_set(RinqDatabase *db, const RinqPeerId *id);
extern void rinq_identity_clear(RinqDatabase *db);

/* in backends and executors */
extern uint32 rinq_session_allocate_id(RinqDatabase *db, uint32 client, RinqMessageId *id);
extern bool rinq_session_current(RinqDatabase *db, uint32 client, RinqSessionId *id);
extern void rinq_session_allocate_id_unconnected(RinqMessageId *id);
extern RinqDatabase *rinq_session_leave(void);

/* in the peer */
extern bool rinq_backend_session_read(RinqDatabase *db, int procno, RinqBackendSession *copy);
extern void rinq_backend_session_move(RinqDatabase *db, int procno, uint32 seq, uint32 revision);
extern void rinq_backend_session_end(RinqDatabase *db, int procno, uint32 seq);

#endif							/* RINQ_IPC_SESSION_IDS_H */
