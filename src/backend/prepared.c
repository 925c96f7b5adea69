/*-------------------------------------------------------------------------
 *
 * backend/prepared.c
 *	  Prepared transactions with durable messages, whichever process commits
 *	  them.
 *
 * Messages of a prepared transaction are found by a scan of the outbox after
 * it has been committed.  COMMIT PREPARED as a command is noticed by the
 * utility hook (backend/utility_hook.c).  Others commit without a command: the
 * apply worker of a subscription with two_phase, for one.  No callback tells
 * of that, but a prepared transaction keeps the invalidation messages that are
 * due with its commit, and the process that commits it sends them, and gets
 * them itself.  So a transaction with messages invalidates the relcache entry
 * of a table that nothing else ever changes, and a background worker that
 * hears of it asks for a scan.  Ordinary sessions need not: they commit by the
 * command.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/parallel.h"
#include "backend/own_schema.h"
#include "backend/prepared.h"
#include "base/clock.h"
#include "ipc/outbox_due.h"
#include "ipc/sendqueue.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

/* the table; it is written by the install script only */
#define SIGNAL_TABLE "manifest"

/*
 * Tell whether this process may commit transactions that others have prepared.
 */
static bool
commits_prepared(void)
{
	return AmBackgroundWorkerProcess() && MyBgworkerEntry != NULL && !IsParallelWorker() &&
		strcmp(MyBgworkerEntry->bgw_library_name, "rinq") != 0;
}

/*
 * Have the outbox scanned, and durable calls looked at, since a transaction was
 * committed that was prepared before.  Nothing here can fail.
 */
void
rinq_prepared_committed(RinqDatabase *db)
{
	rinq_sendqueue_want_scan(db);
	rinq_call_due_lower(db, rinq_wall_ms());
}

/*
 * Ask for a scan when the table is invalidated; all of the cache is when this
 * process has missed messages.  Nothing here can fail.
 */
static void
relation_invalidated(Datum arg, Oid relid)
{
	int			i;

	if (rinq_shared == NULL || !OidIsValid(MyDatabaseId) || !commits_prepared())
		return;
	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];

		if (db->oid == MyDatabaseId && db->presence == RINQ_PRESENT &&
			OidIsValid(db->prepared_signal) &&
			(relid == db->prepared_signal || !OidIsValid(relid)))
			rinq_prepared_committed(db);
	}
}

/*
 * Tell the other processes which table signals, for transactions that were
 * prepared before the server was started.
 */
void
rinq_prepared_watch(RinqDatabase *db)
{
	Oid			schema = rinq_internal_schema();

	db->prepared_signal = OidIsValid(schema) ? get_relname_relid(SIGNAL_TABLE, schema) : InvalidOid;
}

/*
 * Have the commit of the current transaction noticed, which is about to be
 * prepared and has written durable messages.
 */
void
rinq_prepared_announce(RinqDatabase *db)
{
	rinq_prepared_watch(db);
	if (OidIsValid(db->prepared_signal))
		CacheInvalidateRelcacheByRelid(db->prepared_signal);
}

/*
 * Install the callback; called while the server loads the library, from which
 * all processes inherit it.
 */
void
rinq_prepared_init(void)
{
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
}
