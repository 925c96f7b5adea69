/*-------------------------------------------------------------------------
 *
 * backend/own_relation.h
 *	  Whether the extension's tables are as the install script made them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_RELATION_H
#define RINQ_OWN_RELATION_H

#include "postgres.h"

#include "utils/relcache.h"
#include "utils/snapshot.h"

/* what is about to be done with a table */
typedef enum RinqOwnUse
{
	RINQ_OWN_READ,				/* reading it, which fires no triggers */
	RINQ_OWN_WRITE
} RinqOwnUse;

extern char *rinq_own_relation_problem(Relation rel, RinqOwnUse use);
extern void rinq_check_own_relation(Relation rel, RinqOwnUse use);
extern Snapshot rinq_register_newest_snapshot(Relation rel);

#endif							/* RINQ_OWN_RELATION_H */
