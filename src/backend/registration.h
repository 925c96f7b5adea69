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

#include "nodes/pg_list.h"

/* roles that have anything cannot be dropped, others can */
extern void rinq_registration_add(Oid role);
extern void rinq_registration_tidy(void);

/* tell whether a role has a listener or subscription */
extern bool rinq_registration_has(Oid role);

/* around a command that renames: the handlers, and what they are called now */
extern List *rinq_registration_handlers(void);
extern void rinq_registration_rename(List *handlers);

#endif							/* RINQ_REGISTRATION_H */
