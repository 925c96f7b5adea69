/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The tables in which durable messages wait until the broker has them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_H
#define RINQ_OUTBOX_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "sendqueue.h"

/* a row as the scan of all tables finds it */
typedef struct RinqOutboxPlace
{
	int64		seq;			/* rows are sent in this order */
	RinqOutboxItem item;		/* without its id */
	bool		foreign;		/* it is of a database that this one is a copy of */
} RinqOutboxPlace;

/* writing, in the sender's transaction */
extern void rinq_outbox_insert(Oid schema, RinqOutgoing *message, const RinqBytes *fields);

/* reading and removing, each in a transaction of the outbox worker */
extern bool rinq_outbox_exists(Oid schema);
extern RinqOutboxPlace *rinq_outbox_scan(Oid schema, Size *count);
extern Size rinq_outbox_read(Oid schema, RinqOutboxItem *items, Size count, Size max_bytes,
							 List **messages, List **missing);
extern void rinq_outbox_remove(Oid schema, RinqOutboxItem *items, Size count);
extern void rinq_outbox_set_aside(Oid schema, RinqOutboxFailed *failed, Size count);
typedef enum RinqRotation
{
	RINQ_ROTATION_DONE,			/* nothing is left to do */
	RINQ_ROTATION_PROGRESS,		/* something was done, and something is left */
	RINQ_ROTATION_STUCK			/* somebody uses what is left */
} RinqRotation;

extern RinqRotation rinq_outbox_rotate(RinqDatabase *db, Oid schema, bool idle);

#endif							/* RINQ_OUTBOX_H */
