/*-------------------------------------------------------------------------
 *
 * worker/database_list.h
 *	  The databases that may be served, as the launcher found them when it
 *	  looked last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_DATABASE_LIST_H
#define RINQ_WORKER_DATABASE_LIST_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct RinqFoundDatabase
{
	Oid			oid;
	NameData	name;
} RinqFoundDatabase;

extern List *rinq_list_databases(MemoryContext context);
extern void rinq_remember_databases(List *found);
extern bool rinq_may_be_served(Oid oid);
extern bool rinq_known_absent(Oid oid);
extern void rinq_remember_absent(Oid oid);
extern void rinq_forget_absent(void);

#endif							/* RINQ_WORKER_DATABASE_LIST_H */
