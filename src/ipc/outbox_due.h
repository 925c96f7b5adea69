/*-------------------------------------------------------------------------
 *
 * ipc/outbox_due.h
 *	  When the outbox worker is to look at messages that wait and at durable
 *	  calls, and to purge.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_DUE_H
#define RINQ_OUTBOX_DUE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ipc/shared.h"

extern TimestampTz rinq_due(RinqDatabase *db);
extern TimestampTz rinq_due_take(RinqDatabase *db);
extern bool rinq_due_lower(RinqDatabase *db, TimestampTz due);
extern bool rinq_due_clock_known(RinqDatabase *db);
extern bool rinq_due_clock_stepped(RinqDatabase *db, int64 difference);
extern TimestampTz rinq_key_expiry(TimestampTz used);
extern void rinq_call_due_lower(RinqDatabase *db, int64 due);
extern void rinq_purge_due_lower(RinqDatabase *db, int64 due);
extern void rinq_waiting_add(RinqDatabase *db, int64 rows);

#endif							/* RINQ_OUTBOX_DUE_H */
