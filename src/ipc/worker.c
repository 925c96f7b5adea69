/*-------------------------------------------------------------------------
 *
 * ipc/worker.c
 *	  Registering the extension's background workers.
 *
 * They run when recovery has ended; with rinq.standby, from when a standby can
 * be read.  The launcher alone is restarted by the postmaster.  All others are
 * registered as never to be restarted, because the process that started them
 * knows when, and whether, they should run again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/worker.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/guc.h"

/*
 * Tell from when on workers run: on a standby only where that is wanted.
 */
static BgWorkerStartTime
start_time(void)
{
	return rinq_standby ? BgWorkerStart_ConsistentState : BgWorkerStart_RecoveryFinished;
}

/*
 * Register the launcher; called while the server loads the library.
 */
void
rinq_register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = start_time();
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "rinq", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "rinq_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "rinq launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "rinq launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * Start a worker for a database; false when the server has no place for
 * another one.  The calling process is told of its start and end.
 */
bool
rinq_start_worker(const char *kind, const char *entry,
				  const RinqWorkerArgs *args, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;

	StaticAssertStmt(sizeof(RinqWorkerArgs) <= BGW_EXTRALEN,
					 "worker arguments must fit");

	Assert(args->database >= 0 && args->database < rinq_shared->num_databases);
	Assert(!LWLockHeldByMe(rinq_shared->lock));
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = start_time();
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "rinq", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, entry, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "%s for database \"%s\"", kind,
			 NameStr(rinq_shared->databases[args->database].name));
	strlcpy(worker.bgw_type, kind, BGW_MAXLEN);
	memcpy(worker.bgw_extra, args, sizeof(*args));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/*
 * Read the arguments of a worker and find its database, which it still has to
 * check under the lock: the first that each worker does.
 */
RinqDatabase *
rinq_worker_attach(RinqWorkerArgs *args)
{
	memcpy(args, MyBgworkerEntry->bgw_extra, sizeof(*args));
	if (!rinq_preloaded() || args->database < 0 ||
		args->database >= rinq_shared->num_databases)
		elog(ERROR, "rinq worker started with bad arguments");
	return &rinq_shared->databases[args->database];
}

/*
 * Connect to the database as a role, the superuser for none, and be that role:
 * what ALTER ROLE or ALTER DATABASE ... SET role says is for clients.  A handler
 * runs as the role that has registered it, and a worker that uses the extension's
 * tables has to be able to.
 */
void
rinq_worker_connect(const RinqWorkerArgs *args, Oid role, uint32 flags)
{
	BackgroundWorkerInitializeConnectionByOid(args->dboid, role, flags);
	SetConfigOption("role", "none", PGC_USERSET, PGC_S_OVERRIDE);
	Assert(!OidIsValid(GetCurrentRoleId()));
}

/*
 * Connect to the database for work on the extension's own tables, whatever
 * is set for those who use it.  What is written there waits for no standby:
 * messages that rely on it follow it there, and a removal is no reason to wait.
 */
void
rinq_worker_connect_to_own_tables(const RinqWorkerArgs *args)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"statement_timeout", "0"},
		{"transaction_timeout", "0"},	/* from 17 on */
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"synchronous_commit", "local"}
	};
	int			i;

	rinq_worker_connect(args, InvalidOid, 0);
	for (i = 0; i < (int) lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_SESSION);
	}
}

/*
 * Tell those who may wait for it that a worker has left the database: a command
 * that needs it empty, the peer, which may want another one, and the launcher,
 * which gives the entry to the next database once all have left.
 */
void
rinq_worker_left(RinqDatabase *db)
{
	Assert(!LWLockHeldByMe(rinq_shared->lock));
	ConditionVariableBroadcast(&db->changed);
	rinq_wake_peer(db);
	rinq_wake_launcher();
}
