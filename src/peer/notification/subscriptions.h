/*-------------------------------------------------------------------------
 *
 * subscriptions.h
 *	  Subscriptions that outlive connections.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_NOTIFICATION_SUBSCRIPTIONS_H
#define RINQ_PEER_NOTIFICATION_SUBSCRIPTIONS_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "peer/session/sessions.h"

extern void rinq_durable_retry(void);
extern void rinq_durable_look(const RinqSession * session);
extern void rinq_durable_configure(List *durables);
extern int64 rinq_durable_step(void);
extern void rinq_durable_list(StringInfo list);
extern const char *rinq_durable_unready(int number);

#endif							/* RINQ_PEER_NOTIFICATION_SUBSCRIPTIONS_H */
