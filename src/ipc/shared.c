/*-------------------------------------------------------------------------
 *
 * ipc/shared.c
 *	  Finding things in the extension's shared memory.
 *
 * It holds no pointers of a process: processes are named by their number, slots
 * of databases by their offset.  How it is made is startup.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "ipc/shared.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#define SHORT_FOR 2000			/* ms that a shortage counts after the last
								 * attempt */

RinqShared *rinq_shared = NULL;

static dsa_area *payload_area = NULL;

/* the server was started with this library */
bool		rinq_loaded_at_start = false;

/*
 * Use this memory from now on; NULL: there is none.
 */
void
rinq_shared_use(RinqShared *shared)
{
	rinq_shared = shared;
	payload_area = NULL;
}

bool
rinq_preloaded(void)
{
	return rinq_shared != NULL;
}

/*
 * Raise an error unless the library was loaded at server start, without
 * which there are neither shared memory nor processes.
 */
void
rinq_require_preloaded(void)
{
	if (!rinq_preloaded() && rinq_loaded_at_start)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq could not set up its shared memory when the server started"),
				 errdetail("Another library has put itself in the place of the hook \"shmem_startup_hook\", and does not pass it on."),
				 errhint("Name \"rinq\" after it in the setting \"shared_preload_libraries\", and restart the server.")));
	if (!rinq_preloaded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq must be loaded when the server starts"),
				 errhint("Add \"rinq\" to the setting \"shared_preload_libraries\", and restart the server.")));
}

/*
 * Return the payload area as this process sees it.
 */
dsa_area *
rinq_dsa(void)
{
	if (payload_area == NULL)
	{
		void	   *memory = (char *) rinq_shared + rinq_shared->dsa_offset;
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		payload_area = dsa_attach_in_place(memory, NULL);
		MemoryContextSwitchTo(old);
		dsa_pin_mapping(payload_area);
		on_shmem_exit(dsa_on_shmem_exit_release_in_place, PointerGetDatum(memory));
	}
	return payload_area;
}

struct RinqSlots *
rinq_slots_of(RinqDatabase *db)
{
	Assert(db >= rinq_shared->databases && db < rinq_shared->databases + rinq_shared->num_databases);
	return (struct RinqSlots *) ((char *) rinq_shared + db->slots_offset);
}

/*
 * Find the entry of a database; NULL when there is none.  The caller holds the
 * lock.
 */
RinqDatabase *
rinq_find_database(Oid dboid)
{
	int			i;

	Assert(LWLockHeldByMe(rinq_shared->lock));
	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		if (rinq_shared->databases[i].oid == dboid)
			return &rinq_shared->databases[i];
	}
	return NULL;
}

/*
 * Find the entry of a database, or make it; NULL when all are taken.  The
 * caller holds the lock exclusively.
 */
RinqDatabase *
rinq_claim_database(Oid dboid)
{
	RinqDatabase *db = rinq_find_database(dboid);
	int			i;

	Assert(OidIsValid(dboid));
	Assert(LWLockHeldByMeInMode(rinq_shared->lock, LW_EXCLUSIVE));
	if (db != NULL)
		return db;
	db = rinq_find_database(InvalidOid);
	if (db == NULL)
		return NULL;

	db->oid = dboid;
	memset(&db->name, 0, sizeof(db->name));
	db->presence = RINQ_UNKNOWN;
	db->read_wanted = 0;
	db->read_done = 0;
	db->stop = false;
	db->stopped = false;
	db->stop_at_once = false;
	memset(&db->identities, 0, sizeof(db->identities));
	db->adopted = false;
	pg_atomic_write_u32(&db->executor_terminated, 0);
	pg_atomic_write_u64(&db->responses_dropped_to, 0);
	pg_atomic_write_u64(&db->longest_turn, 0);
	pg_atomic_write_u64(&db->longest_turn_cpu, 0);
	pg_atomic_write_u64(&db->last_purge, 0);
	pg_atomic_write_u64(&db->purge_due, 0);
	pg_atomic_write_u64(&db->purge_told, 0);
	pg_atomic_write_u32(&db->purger, 0);
	db->handled_counted = false;
	db->purge_more = false;
	db->purge_not_before = 0;
	db->ddl_blocks = 0;
	db->prepared_signal = InvalidOid;
	db->told_unreadable = 0;
	db->next_start = 0;
	db->start_delay = 0;
	SpinLockAcquire(&db->mutex);
	memset(&db->status, 0, sizeof(db->status));
	db->early_errors_since = 0;
	db->early_errors_logged = 0;
	db->early_errors_suppressed = 0;
	SpinLockRelease(&db->mutex);
	for (i = 0; i < RINQ_NUM_COUNTERS; i++)
		pg_atomic_write_u64(&db->counters[i], 0);
	pg_atomic_write_u64(&db->outbox_depth, 0);
	pg_atomic_write_u32(&db->outbox_goes_on, 0);
	pg_atomic_write_u64(&db->outbox_waiting, 0);
	pg_atomic_write_u64(&db->outbox_due, (uint64) DT_NOBEGIN);
	pg_atomic_write_u64(&db->outbox_clock, 0);
	pg_atomic_write_u64(&db->outbox_mended_at, 0);
	return db;
}

/*
 * Find the entry of the database this process is connected to, or NULL. An
 * entry that was found is still checked at each use, since the extension may
 * have been dropped and its entry given to another database.
 */
RinqDatabase *
rinq_my_database(void)
{
	static RinqDatabase *cached = NULL;

	if (cached != NULL && cached->oid == MyDatabaseId)
		return cached;

	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	cached = rinq_find_database(MyDatabaseId);
	LWLockRelease(rinq_shared->lock);
	return cached;
}

/*
 * Set a process's latch.  A process that ended meanwhile leaves its number to
 * another, which a wake-up without a reason does not disturb.
 */
void
rinq_wake_proc(int procno)
{
	Assert(procno == RINQ_NO_PROC || (procno >= 0 && procno < (int) ProcGlobal->allProcCount));
	if (procno != RINQ_NO_PROC)
		SetLatch(RINQ_PROC_LATCH(procno));
}

void
rinq_wake_peer(RinqDatabase *db)
{
	rinq_wake_proc(db->peer.procno);
}

void
rinq_wake_launcher(void)
{
	rinq_wake_proc(rinq_shared->launcher_procno);
}

/*
 * Note that a worker could not be started, and wake the peers, which have
 * executors make room; or that one could.
 */
void
rinq_workers_short(RinqShortage shortage)
{
	int			i;

	if (shortage == RINQ_NOT_SHORT)
	{
		pg_atomic_write_u64(&rinq_shared->short_since[RINQ_SHORT_OF_ANY], 0);
		return;
	}
	Assert(shortage < RINQ_SHORT_KINDS);
	pg_atomic_write_u64(&rinq_shared->short_since[shortage], (uint64) rinq_clock_ms());
	for (i = 0; i < rinq_shared->num_databases; i++)
		rinq_wake_peer(&rinq_shared->databases[i]);
}

/*
 * Tell whether a process tries to start a worker for which there is no room.
 */
bool
rinq_workers_are_short(RinqShortage shortage)
{
	uint64		since = pg_atomic_read_u64(&rinq_shared->short_since[shortage]);

	return since != 0 && (uint64) rinq_clock_ms() - since < SHORT_FOR;
}
