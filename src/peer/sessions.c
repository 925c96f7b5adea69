/*-------------------------------------------------------------------------
 *
 * sessions.c
 *	  The sessions of this peer: one for each backend that has sent anything.
 *
 * They live as long as the backend and the peer's identity; a reconnected
 * peer has a new identity, and all its sessions are new.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/peer.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

typedef struct Client
{
	uint32		client;			/* hash key */
	uint32		session;
} Client;

static HTAB *sessions;			/* by number */
static HTAB *clients;			/* by backend */

static HTAB *
make_table(const char *name, Size entrysize)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(uint32);
	ctl.entrysize = entrysize;
	ctl.hcxt = TopMemoryContext;
	return hash_create(name, 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
rinq_sessions_init(void)
{
	sessions = make_table("rinq sessions", sizeof(RinqSession));
	clients = make_table("rinq clients", sizeof(Client));
}

/*
 * Forgets all sessions, because the identity they belong to is gone.
 */
void
rinq_sessions_clear(void)
{
	hash_destroy(sessions);
	hash_destroy(clients);
	rinq_sessions_init();
}

/*
 * A backend has sent something in the name of its session, which the network
 * knows from now on.
 */
void
rinq_session_seen(uint32 seq, uint32 client)
{
	bool		found;
	RinqSession *session = hash_search(sessions, &seq, HASH_ENTER, &found);
	Client	   *entry;

	if (found)
		return;
	session->client = client;
	session->revision = 0;
	entry = hash_search(clients, &client, HASH_ENTER, NULL);
	entry->session = seq;
}

RinqSession *
rinq_session_find(uint32 seq)
{
	return hash_search(sessions, &seq, HASH_FIND, NULL);
}

void
rinq_session_client_gone(uint32 client)
{
	Client	   *entry = hash_search(clients, &client, HASH_FIND, NULL);

	if (entry == NULL)
		return;
	hash_search(sessions, &entry->session, HASH_REMOVE, NULL);
	hash_search(clients, &client, HASH_REMOVE, NULL);
}
