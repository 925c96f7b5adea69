/*-------------------------------------------------------------------------
 *
 * ipc/shared.c
 *	  Creating the extension's shared memory, and finding things in it.
 *
 * All of it is fixed in size and made when the server starts; a crash of the
 * server makes it anew, which is all the recovery it needs.  It holds no
 * pointers of a process: processes are named by their number, channels by
 * their offset.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include <sys/mman.h>

#include "base/clock.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "ipc/shared.h"
#include "ipc/slots.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#define TRANCHE_NAME "rinq"
#define PAYLOAD_TRANCHE_NAME "rinq_payloads"

#define SHORT_FOR 2000			/* ms that a shortage counts after the last
								 * attempt */

RinqShared *rinq_shared = NULL;

static shmem_startup_hook_type prev_shmem_startup_hook = NULL;
static shmem_request_hook_type prev_shmem_request_hook = NULL;

static dsa_area *payload_area = NULL;

/* the server was started with this library */
static bool loaded_at_start = false;

/* PostgreSQL has been asked for memory, which is then there when it starts up */
static bool requested = false;

/* what was taken instead when it was not */
static void *own_memory = NULL;

static Size
payload_area_size(void)
{
	return mul_size((Size) rinq_payload_memory, 1024 * 1024);
}

static Size
databases_size(void)
{
	return MAXALIGN(add_size(offsetof(RinqShared, databases),
							 mul_size((Size) rinq_max_databases, sizeof(RinqDatabase))));
}

/* Return the number of locks: one of everything, and two for each database. */
static int
num_locks(void)
{
	return 1 + 2 * rinq_max_databases;
}

static Size
locks_size(void)
{
	return MAXALIGN(mul_size((Size) num_locks(), sizeof(LWLock)));
}

static Size
shared_size(void)
{
	Size		size = add_size(databases_size(), locks_size());

	size = add_size(size, mul_size((Size) rinq_max_databases, rinq_slots_size()));
	size = add_size(size, rinq_backend_sessions_size());
	return add_size(size, payload_area_size());
}

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	requested = true;
}

static void
init_database(RinqDatabase *db, Size slots_offset, LWLock *locks)
{
	int			i;

	SpinLockInit(&db->mutex);
	ConditionVariableInit(&db->changed);
	for (i = 0; i < RINQ_NUM_COUNTERS; i++)
		pg_atomic_init_u64(&db->counters[i], 0);
	db->reader.procno = RINQ_NO_PROC;
	db->outbox.procno = RINQ_NO_PROC;
	pg_atomic_init_u64(&db->outbox_depth, 0);
	pg_atomic_init_u64(&db->outbox_seq, 0);
	pg_atomic_init_u32(&db->outbox_table, 0);
	pg_atomic_init_u64(&db->longest_turn, 0);
	pg_atomic_init_u64(&db->longest_turn_cpu, 0);
	pg_atomic_init_u64(&db->handled_rows, 0);
	pg_atomic_init_u64(&db->handled_bytes, 0);
	pg_atomic_init_u64(&db->responses_dropped_to, 0);
	pg_atomic_init_u64(&db->last_purge, 0);
	pg_atomic_init_u64(&db->purge_told, 0);
	pg_atomic_init_u32(&db->purger, 0);
	pg_atomic_init_u32(&db->executor_terminated, 0);
	db->peer.procno = RINQ_NO_PROC;
	db->config = InvalidDsaPointer;
	db->slots_offset = slots_offset;
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		db->executors[i].procno = RINQ_NO_PROC;
		pg_atomic_init_u32(&db->executors[i].terminated, 0);
		pg_atomic_init_u32(&db->executors[i].end_now, 0);
	}
	rinq_slots_init(rinq_slots_of(db), &locks[0], &locks[1]);
}

/*
 * Create the payload area, which lives inside our own memory and never grows
 * into DSM segments.
 */
static void
create_payload_area(void)
{
	void	   *memory = (char *) rinq_shared + rinq_shared->dsa_offset;
	dsa_area   *area;

	area = dsa_create_in_place(memory, payload_area_size(),
							   rinq_shared->dsa_tranche, NULL);
	dsa_pin(area);
	dsa_set_size_limit(area, payload_area_size());
	dsa_detach(area);
}

/*
 * Take the memory from the operating system: another library has put itself in
 * the place of the hook by which PostgreSQL is asked, and does not pass it on.
 * Processes inherit it; after a crash the postmaster, the only one that is
 * left, takes it anew.
 */
static void *
take_own_memory(void)
{
	if (own_memory != NULL)
		(void) munmap(own_memory, shared_size());
	own_memory = mmap(NULL, shared_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (own_memory == MAP_FAILED)
	{
		own_memory = NULL;
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not get %zu bytes of shared memory for rinq: %m", shared_size())));
	}
	ereport(LOG,
			(errmsg("rinq takes its shared memory directly from the operating system"),
			 errdetail("Another library in \"shared_preload_libraries\" has not let it ask PostgreSQL for it.")));
	return own_memory;
}

static void *
get_memory(bool *found)
{
#ifndef EXEC_BACKEND
	if (!requested)
	{
		*found = false;
		return take_own_memory();
	}
#endif
	return ShmemInitStruct("rinq", shared_size(), found);
}

/*
 * Initialize the locks, without PostgreSQL's table of names, which would have
 * to be asked for, too.
 */
static LWLock *
init_locks(Size offset)
{
	LWLock	   *locks = (LWLock *) ((char *) rinq_shared + offset);
	int			i;

	rinq_shared->lock_tranche = rinq_new_tranche(TRANCHE_NAME);
	Assert(offset == MAXALIGN(offset));
	for (i = 0; i < num_locks(); i++)
		LWLockInitialize(&locks[i], rinq_shared->lock_tranche);
	return locks;
}

static void
startup_shared_memory(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	rinq_shared = NULL;
	payload_area = NULL;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	rinq_shared = get_memory(&found);
	if (!found)
	{
		Size		offset = databases_size();
		LWLock	   *locks;
		int			i;

		memset(rinq_shared, 0, databases_size());
		locks = init_locks(offset);
		offset += locks_size();
		rinq_shared->lock = &locks[0];
		rinq_shared->launcher_procno = RINQ_NO_PROC;
		ConditionVariableInit(&rinq_shared->scan_done);
		pg_atomic_init_u32(&rinq_shared->next_client, 1);
		pg_atomic_init_u32(&rinq_shared->next_identity, 1);
		pg_atomic_init_u64(&rinq_shared->clock_difference, 0);
		for (i = 0; i < RINQ_SHORT_KINDS; i++)
			pg_atomic_init_u64(&rinq_shared->short_since[i], 0);
		pg_atomic_init_u64(&rinq_shared->send_bytes, 0);
		rinq_shared->num_databases = rinq_max_databases;
		for (i = 0; i < rinq_max_databases; i++)
		{
			init_database(&rinq_shared->databases[i], offset, &locks[1 + 2 * i]);
			offset += rinq_slots_size();
		}
		rinq_shared->backend_sessions_offset = offset;
		rinq_backend_sessions_init();
		offset += rinq_backend_sessions_size();
		rinq_shared->dsa_tranche = rinq_new_tranche(PAYLOAD_TRANCHE_NAME);
		rinq_shared->dsa_offset = offset;
		Assert(offset + payload_area_size() == shared_size());
		create_payload_area();
	}
	LWLockRelease(AddinShmemInitLock);
	rinq_register_tranche(rinq_shared->lock_tranche, TRANCHE_NAME);
	rinq_register_tranche(rinq_shared->dsa_tranche, PAYLOAD_TRANCHE_NAME);
	rinq_clock_share(&rinq_shared->clock_difference);
}

/*
 * Arrange for the shared memory; called while the server loads the library.
 */
void
rinq_shared_init(void)
{
	loaded_at_start = true;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shared_memory;
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
	if (!rinq_preloaded() && loaded_at_start)
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

RinqSlots *
rinq_slots_of(RinqDatabase *db)
{
	Assert(db >= rinq_shared->databases && db < rinq_shared->databases + rinq_shared->num_databases);
	Assert(db->slots_offset >= databases_size() + locks_size());
	return (RinqSlots *) ((char *) rinq_shared + db->slots_offset);
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
	pg_atomic_write_u64(&db->last_purge, 0);
	pg_atomic_write_u64(&db->purge_told, 0);
	pg_atomic_write_u32(&db->purger, 0);
	db->handled_counted = false;
	db->purge_more = false;
	db->purge_not_before = 0;
	db->ddl_blocks = 0;
	db->prepared_signal = InvalidOid;
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
	pg_atomic_write_u64(&db->last_purge, 0);
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
