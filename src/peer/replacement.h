/*-------------------------------------------------------------------------
 *
 * replacement.h
 *	  A connection in place of the one that works, by settings that have
 *	  changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_REPLACEMENT_H
#define RINQ_PEER_REPLACEMENT_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/broker.h"

extern void rinq_replacement_begin(void);
extern void rinq_replacement_end(void);
extern bool rinq_replacement_wanted(void);
extern bool rinq_replacement_adopt(RinqBroker *in_use, const char *connected_to, const RinqBroker *next);
extern bool rinq_replacement_step(RinqBroker *in_use, const char *connected_to,
								  const RinqConnCallbacks *callbacks);
extern int64 rinq_replacement_next_deadline(void);

#endif							/* RINQ_PEER_REPLACEMENT_H */
