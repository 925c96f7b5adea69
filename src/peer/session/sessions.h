/*-------------------------------------------------------------------------
 *
 * sessions.h
 *	  The sessions that belong to this peer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SESSION_SESSIONS_H
#define RINQ_PEER_SESSION_SESSIONS_H

#include "postgres.h"

#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "protocol/attribute.h"

/* a session of this peer (sessions.c) */
typedef struct RinqSession
{
	uint32		seq;			/* hash key */
	uint64		serial;			/* that no session of another identity has,
								 * either */
	uint32		client;			/* the process it belongs to; 0 is none */
	int			procno;			/* of that process */
	int			pid;
	Oid			role;			/* whose session it is */
	uint32		revision;
	uint32		next_message;	/* of those without a process */
	int			pending;		/* calls that wait for their response */
	TimestampTz created;
	RinqAttributeTable *attributes;
	RinqListener *on_response;	/* handles responses; NULL is none */
	dlist_head	subscriptions;	/* namespaces it listens to (notifications.c) */
	dlist_node	listening;		/* while it listens to any (session_index.c) */
	uint64		last_match;		/* number of the notification that was last
								 * matched */
	struct RinqSubscriber *subscriber;	/* the durable subscription that it
										 * was made for, NULL for none
										 * (subscriptions.c) */
	dlist_head	buffered;		/* until they are fetched (buffer.c) */
	int			num_buffered;
	int			num_buffering;	/* namespaces whose notifications are kept */
	Size		buffered_bytes; /* what they take */
	dlist_node	keeping;		/* while there are any (buffer.c) */
	List	   *fetching;		/* operations that wait for such
								 * (rinq_wait_in) */
	dlist_node	node;
} RinqSession;

#define RINQ_NO_SESSION_MEMORY "there is no room for more within \"rinq.session_memory\""

/* what others do when something happens to a session */
typedef struct RinqSessionHooks
{
	/* it ends: nothing of it may be used any more when this returns */
	void		(*ended) (RinqSession * session);

	/* an attribute of one that listens has changed; of key NULL, any */
	void		(*changed) (RinqSession * session, RinqBytes namespace,
							const RinqBytes *key);
} RinqSessionHooks;

extern void rinq_sessions_init(const RinqSessionHooks *hooks);
extern void rinq_sessions_clear(void);
extern void rinq_own_session_of_process(int procno, uint32 client);
extern void rinq_own_session_client_gone(uint32 client);
extern void rinq_own_sessions_look(void);
extern RinqSession * rinq_own_session_find(uint32 seq);
extern RinqSession * rinq_own_session_after(uint32 seq);
extern RinqSession * rinq_own_session_create(Oid role);
extern void rinq_own_session_on_response(RinqSession * session, RinqBytes handler, Oid role,
										 Oid owner);
extern RinqOutcome rinq_own_session_update(uint32 seq, uint32 revision, RinqBytes namespace,
										   RinqAttribute *attributes, int count,
										   RinqBytes *detail);
extern RinqOutcome rinq_own_session_clear(uint32 seq, uint32 revision, RinqBytes namespace,
										  RinqBytes *detail);
extern RinqOutcome rinq_own_session_destroy(uint32 seq, uint32 revision);
extern void rinq_own_session_renumber(RinqSession * session);
extern void rinq_own_session_pending(uint32 seq, int change);

#endif							/* RINQ_PEER_SESSION_SESSIONS_H */
