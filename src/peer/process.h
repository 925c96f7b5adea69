/*-------------------------------------------------------------------------
 *
 * process.h
 *	  The peer process: what all its parts know of it, and ask of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_PROCESS_H
#define RINQ_PEER_PROCESS_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/ident.h"
#include "ipc/slots.h"
#include "ipc/worker.h"
#include "nodes/pg_list.h"

/* AMQP channels, so that a fault on one leaves the others alone */
#define CHANNEL_COMMANDS 1		/* consumes unicast and multicast requests */
#define CHANNEL_RESPONSES 2		/* consumes responses */
#define CHANNEL_TOPOLOGY 3		/* declares and binds */
#define CHANNEL_PUBLISH 4		/* sends calls, responses and notifications */
#define CHANNEL_CONFIRMED 5		/* sends what transactions have committed */
#define CHANNEL_NOTIFICATIONS 6 /* consumes notifications */
#define CHANNEL_MAILBOX 7		/* declares and consumes the mailbox, if there
								 * is one */
#define CHANNEL_NAMESPACES 8	/* from here on: each consumes a namespace's
								 * requests */

typedef struct RinqPeer
{
	RinqDatabase *db;
	RinqSlots  *slots;
	RinqWorkerArgs args;
	RinqConn   *conn;			/* NULL while there is none */
	bool		ready;			/* connected, with identity and queues */
	bool		stopping;
	uint32		config_seen;	/* serial of the configuration in use */
	RinqPeerId	id;				/* valid while connected */
	char		id_text[RINQ_PEER_ID_SIZE];
	char		short_text[RINQ_PEER_SHORT_SIZE];
	char		failure[RINQ_LAST_ERROR_LEN];	/* why the connection is given
												 * up at the end of this turn;
												 * empty when it is not */
	uint32		sockets_serial; /* another one when a socket was opened or
								 * closed */
	int64		now;			/* ms of the monotonic clock, once per turn;
								 * as all times here */
} RinqPeer;

extern RinqPeer rinq_peer;

/* is this process a peer? */
#define RINQ_IN_PEER() (rinq_peer.db != NULL)

extern void rinq_peer_wake_later(int procno);
extern int	rinq_peer_wakes(void);
extern void rinq_peer_wake_now(void);
extern void rinq_peer_ask_for_reading(void);
extern void rinq_peer_log_input(const char *what, const RinqDelivery *delivery);
extern void rinq_peer_show_error(const char *error);
extern void rinq_peer_fail(const char *reason);

/* a call or an operation that waits, and may be given up meanwhile */
typedef struct RinqWaiter
{
	uint32		index;			/* of its slot; RINQ_NO_SLOT: it has none */
	uint32		serial;			/* of that, then */
} RinqWaiter;

extern void *rinq_wait_in(List **list, uint32 index, uint32 serial, Size size);
extern bool rinq_waits(const RinqWaiter * waiter);

#endif							/* RINQ_PEER_PROCESS_H */
