/*-------------------------------------------------------------------------
 *
 * backend/prepared.h
 *	  Prepared transactions with durable messages, whichever process commits
 *	  them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PREPARED_H
#define RINQ_PREPARED_H

#include "postgres.h"

#include "ipc/shared.h"

extern void rinq_prepared_init(void);

extern void rinq_prepared_committed(RinqDatabase *db);

/* in the transaction that is about to be prepared */
extern void rinq_prepared_announce(RinqDatabase *db);

/* in a transaction of a process that looks into the database */
extern void rinq_prepared_watch(RinqDatabase *db);

#endif							/* RINQ_PREPARED_H */
