/*-------------------------------------------------------------------------
 *
 * resolver.h
 *	  Looking up the addresses of a name, without waiting.
 *
 * One look-up at a time: start, step until it is done, take what was found.
 * Meanwhile the event loop waits for the sockets and the deadline.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_RESOLVER_H
#define RINQ_PEER_RESOLVER_H

#include "postgres.h"

#include <sys/socket.h>

#include "peer/sockets.h"

/* Of more addresses than these, the rest is not used. */
#define RINQ_MAX_ADDRESSES 64

typedef struct RinqAddress
{
	struct sockaddr_storage at;
	socklen_t	len;
} RinqAddress;

typedef struct RinqAddresses
{
	int			count;
	RinqAddress list[RINQ_MAX_ADDRESSES];
} RinqAddresses;

extern bool rinq_resolver_literal(const char *host, int port, RinqAddresses *found);
extern void rinq_resolver_start(const char *host, int port, int64 limit);
extern bool rinq_resolver_step(RinqAddresses *found, char *error, size_t size);
extern void rinq_resolver_end(void);
extern int64 rinq_resolver_next_deadline(void);
extern void rinq_resolver_sockets(RinqSockets *sockets);

#endif							/* RINQ_PEER_RESOLVER_H */
