/*-------------------------------------------------------------------------
 *
 * backend/handler_rules.h
 *	  Whether a function may be run for a role, as its handler.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_HANDLER_RULES_H
#define RINQ_HANDLER_RULES_H

#include "postgres.h"

#include "backend/role_reference.h"
#include "nodes/pg_list.h"

/* of rinq_internal; its EXECUTE privilege goes with listeners and subscriptions */
#define RINQ_REGISTRATION_FUNCTION "has_listeners_or_subscriptions"

/* tell whether a role holds the privilege */
extern bool rinq_is_registered_role(Oid role);
extern Oid	rinq_registration_function(void);

/* why nothing can run as this role; NULL when it can */
extern const char *rinq_role_obstacle(const RinqRoleReference *role);

/* why this function must not run as this role; NULL when it may */
extern const char *rinq_handler_obstacle(Oid func, const char *name, Oid role, Oid owner);

/*
 * A handler travels as its number and, behind a space, its name: the number
 * stays when it is renamed, the name when it is created anew.
 */
extern char *rinq_handler_reference(Oid func, const char *name);
extern const char *rinq_handler_name(const char *reference);
extern Oid	rinq_handler_find(const char *reference);

/* find find find the function of a stored name; InvalidOid when there is none */
extern Oid	rinq_handler_by_name(const char *name);

/* refuse a superuser whose function another role could then act through */
extern void rinq_check_superuser_handler(Oid func, Oid role);

#endif							/* RINQ_HANDLER_RULES_H */
