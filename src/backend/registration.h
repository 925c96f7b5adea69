/*-------------------------------------------------------------------------
 *
 * backend/registration.h
 *	  What ties listeners and subscriptions to their roles and functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_REGISTRATION_H
#define RINQ_REGISTRATION_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/* roles that have anything cannot be dropped, others can */
extern void rinq_registration_add(Oid role);
extern void rinq_registration_tidy(void);

/* tell whether a role has a listener or subscription */
extern bool rinq_registration_has(Oid role);

/* what has become of a listener or subscription that was to be removed */
typedef enum RinqRemoval
{
	RINQ_REMOVAL_DONE,
	RINQ_REMOVAL_NONE,			/* there is none */
	RINQ_REMOVAL_REFUSED		/* it is another role's */
} RinqRemoval;

extern RinqRemoval rinq_registration_remove(const char *table, const char *key_column, const char *key);

/* before a function is registered, and before one is renamed */
extern void rinq_registration_lock(Oid func);
extern void rinq_registration_wait(ObjectType type, Node *function);

/* around a command that renames: the handlers, and what they are called now */
extern List *rinq_registration_handlers(void);
extern void rinq_registration_rename(List *handlers);

#endif							/* RINQ_REGISTRATION_H */
