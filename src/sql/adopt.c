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
#include "backend/outbox.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/utility_hook.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_adopt);

/*
 * Mark the durable messages that were there when the server started: in a copy
 * of a whole server they are the original's to send, and have its number.
 */
static void
disown_outbox(Oid schema)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	int			i;

	values[0] = Int64GetDatum(PgStartTime);
	for (i = 0; i < RINQ_OUTBOX_TABLES; i++)
		(void) rinq_own_table_write(schema, psprintf("outbox_%d", i),
									"UPDATE %s SET database = 0 WHERE seq OPERATOR(pg_catalog.<) $1",
									1, types, values, NULL);
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
		disown_outbox(schema);
	rinq_utility_hook_adopt_at_commit();
	PG_RETURN_BOOL(true);
}
