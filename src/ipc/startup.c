/*-------------------------------------------------------------------------
 *
 * ipc/startup.c
 *	  Making the extension's shared memory when the server starts.
 *
 * All of it is fixed in size; a crash of the server makes it anew, which is all
 * the recovery it needs.
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
#include "ipc/startup.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define TRANCHE_NAME "rinq"
#define PAYLOAD_TRANCHE_NAME "rinq_payloads"

static shmem_startup_hook_type prev_shmem_startup_hook = NULL;
static shmem_request_hook_type prev_shmem_request_hook = NULL;

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

/* Count the locks: one of everything, and two for each database. */
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
	pg_atomic_init_u32(&db->outbox_goes_on, 0);
	pg_atomic_init_u64(&db->outbox_waiting, 0);
	pg_atomic_init_u64(&db->outbox_due, 0);
	pg_atomic_init_u64(&db->outbox_clock, 0);
	pg_atomic_init_u64(&db->outbox_mended_at, 0);
	pg_atomic_init_u32(&db->outbox_table, 0);
	pg_atomic_init_u64(&db->durable_due, 0);
	pg_atomic_init_u64(&db->longest_turn, 0);
	pg_atomic_init_u64(&db->longest_turn_cpu, 0);
	pg_atomic_init_u64(&db->handled_rows, 0);
	pg_atomic_init_u64(&db->handled_bytes, 0);
	pg_atomic_init_u64(&db->responses_dropped_to, 0);
	pg_atomic_init_u64(&db->last_purge, 0);
	pg_atomic_init_u64(&db->purge_due, 0);
	pg_atomic_init_u64(&db->purge_told, 0);
	pg_atomic_init_u32(&db->purger, 0);
	pg_atomic_init_u32(&db->executor_terminated, 0);
	db->peer.procno = RINQ_NO_PROC;
	db->config = InvalidDsaPointer;
	db->slots_offset = slots_offset;
	db->send_offset = slots_offset + offsetof(RinqSlots, send);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		db->executors[i].procno = RINQ_NO_PROC;
		pg_atomic_init_u32(&db->executors[i].terminated, 0);
		pg_atomic_init_u32(&db->executors[i].end_now, 0);
	}
	rinq_slots_init(rinq_slots_of(db), &locks[0], &locks[1]);
}

/* Create the payload area inside the own memory: it never grows into DSM segments. */
static void
create_payload_area(void)
{
	void	   *place = (char *) rinq_shared + rinq_shared->dsa_offset;
	dsa_area   *area;

	area = dsa_create_in_place(place, payload_area_size(),
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

/* Make the locks without PostgreSQL's table of names, which would have to be asked for, too. */
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

	rinq_shared_use(NULL);
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	rinq_shared_use(get_memory(&found));
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
	rinq_loaded_at_start = true;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shared_memory;
}
