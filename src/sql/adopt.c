/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  rinq_adopt: having a suspended copy of a database be a peer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/identity.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/utility_hook.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "ipc/sendqueue.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_adopt);

/* what others have written stays theirs: rows that have the number of no database, and the mailbox */
#define DISOWN "UPDATE %s SET database = 0 WHERE "
#define OF_OTHERS(table) "SELECT t.id FROM rinq_internal." table " t WHERE t.database OPERATOR(pg_catalog.=) 0"

typedef struct Disowned
{
	const char *table;
	const char *query;			/* $1, and $2 as a time: before when it was
								 * written */
} Disowned;

StaticAssertDecl(RINQ_OUTBOX_TABLES == 4, "each of them is in the list");
static const Disowned disowned[] = {
	{"outbox_0", DISOWN "seq OPERATOR(pg_catalog.<) $1"},
	{"outbox_1", DISOWN "seq OPERATOR(pg_catalog.<) $1"},
	{"outbox_2", DISOWN "seq OPERATOR(pg_catalog.<) $1"},
	{"outbox_3", DISOWN "seq OPERATOR(pg_catalog.<) $1"},
	{"outbox_waiting", DISOWN "seq OPERATOR(pg_catalog.<) $1"},
	{"outbox_ordered", DISOWN "id OPERATOR(pg_catalog.=) ANY (ARRAY(" OF_OTHERS("outbox_0")
	" UNION ALL " OF_OTHERS("outbox_1") " UNION ALL " OF_OTHERS("outbox_2") " UNION ALL " OF_OTHERS("outbox_3") "))"},
	{"outbox_key", DISOWN "used OPERATOR(pg_catalog.<) $2"
	" OR id OPERATOR(pg_catalog.=) ANY (ARRAY(" OF_OTHERS("outbox_waiting") "))"},
	{"inbox_waiting", DISOWN "database OPERATOR(pg_catalog.<>) 0"},
	{"mailbox", "UPDATE %s SET id = DEFAULT, created = DEFAULT WHERE created OPERATOR(pg_catalog.<) $2"},
};

/*
 * Mark the durable messages and requests that were there before this server wrote
 * anything: in a copy of a whole server they are the original's to send and to
 * handle, and have its number.  The mailbox is the original's as well.
 */
static void
disown_others(Oid schema)
{
	Oid			types[2] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2];
	int			i;

	values[0] = Int64GetDatum(rinq_identity_own_since());
	values[1] = TimestampTzGetDatum(rinq_identity_own_since());
	for (i = 0; i < (int) lengthof(disowned); i++)
		(void) rinq_own_table_write(schema, disowned[i].table, disowned[i].query, lengthof(types), types, values, NULL);
}

/*
 * rinq_adopt() returns boolean
 *
 * Has this database be a peer, although it is a copy of another one or the
 * server starts suspended; from commit on.  False when it was not suspended.
 */
Datum
rinq_adopt(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;
	Oid			schema = rinq_internal_schema();
	bool		copied;
	bool		waits = false;

	rinq_refuse_parallel(fcinfo);
	PreventCommandIfReadOnly("rinq_adopt()");
	rinq_require_preloaded();
	db = rinq_my_database();
	if (db != NULL)
	{
		LWLockAcquire(rinq_shared->lock, LW_SHARED);
		waits = db->oid == MyDatabaseId && db->identities.suspended == RINQ_SUSPENDED_START;
		LWLockRelease(rinq_shared->lock);
	}
	copied = rinq_identity_renew_if_copied(schema);
	if (!copied && !waits)
		PG_RETURN_BOOL(false);
	if (waits)
		disown_others(schema);
	rinq_utility_hook_adopt_at_commit();
	PG_RETURN_BOOL(true);
}
