/*-------------------------------------------------------------------------
 *
 * ipc/worker.h
 *	  The extension's background workers: their entry points, and how one is
 *	  registered for a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_H
#define RINQ_WORKER_H

#include "postgres.h"

#include "ipc/shared.h"
#include "postmaster/bgworker.h"

/* travels in bgw_extra, so that a late worker notices a changed entry */
typedef struct RinqWorkerArgs
{
	int			database;		/* index into RinqShared.databases */
	Oid			dboid;
	Oid			role;			/* executors: whom to connect as */
	int			executor;		/* executors: index into
								 * RinqDatabase.executors */
	uint32		incarnation;	/* of the peer */
	uint32		serial;			/* executors: of their slot */
} RinqWorkerArgs;

extern PGDLLEXPORT void rinq_launcher_main(Datum arg);
extern PGDLLEXPORT void rinq_peer_main(Datum arg);
extern PGDLLEXPORT void rinq_reader_main(Datum arg);
extern PGDLLEXPORT void rinq_executor_main(Datum arg);
extern PGDLLEXPORT void rinq_outbox_main(Datum arg);

extern void rinq_register_launcher(void);
extern bool rinq_start_worker(const char *kind, const char *entry,
							  const RinqWorkerArgs *args,
							  BackgroundWorkerHandle **handle);
extern RinqDatabase *rinq_worker_attach(RinqWorkerArgs *args);
extern void rinq_worker_connect(const RinqWorkerArgs *args, Oid role, uint32 flags);
extern void rinq_worker_connect_to_own_tables(const RinqWorkerArgs *args);
extern void rinq_worker_left(RinqDatabase *db);

#endif							/* RINQ_WORKER_H */
