/*-------------------------------------------------------------------------
 *
 * backend/outbox_waiting.h
 *	  Durable messages that go into the outbox later: at a time, or after
 *	  another one; and keys, each of which is used for one message.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_WAITING_H
#define RINQ_OUTBOX_WAITING_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ipc/sendqueue.h"

/* bytes in UTF-8 that a key or an ordering may have, since both are indexed */
#define RINQ_MAX_KEY_LEN 500

/* what a message waits for, and what it is known by */
typedef struct RinqDelivery
{
	TimestampTz due;			/* DT_NOBEGIN: at once */
	bool		after;			/* that is some time from now, not a time of
								 * the wall clock */
	char	   *key;			/* NULL: none */
	char	   *ordering;		/* NULL: none */
} RinqDelivery;

extern bool rinq_outbox_use_key(RinqDatabase *db, Oid schema, const char *namespace,
								const RinqDelivery *delivery, const RinqMessageId *id,
								char **used_by);
extern void rinq_outbox_wait(RinqDatabase *db, Oid schema, const RinqOutbound *message,
							 const RinqFields *fields, const RinqDelivery *delivery);
extern bool rinq_outbox_cancel(RinqDatabase *db, Oid schema, const char *id);

#endif							/* RINQ_OUTBOX_WAITING_H */
