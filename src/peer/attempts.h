/*-------------------------------------------------------------------------
 *
 * attempts.h
 *	  One round of attempts to log in at a broker: its hosts one after the
 *	  other, and the addresses of each.
 *
 * Begin, step until a connection is there or all have failed.  The connection
 * is taken over; when it turns out to be of no use, the round goes on with the
 * next address.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_ATTEMPTS_H
#define RINQ_PEER_ATTEMPTS_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/broker.h"
#include "peer/sockets.h"

/* ms between rounds; longer each time */
#define RINQ_FIRST_PAUSE 100
#define RINQ_LAST_PAUSE 30000

typedef enum RinqAttemptsResult
{
	RINQ_ATTEMPTS_WAIT,
	RINQ_ATTEMPTS_CONNECTED,	/* take it */
	RINQ_ATTEMPTS_FAILED
} RinqAttemptsResult;

extern void rinq_attempts_begin(const RinqBroker *broker, bool other_first);
extern RinqAttemptsResult rinq_attempts_step(const RinqConnCallbacks *callbacks);
extern RinqConn *rinq_attempts_take(void);
extern void rinq_attempts_useless(const char *reason);
extern void rinq_attempts_end(void);
extern bool rinq_attempts_active(void);
extern const RinqBroker *rinq_attempts_broker(void);
extern int	rinq_attempts_host(void);
extern bool rinq_attempts_error(char *error, size_t size);
extern int64 rinq_attempts_next_deadline(void);
extern void rinq_attempts_sockets(RinqSockets *sockets);

#endif							/* RINQ_PEER_ATTEMPTS_H */
