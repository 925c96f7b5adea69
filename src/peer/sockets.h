/*-------------------------------------------------------------------------
 *
 * sockets.h
 *	  The sockets that the event loop waits for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SOCKETS_H
#define RINQ_PEER_SOCKETS_H

#include "postgres.h"

#include "storage/latch.h"

/* two connections, and what a look-up of a name has open */
#define RINQ_MAX_SOCKETS 18

typedef struct RinqSocket
{
	int			fd;
	bool		readable;		/* wait until there is something to read */
	bool		writable;		/* and until there is room to write */
} RinqSocket;

typedef struct RinqSockets
{
	int			count;
	RinqSocket	list[RINQ_MAX_SOCKETS];
	uint32		serial;			/* another one when a socket was opened or
								 * closed, even if its number is the same */
} RinqSockets;

static inline void
rinq_add_socket(RinqSockets *sockets, int fd, bool readable, bool writable)
{
	if (fd < 0 || sockets->count == RINQ_MAX_SOCKETS)
		return;
	sockets->list[sockets->count].fd = fd;
	sockets->list[sockets->count].readable = readable;
	sockets->list[sockets->count].writable = writable;
	sockets->count++;
}

static inline uint32
rinq_socket_events(const RinqSocket *s)
{
	return (s->readable ? WL_SOCKET_READABLE : 0) | (s->writable ? WL_SOCKET_WRITEABLE : 0);
}

#endif							/* RINQ_PEER_SOCKETS_H */
