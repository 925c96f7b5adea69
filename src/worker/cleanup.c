/*-------------------------------------------------------------------------
 *
 * cleanup.c
 *	  What a request leaves behind in the process that has handled it, and how
 *	  the next one is kept from finding it.
 *
 * An executor handles one request after another, of different callers, in one
 * session of the role.  What PostgreSQL's DISCARD ALL ends is ended here too,
 * but for cached plans, which no handler can see; and some things beyond that.
 * What cannot be undone ends the process: its successor starts from nothing.
 *
 *	settings, SET ROLE, SET SESSION AUTHORIZATION	reset, however they were set
 *	custom settings that did not exist before		end the process
 *	prepared statements, cursors, temporary tables,
 *	sequence caches, LISTEN, advisory locks			dropped
 *	temporary replication slots						dropped
 *	seed of random()								renewed
 *	replication origin, backup in progress			end the process
 *	interrupts held by a library					end the process
 *	the extension's own								rinq_request_ended
 *
 * What stays is what libraries keep to themselves: procedural languages
 * (GD, %_SHARED), connections of dblink, and the like.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "backend/request_context.h"
#include "base/request_end.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "jit/jit.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "utils/fmgrprotos.h"
#include "utils/guc_tables.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "worker/cleanup.h"
#include "worker/time_limit.h"

/* whom this process was before it handled anything */
static Oid	first_session_user;
static Oid	first_role;
static Oid	first_user;

/* which custom settings there were that no library has defined */
static uint64 first_placeholders;

/*
 * Return a number that changes when a custom setting comes into being, or
 * goes.
 */
static uint64
placeholders_now(void)
{
	int			count;
	struct config_generic **settings = rinq_get_settings(&count);
	uint64		result = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		const char *name = settings[i]->name;

		if (settings[i]->flags & GUC_CUSTOM_PLACEHOLDER)
			result += hash_bytes_extended((const unsigned char *) name, (int) strlen(name), 1);
	}
	rinq_free_settings(settings);
	return result;
}

/*
 * Note the state that each request is to find.
 */
void
rinq_cleanup_init(void)
{
	Assert(!IsTransactionState());
	first_session_user = GetSessionUserId();
	first_role = GetCurrentRoleId();
	first_user = GetUserId();
	first_placeholders = placeholders_now();
}

/*
 * Note that the server's configuration was read again, and may have custom
 * settings that it had not.
 */
void
rinq_cleanup_configured(void)
{
	first_placeholders = placeholders_now();
}

/*
 * Reset one setting.  SetPGVariable() would look roles up, which it cannot
 * outside of a transaction.
 */
static void
reset_setting(const char *name)
{
	(void) set_config_option(name, NULL, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
}

/*
 * Reset settings and roles outside of transactions, so that the next one does
 * not begin under those of the last request.
 */
static void
reset_settings(void)
{
	if (GetSessionUserId() != first_session_user)
		reset_setting("session_authorization");
	ResetAllOptions();
	if (GetCurrentRoleId() != first_role || GetUserId() != first_user)
		reset_setting("role");
}

static void
drop_session_objects(void)
{
	Assert(OidIsValid(first_session_user));
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED; /* a serializable one may be refused,
										 * or have to wait */
	PushActiveSnapshot(GetTransactionSnapshot());
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetSequenceCaches();
	ResetTempTableNamespace();
	(void) DirectFunctionCall1(setseed, Float8GetDatum(2 * rinq_random_fraction() - 1));
	PopActiveSnapshot();
	CommitTransactionCommand();
	rinq_drop_temporary_slots();
}

/*
 * Undo what a request, or a failed attempt at one, has left behind in this
 * process.
 */
void
rinq_cleanup_session(void)
{
	Assert(!IsTransactionState());
	rinq_request_ended();
	rinq_failure_forget();
	reset_settings();
	drop_session_objects();
}

/* Say what is left that this process cannot get rid of, or return NULL. */
static const char *
left_for_good(void)
{
	if (GetSessionUserId() != first_session_user || GetCurrentRoleId() != first_role ||
		GetUserId() != first_user)
		return "has changed its role for good";
	if (placeholders_now() != first_placeholders)
		return "has made a custom setting";
	if (rinq_replication_origin() != InvalidReplOriginId)
		return "has set a replication origin";
	if (get_backup_status() != SESSION_BACKUP_NONE)
		return "has begun a backup";
	if (InterruptHoldoffCount != 0 || QueryCancelHoldoffCount != 0)
		return "has left interrupts held";
	return NULL;
}

/*
 * Tell whether everything is undone; else the process has to end.
 */
bool
rinq_cleanup_is_complete(void)
{
	const char *reason = left_for_good();

	if (reason != NULL)
		elog(DEBUG1, "rinq executor ends because a request %s", reason);
	return reason == NULL;
}

/*
 * End a transaction in which an error was raised, in a PG_CATCH that holds
 * interrupts: all that PostgreSQL does when a client's statement has failed.
 */
void
rinq_end_failed_transaction(MemoryContext context)
{
	Assert(InterruptHoldoffCount > 0);
	disable_all_timeouts(false);
	rinq_limit_disarm();
	AbortCurrentTransaction();
	PortalErrorCleanup();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	rinq_drop_temporary_slots();
	jit_reset_after_error();
	MemoryContextSwitchTo(context);
	FlushErrorState();
}
