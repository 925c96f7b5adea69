/*-------------------------------------------------------------------------
 *
 * ipc/shared.h
 *	  The extension's shared memory: which databases are served, by which
 *	  processes, and in which state they are.
 *
 * The messages themselves, which travel between those processes, are the
 * subject of ipc/slots.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SHARED_H
#define RINQ_SHARED_H

#include "postgres.h"

#include "base/ident.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/dsa.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define RINQ_MAX_EXECUTORS 64
#define RINQ_NO_PROC (-1)
#define RINQ_LAST_ERROR_LEN 1024	/* also of what each of several hosts of
									 * the broker has said */

/* what is known about the extension in a database */
typedef enum RinqPresence
{
	RINQ_UNKNOWN = 0,			/* the reader has not looked yet */
	RINQ_ABSENT,
	RINQ_PRESENT
} RinqPresence;

/* why a database is no peer, although it has the extension (backend/identity.h) */
typedef enum RinqSuspension
{
	RINQ_NOT_SUSPENDED = 0,
	RINQ_SUSPENDED_COPY,		/* the database is a copy of another one of
								 * this server */
	RINQ_SUSPENDED_PARTIAL,		/* listeners of another database, and no word
								 * of which */
	RINQ_SUSPENDED_UNDECIDED,	/* others have to be looked into first */
	RINQ_SUSPENDED_START,		/* rinq.start_suspended is on */
	RINQ_SUSPENDED_OLD_OBJECTS, /* the extension there is too old for the
								 * library */
	RINQ_SUSPENDED_NEW_OBJECTS	/* or too new */
} RinqSuspension;

/* names a database and what was made of it, whatever server it is on */
typedef struct RinqIdentity
{
	pg_uuid_t	id;
	bool		owned;			/* this database has the identity; else, it
								 * came here with a copy */
} RinqIdentity;

#define RINQ_MAX_IDENTITIES 8

typedef struct RinqIdentities
{
	RinqSuspension suspended;
	Oid			original;		/* RINQ_SUSPENDED_COPY: of which database, if
								 * known */
	int			count;
	RinqIdentity list[RINQ_MAX_IDENTITIES];
} RinqIdentities;

/* one of the background workers that belong to a database */
typedef enum RinqWorkerState
{
	RINQ_WORKER_NONE = 0,
	RINQ_WORKER_STARTING,		/* registered, has not run yet */
	RINQ_WORKER_RUNNING
} RinqWorkerState;

typedef struct RinqWorker
{
	RinqWorkerState state;
	int			pid;
	int			procno;
	int64		since;			/* of the state; monotonic, as all times but
								 * those shown */
} RinqWorker;

/* the peer's relation to its broker */
typedef enum RinqNetState
{
	RINQ_NET_STOPPED = 0,		/* no peer runs */
	RINQ_NET_STARTING,			/* the peer runs, and has not tried to connect */
	RINQ_NET_CONNECTING,
	RINQ_NET_CONNECTED,
	RINQ_NET_DISCONNECTED		/* waits before it tries again */
} RinqNetState;

typedef enum RinqExecutorState
{
	RINQ_EXECUTOR_FREE = 0,
	RINQ_EXECUTOR_STARTING,		/* registered, not yet attached */
	RINQ_EXECUTOR_IDLE,
	RINQ_EXECUTOR_WOKEN,		/* idle, and told that there is work */
	RINQ_EXECUTOR_BUSY,
	RINQ_EXECUTOR_LEAVING
} RinqExecutorState;

typedef struct RinqExecutorSlot
{
	RinqExecutorState state;
	Oid			role;
	int			pid;
	int			procno;
	uint32		serial;			/* tells one tenant of the slot from the next */
	bool		leave;			/* asked to make room */
	bool		ran;			/* the worker connected to its database */
	uint32		request;		/* slot index of what it runs, when busy */

	/* set without the lock, by signal handlers among others */
	pg_atomic_uint32 terminated;	/* another process than the peer wants it
									 * to end */
	pg_atomic_uint32 end_now;	/* the executor is to end, whatever it is
								 * doing */
} RinqExecutorSlot;

typedef enum RinqCounter
{
	RINQ_CALLS_SENT,
	RINQ_RESPONSES_RECEIVED,
	RINQ_RESPONSES_DROPPED,
	RINQ_REQUESTS_RECEIVED,
	RINQ_REQUESTS_REJECTED,
	RINQ_REQUESTS_REQUEUED,
	RINQ_REQUESTS_EXPIRED,
	RINQ_REQUESTS_UNHANDLED,
	RINQ_RESPONSES_SENT,
	RINQ_RECONNECTS,
	RINQ_MESSAGES_SENT,
	RINQ_MESSAGES_DROPPED,
	RINQ_NOTIFICATIONS_RECEIVED,
	RINQ_NOTIFICATIONS_REJECTED,
	RINQ_NOTIFICATIONS_DROPPED,
	RINQ_NOTIFICATIONS_FAILED,
	RINQ_EVENTS_MISSED,
	RINQ_REQUESTS_RETRIED,
	RINQ_REQUESTS_SET_ASIDE,
	RINQ_NOTIFICATIONS_RETRIED,
	RINQ_NOTIFICATIONS_SET_ASIDE,
	RINQ_NUM_COUNTERS
} RinqCounter;

/* what the view rinq_outbox_status shows of the peer's part */
typedef struct RinqOutboxStatus
{
	bool		direct;
	int64		in_flight;		/* published, not confirmed yet */
	int64		retrying;		/* waiting for another attempt */
	int			attempts;		/* most of any of these */
	char		last_error[RINQ_LAST_ERROR_LEN];
	char		waits_for[128]; /* when none has moved for a while; else empty */
} RinqOutboxStatus;

/* how the connection is encrypted; all empty and 0 when it is not */
typedef struct RinqEncryption
{
	char		version[16];
	char		cipher[64];
	TimestampTz certificate_end;	/* of the broker's */
} RinqEncryption;

/* what the view rinq_peer shows; written by the peer under "mutex" */
typedef struct RinqStatus
{
	RinqNetState net;
	bool		ever_failed;	/* an attempt failed since the last success */
	bool		blocked;		/* the broker refuses to take messages */
	bool		stopping;		/* the peer only waits for what still runs */
	char		peer_id[40];
	char		broker[256];	/* host:port/vhost */
	char		broker_version[64];
	RinqEncryption encryption;
	char		server[NAMEDATALEN];	/* foreign server that has said where
										 * the broker is; empty: the settings */
	TimestampTz connected_since;
	TimestampTz last_error_at;
	int64		next_attempt;	/* to connect, while disconnected */
	RinqOutboxStatus outbox;
	char		last_error[RINQ_LAST_ERROR_LEN];
} RinqStatus;

struct RinqSlots;				/* ipc/slots.h */

typedef struct RinqDatabase
{
	/* protected by RinqShared.lock */
	Oid			oid;			/* InvalidOid when the entry is free */
	NameData	name;
	RinqPresence presence;
	uint32		read_wanted;	/* counts up when the catalog is to be read */
	uint32		read_done;		/* value of read_wanted the last reading
								 * covers */
	RinqWorker	reader;
	RinqWorker	outbox;
	RinqWorker	peer;
	uint32		incarnation;	/* of the peer: counts its starts */
	bool		stop;			/* the peer is to end */
	bool		stopped;		/* rinq_stop was called, and rinq_start not
								 * since */
	bool		stop_at_once;	/* without waiting for what runs */
	bool		outbox_yields;	/* the outbox worker is to make room when it
								 * has nothing to do */
	RinqIdentities identities;	/* as the reader found them */
	bool		adopted;		/* rinq_adopt was called since the server's
								 * start */
	int			ddl_blocks;		/* commands that need the database empty */
	int64		next_start;		/* of the peer, not before */
	Oid			prepared_signal;	/* table whose invalidation tells of a
									 * committed prepared transaction */
	uint32		told_unreadable;	/* digest of what the last reader has
									 * found wrong with tables */
	int			start_delay;	/* ms, grows while the peer keeps failing */
	dsa_pointer config;			/* what the reader found
								 * (ipc/listener_config.h) */
	uint32		config_serial;

	/* protected by its mutex */
	slock_t		mutex;
	RinqStatus	status;
	uint32		identity;		/* serial of the peer's identity; 0 is none
								 * (ipc/session_ids.h) */
	RinqPeerId	identity_id;
	uint32		next_session;
	int64		early_errors_since; /* of errors before handlers
									 * (worker/log.c) */
	uint32		early_errors_logged;
	uint64		early_errors_suppressed;

	ConditionVariable changed;	/* state of peer, reader, executors, network */
	pg_atomic_uint64 counters[RINQ_NUM_COUNTERS];

	/* the outbox: rows, and which table is written now */
	pg_atomic_uint64 outbox_depth;
	pg_atomic_uint64 outbox_seq;
	pg_atomic_uint32 outbox_goes_on;	/* does outbox_seq come after those of
										 * all messages that wait? */

	/*
	 * messages that wait, roughly; and when to look at them
	 * (ipc/outbox_due.h)
	 */
	pg_atomic_uint64 outbox_waiting;
	pg_atomic_uint64 outbox_due;
	pg_atomic_uint64 outbox_clock;	/* the difference of the clocks that those
									 * that were delayed by an interval go by;
									 * 0 is not known */
	pg_atomic_uint32 outbox_table;
	pg_atomic_uint64 outbox_mended_at;	/* when the outbox worker has set
										 * right and counted what waits; 0:
										 * not since the last one was ended */

	/*
	 * when a durable call has to be looked at, earlier than the peer knows;
	 * ms of the wall clock, 0 is never
	 */
	pg_atomic_uint64 durable_due;

	/* of the peer's event loop, in the last minute or two; µs */
	pg_atomic_uint64 longest_turn;
	pg_atomic_uint64 longest_turn_cpu;

	pg_atomic_uint32 executor_terminated;	/* an executor's "terminated" was
											 * set */
	/* requests that are remembered as handled (worker/purge.c) */
	pg_atomic_uint64 handled_rows;
	pg_atomic_uint64 handled_bytes; /* of their responses */
	pg_atomic_uint64 responses_dropped_to;	/* older ones have none */
	pg_atomic_uint64 last_purge;	/* of what is recorded of requests, by an
									 * executor */
	pg_atomic_uint64 purge_due; /* when the outbox worker has to purge, if no
								 * executor has by then; PG_INT64_MAX is never */
	pg_atomic_uint64 purge_told;	/* when the log was told of limits; 0 is
									 * never */
	pg_atomic_uint32 purger;	/* pid of the process that purges; 0 is none */

	/* written by that process */
	bool		handled_counted;	/* the counts above are what is in the
									 * table */
	int64		handled_counted_at;
	Oid			handled_file;	/* in which the table was then */
	bool		purge_more;		/* the last purge was not through */
	int64		purge_not_before;	/* since the last one has failed */

	/* protected by the channel's request lock */
	RinqExecutorSlot executors[RINQ_MAX_EXECUTORS];

	/*
	 * offsets of this database's slots, and of its queue in them, from the
	 * start of RinqShared
	 */
	Size		slots_offset;
	Size		send_offset;
} RinqDatabase;

/* what could not be started, as all background workers of the server are in use */
typedef enum RinqShortage
{
	RINQ_SHORT_OF_ANY,			/* a reader, a peer or an outbox worker: every
								 * executor makes room */
	RINQ_SHORT_OF_EXECUTORS,	/* the only executor of a database: others
								 * make room */
	RINQ_SHORT_KINDS,
	RINQ_NOT_SHORT = RINQ_SHORT_KINDS
} RinqShortage;

typedef struct RinqShared
{
	LWLock	   *lock;
	int			launcher_procno;
	int			launcher_pid;
	bool		following;		/* the launcher takes this server for a
								 * standby, of which nothing is told that is
								 * committed */
	bool		scanned;		/* the launcher has seen all databases once */
	bool		rescan;			/* the launcher is to look for new databases */
	bool		recheck;		/* and again into those that were without the
								 * extension */
	pg_atomic_uint64 short_since[RINQ_SHORT_KINDS]; /* when a worker could not
													 * be started last */
	ConditionVariable scan_done;
	pg_atomic_uint32 next_client;
	pg_atomic_uint32 next_identity;
	pg_atomic_uint64 clock_difference;	/* base/clock.c */
	pg_atomic_uint64 send_bytes;	/* that transactions of all databases have
									 * packed (ipc/sendqueue.h) */
	Size		backend_sessions_offset;	/* of the sessions of processes
											 * (ipc/session_ids.h) */
	int			lock_tranche;
	int			dsa_tranche;
	Size		dsa_offset;
	int			num_databases;
	RinqDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} RinqShared;

extern RinqShared *rinq_shared;
extern bool rinq_loaded_at_start;

extern void rinq_shared_use(RinqShared *shared);
extern bool rinq_preloaded(void);
extern void rinq_require_preloaded(void);
extern dsa_area *rinq_dsa(void);

extern RinqDatabase *rinq_find_database(Oid dboid);
extern RinqDatabase *rinq_claim_database(Oid dboid);
extern RinqDatabase *rinq_my_database(void);
extern struct RinqSlots *rinq_slots_of(RinqDatabase *db);

extern void rinq_wake_launcher(void);
extern void rinq_wake_peer(RinqDatabase *db);
extern void rinq_wake_proc(int procno);
extern void rinq_workers_short(RinqShortage shortage);
extern bool rinq_workers_are_short(RinqShortage shortage);

static inline void
rinq_count(RinqDatabase *db, RinqCounter counter)
{
	Assert(counter >= 0 && counter < RINQ_NUM_COUNTERS);
	pg_atomic_fetch_add_u64(&db->counters[counter], 1);
}

#endif							/* RINQ_SHARED_H */
