/*-------------------------------------------------------------------------
 *
 * backend/outbox.h
 *	  The tables in which durable messages wait until the broker has them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OUTBOX_H
#define RINQ_OUTBOX_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "ipc/sendqueue.h"
#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

/*
 * Where a row was last seen.  Nothing keeps it there: a process that goes
 * there looks whether the row is the one, by its id, or by its number if that
 * is all there is.
 */
typedef struct RinqOutboxRowRef
{
	int64		seq;			/* rows are sent in this order */
	RinqOutboxItem item;		/* the row's id, if that is known */
	bool		foreign;		/* the row is of a database that this one is a
								 * copy of */
	bool		found;			/* the row is there, and something is left to
								 * do with it */
} RinqOutboxRowRef;

/* the tables, open in a transaction of the outbox worker */
typedef struct RinqOutboxTables
{
	Relation	rels[RINQ_OUTBOX_TABLES];
	TupleTableSlot *slots[RINQ_OUTBOX_TABLES];
} RinqOutboxTables;

/* a row that cannot be sent as it is */
typedef struct RinqOutboxUnfit
{
	RinqOutboxRowRef ref;
	char	   *reason;
} RinqOutboxUnfit;

/* what reading rows has come to */
typedef struct RinqOutboxRead
{
	List	   *messages;		/* RinqOutbound * */
	Size		bytes;			/* of these */
	List	   *unfit;			/* RinqOutboxUnfit *: these cannot be sent */
	List	   *missing;		/* RinqOutboxRowRef *: these are not there */
} RinqOutboxRead;

/* writing, in the sender's transaction */
extern int64 rinq_outbox_next_seq(RinqDatabase *db);
extern void rinq_outbox_insert(RinqDatabase *db, Oid schema, RinqOutbound *message,
							   const RinqFields *fields);

/* reading and removing, each in a transaction of the outbox worker */
extern bool rinq_outbox_exists(Oid schema);
extern bool rinq_outbox_open(Oid schema, LOCKMODE mode, RinqOutboxTables *tables);
extern void rinq_outbox_close(RinqOutboxTables *tables);
extern void rinq_outbox_files(const RinqOutboxTables *tables, Oid *files);
extern RinqOutboxRowRef *rinq_outbox_scan(RinqDatabase *db, const RinqOutboxTables *tables,
										  Size *count);
extern Size rinq_outbox_read(const RinqOutboxTables *tables, RinqOutboxRowRef *refs, Size count,
							 Size max_bytes, RinqOutboxRead *result);
extern Size rinq_outbox_identify(const RinqOutboxTables *tables, RinqOutboxRowRef *refs,
								 Size count, List **nameless);
extern void rinq_outbox_search(const RinqOutboxTables *tables, List *refs);
extern bool rinq_outbox_has_any(const RinqOutboxTables *tables, int64 *seqs, Size count);
extern void rinq_outbox_remove(const RinqOutboxTables *tables, RinqOutboxRowRef *refs,
							   Size count);
extern void rinq_outbox_move(RinqDatabase *db, Oid schema, RinqOutbound *message,
							 const RinqFields *fields, const char *id, Oid database);
extern bool rinq_outbox_set_aside(const RinqOutboxTables *tables, Oid schema,
								  RinqOutboxRowRef *ref, int attempts, const char *error);

/* what giving back the space of deleted rows has come to, from good to bad */
typedef enum RinqRotation
{
	RINQ_ROTATION_DONE,			/* nothing is left to give back */
	RINQ_ROTATION_FILLED,		/* what is left has rows in it */
	RINQ_ROTATION_BLOCKED		/* what is left is in use */
} RinqRotation;

extern RinqRotation rinq_outbox_rotate(RinqDatabase *db, Oid schema, RinqOutboxTables *tables,
									   bool idle);

#endif							/* RINQ_OUTBOX_H */
