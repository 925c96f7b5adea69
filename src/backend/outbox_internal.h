/*-------------------------------------------------------------------------
 *
 * backend/outbox_internal.h
 *	  What the files share that know the tables of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_INTERNAL_H
#define RINQ_OUTBOX_INTERNAL_H

#include "postgres.h"

#include "backend/outbox.h"

/* columns; the install script defines them to match */
enum
{
	COLUMN_SEQ,
	COLUMN_ID,
	COLUMN_NAMESPACE,
	COLUMN_COMMAND,
	COLUMN_PAYLOAD,
	COLUMN_TRACE_ID,
	COLUMN_DEADLINE,
	COLUMN_DATABASE,
	COLUMN_SPAN_CONTEXT,
	COLUMN_TRACEPARENT,
	COLUMN_TRACESTATE,
	COLUMN_IS_CALL,
	OUTBOX_COLUMNS,

	/* of the table for those that were set aside */
	COLUMN_ATTEMPTS = OUTBOX_COLUMNS,
	COLUMN_ERROR,
	COLUMN_SET_ASIDE,
	DEAD_COLUMNS
};

extern Oid	rinq_outbox_table(Oid schema, int table);
extern Relation rinq_outbox_open_table(Oid relid, int columns, LOCKMODE mode);
extern void rinq_outbox_number_after(RinqDatabase *db, int64 seq);

#endif							/* RINQ_OUTBOX_INTERNAL_H */
