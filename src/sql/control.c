/*-------------------------------------------------------------------------
 *
 * control.c
 *	  rinq_stop and rinq_start: taking this database off the network and back.
 *
 * Both only say what is wanted; the launcher and the peer see to it.  A peer
 * that was stopped stays so until rinq_start, or the server's next start.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/calls.h"
#include "backend/identity.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "backend/utility_hook.h"
#include "fmgr.h"
#include "ipc/shared.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"

PG_FUNCTION_INFO_V1(rinq_stop);
PG_FUNCTION_INFO_V1(rinq_start);

#define RECHECK 1000			/* ms */

/*
 * rinq_stop(graceful boolean) returns void
 *
 * Stops the peer of this database, and returns when it is gone.  A graceful
 * stop lets what runs finish, within rinq.shutdown_timeout.  In a handler it
 * returns at once, since the peer waits for the handler.
 */
Datum
rinq_stop(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	bool		graceful = PG_ARGISNULL(0) || PG_GETARG_BOOL(0);
	RinqDatabase *db;

	rinq_refuse_parallel(fcinfo);
	rinq_require_preloaded();
	db = rinq_require_database();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (db->oid == MyDatabaseId)
	{
		db->stopped = true;
		db->stop = true;
		db->stop_at_once = !graceful;
	}
	LWLockRelease(rinq_shared->lock);
	rinq_wake_peer(db);
	rinq_wake_launcher();

	if (rinq_inherited.trace.data != NULL)
		PG_RETURN_VOID();
	while (db->oid == MyDatabaseId && db->stopped && db->peer.state != RINQ_WORKER_NONE)
		(void) ConditionVariableTimedSleep(&db->changed, RECHECK,
										   RINQ_WAIT_EVENT(wait_event, "RinqStop"));
	ConditionVariableCancelSleep();
	PG_RETURN_VOID();
}

/*
 * rinq_start() returns void
 *
 * Has the peer of this database run again; but not if it is suspended, which is
 * said.  Listeners, subscriptions and outbox are read again in any case.
 */
Datum
rinq_start(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;
	RinqIdentities identities;
	const char *reason;

	rinq_refuse_parallel(fcinfo);
	rinq_require_preloaded();
	db = rinq_require_database();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (db->oid == MyDatabaseId)
	{
		db->stopped = false;
		db->stop_at_once = false;
	}
	identities = db->identities;
	LWLockRelease(rinq_shared->lock);
	rinq_utility_hook_reread_now();
	reason = rinq_identity_reason(&identities);
	if (reason != NULL)
		ereport(NOTICE,
				(errmsg("this database stays suspended: %s", reason),
				 errhint("%s", rinq_identity_hint(&identities))));
	PG_RETURN_VOID();
}
