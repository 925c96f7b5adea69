/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The process that sees to it that each database with the extension has
 *	  one peer.
 *
 * It is connected to no database.  It looks at pg_database when the server
 * starts and when told to, has each database looked into by a reader, starts
 * peers, and starts them again, later and later, when they fail.  It talks to
 * no broker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "ipc/worker.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "worker/database_list.h"
#include "worker/follow.h"

#define FIRST_START_DELAY 100	/* ms */
#define LAST_START_DELAY 30000	/* ms */
#define STABLE_AFTER 10000		/* ms a peer lives before it counts as healthy */
#define ATTACH_TIMEOUT 10000	/* ms for an adopted worker to show up */
#define REGISTER_RETRY 250		/* ms until a full worker table is tried again */
#define COMPLAIN_INTERVAL 60000 /* ms between log entries about that */
#define MAX_READERS 4			/* at once, of those that may all be due at
								 * the same time */

/* what the launcher alone knows about each entry of RinqShared.databases */
typedef struct Supervision
{
	BackgroundWorkerHandle *reader;
	BackgroundWorkerHandle *peer;
	bool		peer_seen;		/* the end of the peer was not yet taken note
								 * of */
	int64		next_read;
	int			read_delay;		/* ms, grows while readers fail */
	int64		peer_started;
} Supervision;

static Supervision *supervision;

/* databases that no entry was free for */
static bool entries_missing = false;
static bool told_entries_missing = false;
static int64 complained_at = 0;

static void
launcher_gone(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (rinq_shared->launcher_pid == MyProcPid)
	{
		rinq_shared->launcher_procno = RINQ_NO_PROC;
		rinq_shared->launcher_pid = 0;
	}
	LWLockRelease(rinq_shared->lock);
}

/* Tell whether the reader has found that the extension is not there. */
static bool
found_absent(const RinqDatabase *db)
{
	Assert(LWLockHeldByMe(rinq_shared->lock));
	return db->presence == RINQ_ABSENT && db->read_done == db->read_wanted &&
		rinq_may_be_served(db->oid);
}

/*
 * Bring the entries into line with pg_database.
 */
static void
scan_databases(void)
{
	MemoryContext context;
	List	   *found;
	ListCell   *lc;
	int			i;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	rinq_shared->rescan = false;
	if (rinq_shared->recheck)
		rinq_forget_absent();
	rinq_shared->recheck = false;
	LWLockRelease(rinq_shared->lock);

	context = AllocSetContextCreate(TopMemoryContext, "rinq databases",
									ALLOCSET_DEFAULT_SIZES);
	found = rinq_list_databases(context);

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];
		bool		exists = false;

		foreach(lc, found)
		{
			RinqFoundDatabase *entry = lfirst(lc);

			if (entry->oid == db->oid)
			{
				db->name = entry->name;
				exists = true;

				/* the database was not served for a while */
				if (db->presence == RINQ_ABSENT && !found_absent(db))
				{
					db->presence = RINQ_UNKNOWN;
					db->read_wanted++;
				}
			}
		}
		if (OidIsValid(db->oid) && !exists)
			db->presence = RINQ_ABSENT;

		/* what it is a copy of may be gone */
		else if (db->identities.suspended != RINQ_NOT_SUSPENDED)
			db->read_wanted++;
	}
	entries_missing = false;
	foreach(lc, found)
	{
		RinqFoundDatabase *entry = lfirst(lc);
		RinqDatabase *db = rinq_find_database(entry->oid);

		if (db != NULL || rinq_known_absent(entry->oid))
			continue;
		db = rinq_claim_database(entry->oid);
		if (db == NULL)
		{
			entries_missing = true;
			break;
		}
		db->name = entry->name;
		db->read_wanted++;
	}
	LWLockRelease(rinq_shared->lock);
	rinq_remember_databases(found);
	MemoryContextDelete(context);
}

static bool
is_worker_stopped(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	return GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED;
}

/*
 * Notice a worker that ended without saying so, before it ran; return true
 * when it did.  A worker that an earlier launcher started has no handle here,
 * and gets a little time to show up.
 */
static bool
reap_worker(RinqWorker *worker, BackgroundWorkerHandle **handle)
{
	bool		lost;

	if (worker->state == RINQ_WORKER_NONE)
		return false;
	if (*handle != NULL)
		lost = is_worker_stopped(*handle);
	else
		lost = worker->state == RINQ_WORKER_STARTING &&
			rinq_clock_ms() - worker->since >= ATTACH_TIMEOUT;
	if (!lost)
		return false;
	worker->state = RINQ_WORKER_NONE;
	worker->procno = RINQ_NO_PROC;
	worker->pid = 0;
	return true;
}

static void
forget_handle(BackgroundWorkerHandle **handle)
{
	if (*handle != NULL)
	{
		pfree(*handle);
		*handle = NULL;
	}
}

static int64
clock_ms_after(int ms)
{
	return rinq_clock_ms() + ms;
}

static bool
is_ahead(int64 due)
{
	return due > rinq_clock_ms();
}

/* a worker to be registered for a database, once the lock is released */
typedef struct Start
{
	bool		wanted;
	RinqWorkerArgs args;
} Start;

/* Have the entry say that the worker is starting; the lock is held. */
static void
want_worker(RinqDatabase *db, RinqWorker *worker, Start *start)
{
	start->wanted = true;
	memset(&start->args, 0, sizeof(start->args));
	start->args.database = (int) (db - rinq_shared->databases);
	start->args.dboid = db->oid;
	start->args.incarnation = db->incarnation;
	worker->state = RINQ_WORKER_STARTING;
	worker->since = rinq_clock_ms();
	worker->pid = 0;
	worker->procno = RINQ_NO_PROC;
}

static void
complain_about_workers(RinqDatabase *db, const char *purpose)
{
	if (complained_at != 0 && rinq_clock_ms() - complained_at < COMPLAIN_INTERVAL)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("rinq cannot start a background worker to %s database \"%s\"",
					purpose, NameStr(db->name)),
			 errdetail("It is tried again; executors make room for it as their handlers end."),
			 errhint("Increase \"max_worker_processes\".")));
	complained_at = rinq_clock_ms();
}

/* register what was wanted; return when to try again, 0 when it has worked */
static int64
register_wanted(RinqDatabase *db, const Start *start, const char *kind, const char *entry,
				const char *purpose, RinqWorker *worker, BackgroundWorkerHandle **handle)
{
	forget_handle(handle);
	if (rinq_start_worker(kind, entry, &start->args, handle))
	{
		rinq_workers_short(RINQ_NOT_SHORT);
		return 0;
	}
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (worker->state == RINQ_WORKER_STARTING)
		worker->state = RINQ_WORKER_NONE;
	LWLockRelease(rinq_shared->lock);
	rinq_workers_short(RINQ_SHORT_OF_ANY);
	complain_about_workers(db, purpose);
	return clock_ms_after(REGISTER_RETRY);
}

/*
 * Tell whether a database is read when many others are, too: for the first time,
 * or because a standby looks at what was replayed.
 */
static bool
is_read_with_others(const RinqDatabase *db)
{
	return rinq_is_following() || db->presence == RINQ_UNKNOWN;
}

/* Count the databases that are being read with others. */
static int
readers_at_once(void)
{
	int			count = 0;
	int			i;

	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];

		if (OidIsValid(db->oid) && is_read_with_others(db) &&
			db->reader.state != RINQ_WORKER_NONE)
			count++;
	}
	return count;
}

/*
 * Hold a database for absent that the last look has not found to be served: a
 * reader that began before has said since that the extension is there.  What
 * was made known after that look is left to the next one.
 */
static void
note_not_served(RinqDatabase *db)
{
	Assert(LWLockHeldByMeInMode(rinq_shared->lock, LW_EXCLUSIVE));
	if (!rinq_shared->rescan && !rinq_may_be_served(db->oid))
		db->presence = RINQ_ABSENT;
}

/* return when to look again, 0 for no particular time; the lock is held */
static int64
supervise_reader(RinqDatabase *db, Supervision *sup, Start *start)
{
	Assert(LWLockHeldByMeInMode(rinq_shared->lock, LW_EXCLUSIVE));
	if (reap_worker(&db->reader, &sup->reader) || db->reader.state == RINQ_WORKER_NONE)
	{
		if (sup->reader != NULL && is_worker_stopped(sup->reader))
		{
			/* the reader ended; did it get to read? */
			forget_handle(&sup->reader);
			if (db->read_done == db->read_wanted)
				sup->read_delay = 0;
			else if (db->ddl_blocks == 0)
			{
				sup->read_delay = rinq_backoff_next(sup->read_delay, FIRST_START_DELAY, LAST_START_DELAY);
				rinq_shared->rescan = true; /* it may be gone */
			}
			sup->next_read = clock_ms_after(sup->read_delay);
		}
	}
	if (db->reader.state != RINQ_WORKER_NONE || sup->reader != NULL ||
		db->read_wanted == db->read_done || db->presence == RINQ_ABSENT)
		return db->reader.state != RINQ_WORKER_NONE ? clock_ms_after(ATTACH_TIMEOUT) : 0;
	if (db->ddl_blocks > 0)
		return 0;
	if (is_ahead(sup->next_read))
		return sup->next_read;
	if (is_read_with_others(db) && readers_at_once() >= MAX_READERS)
		return clock_ms_after(REGISTER_RETRY);
	want_worker(db, &db->reader, start);
	return clock_ms_after(ATTACH_TIMEOUT);
}

/* Clean up after a peer that has ended, and decide when to go on. */
static void
note_peer_end(RinqDatabase *db, Supervision *sup)
{
	int			jitter;

	rinq_slots_peer_gone(db);
	rinq_forget_unattached(db);
	sup->peer_seen = false;
	if (rinq_clock_ms() - sup->peer_started >= STABLE_AFTER)
		db->start_delay = 0;
	jitter = (int) (rinq_random_fraction() * FIRST_START_DELAY);
	if (db->stop)
	{
		db->next_start = 0;
		db->start_delay = 0;
	}
	else
	{
		db->next_start = clock_ms_after(db->start_delay + jitter / 2);
		db->start_delay = rinq_backoff_next(db->start_delay, FIRST_START_DELAY, LAST_START_DELAY);
	}

	SpinLockAcquire(&db->mutex);
	db->status.net = RINQ_NET_STOPPED;
	db->status.blocked = false;
	db->status.peer_id[0] = '\0';
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->changed);
}

static int64
supervise_peer(RinqDatabase *db, Supervision *sup, Start *start)
{
	(void) reap_worker(&db->peer, &sup->peer);
	if (db->peer.state == RINQ_WORKER_NONE && sup->peer_seen)
	{
		/* wait for the process itself to be gone */
		if (sup->peer != NULL && !is_worker_stopped(sup->peer))
			return clock_ms_after(REGISTER_RETRY);
		forget_handle(&sup->peer);
		note_peer_end(db, sup);
	}

	if (db->presence == RINQ_ABSENT)
		db->stopped = false;	/* of an extension that comes back, nothing is
								 * known */
	db->stop = db->presence == RINQ_ABSENT || db->stopped ||
		db->identities.suspended != RINQ_NOT_SUSPENDED ||
		!rinq_database_is_served(NameStr(db->name));
	if (db->peer.state != RINQ_WORKER_NONE)
	{
		if (db->stop)
			rinq_wake_peer(db);
		sup->peer_seen = true;
		return 0;
	}
	if (db->stop || db->presence != RINQ_PRESENT)
		return 0;
	if (is_ahead(db->next_start))
		return db->next_start;

	/* before the first start, it was read a moment ago */
	if (sup->peer_started != 0)
		db->read_wanted++;
	db->incarnation++;
	sup->peer_started = rinq_clock_ms();
	want_worker(db, &db->peer, start);
	sup->peer_seen = true;
	return clock_ms_after(ATTACH_TIMEOUT);
}

/*
 * Give the entry of a database without the extension to the next one; the lock
 * is held.  Returns its configuration, which is to be freed.
 */
static dsa_pointer
release_if_unused(RinqDatabase *db, Supervision *sup)
{
	dsa_pointer config;

	if (db->presence != RINQ_ABSENT || db->ddl_blocks > 0 || sup->peer_seen ||
		db->peer.state != RINQ_WORKER_NONE || !rinq_database_is_left(db))
		return InvalidDsaPointer;
	if (found_absent(db))
		rinq_remember_absent(db->oid);
	if (entries_missing)
		rinq_shared->rescan = true;
	config = db->config;
	db->config = InvalidDsaPointer;
	db->oid = InvalidOid;
	forget_handle(&sup->reader);
	forget_handle(&sup->peer);
	memset(sup, 0, sizeof(*sup));
	ConditionVariableBroadcast(&db->changed);
	return config;
}

/* Have the databases decided about that waited until all were looked into. */
static void
decide_about_copies(void)
{
	int			i;

	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];

		if (db->identities.suspended == RINQ_SUSPENDED_UNDECIDED &&
			db->read_wanted == db->read_done)
		{
			db->read_wanted++;
			rinq_wake_launcher();
		}
	}
}

/*
 * Note when all databases have been looked into.  Returns whether to complain
 * that there were more than there are entries for; the lock is held.
 */
static bool
note_scan(void)
{
	bool		all_known = !rinq_shared->rescan;
	int			i;

	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		RinqDatabase *db = &rinq_shared->databases[i];

		if (OidIsValid(db->oid) && db->presence == RINQ_UNKNOWN)
			all_known = false;
	}
	if (!all_known)
		return false;
	decide_about_copies();
	if (!rinq_shared->scanned)
	{
		rinq_shared->scanned = true;
		ConditionVariableBroadcast(&rinq_shared->scan_done);
	}
	return entries_missing;
}

static void
complain_about_entries(void)
{
	if (told_entries_missing)
		return;
	told_entries_missing = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("rinq cannot serve all databases: %d are served",
					rinq_shared->num_databases),
			 errhint("Increase \"rinq.max_databases\", or list the databases to serve in \"rinq.databases\".")));
}

/*
 * Look at one database.  What takes time is done once the lock is released.
 * Returns when to look again, 0 for no particular time.
 */
static int64
supervise_database(RinqDatabase *db, Supervision *sup)
{
	Start		reader = {false};
	Start		peer = {false};
	dsa_pointer config = InvalidDsaPointer;
	int64		next = 0;
	int64		retry;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (OidIsValid(db->oid))
	{
		note_not_served(db);
		next = rinq_clock_earlier(supervise_reader(db, sup, &reader), supervise_peer(db, sup, &peer));
		config = release_if_unused(db, sup);
	}
	LWLockRelease(rinq_shared->lock);

	rinq_config_free(config);
	if (reader.wanted)
	{
		retry = register_wanted(db, &reader, "rinq reader", "rinq_reader_main",
								"read the configuration of", &db->reader, &sup->reader);
		sup->next_read = retry;
		next = rinq_clock_earlier(next, retry);
	}
	if (peer.wanted)
	{
		retry = register_wanted(db, &peer, "rinq peer", "rinq_peer_main",
								"be the peer of", &db->peer, &sup->peer);
		if (retry != 0)
		{
			db->next_start = retry;
			sup->peer_seen = false;
		}
		next = rinq_clock_earlier(next, retry);
	}
	return next;
}

/* Look at everything once; returns how long to sleep, -1 for until woken. */
static long
supervise_workers(void)
{
	int64		next = 0;
	bool		missing;
	int			i;

	for (i = 0; i < rinq_shared->num_databases; i++)
		next = rinq_clock_earlier(next, supervise_database(&rinq_shared->databases[i], &supervision[i]));

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	missing = note_scan();
	if (rinq_shared->rescan)
		next = rinq_clock_ms();
	LWLockRelease(rinq_shared->lock);
	if (missing)
		complain_about_entries();

	if (next == 0)
		return -1L;
	return (long) Max(next - rinq_clock_ms(), 0);
}

void
rinq_launcher_main(Datum arg)
{
	static uint32 wait_event = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, PG_SIG_IGN);	/* there is no statement to cancel */
	BackgroundWorkerUnblockSignals();

	if (!rinq_preloaded())
		proc_exit(0);
	before_shmem_exit(launcher_gone, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/*
	 * a serializable transaction is refused on a standby, and may have to
	 * wait elsewhere
	 */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_SESSION);
	supervision = MemoryContextAllocZero(TopMemoryContext,
										 rinq_shared->num_databases * sizeof(Supervision));

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	rinq_shared->launcher_procno = RINQ_MY_PROCNO;
	rinq_shared->launcher_pid = MyProcPid;
	LWLockRelease(rinq_shared->lock);

	/* also after a promotion that an earlier launcher did not live to see */
	rinq_look_again(false);
	rinq_follow_begin();

	while (!ShutdownRequestPending)
	{
		long		timeout;
		long		limit;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			told_entries_missing = false;
			complained_at = 0;
			rinq_look_again(false);
		}
		limit = rinq_follow_primary();
		if (rinq_shared->rescan)
			scan_databases();

		pgstat_report_activity(STATE_RUNNING, "rinq: supervising peers");
		timeout = supervise_workers();
		if (limit >= 0)
			timeout = timeout < 0 ? limit : Min(timeout, limit);
		pgstat_report_activity(STATE_IDLE, "rinq: supervising peers");
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, RINQ_WAIT_EVENT(wait_event, "RinqLauncherMain"));
		ResetLatch(MyLatch);
	}

	/* anything but 0, after which the postmaster would not start it again */
	proc_exit(1);
}
