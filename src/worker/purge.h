/*-------------------------------------------------------------------------
 *
 * purge.h
 *	  Deleting what was written down about requests, by age and by size.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PURGE_H
#define RINQ_PURGE_H

#include "postgres.h"

#include "ipc/shared.h"

extern void rinq_purge_written(void);
extern void rinq_purge_count(RinqDatabase *db, Size response);
extern bool rinq_purge(RinqDatabase *db, MemoryContext context);
extern void rinq_purge_ordered(RinqDatabase *db, MemoryContext context);
extern void rinq_purge_leave(RinqDatabase *db);

#endif							/* RINQ_PURGE_H */
