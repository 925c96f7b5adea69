/*-------------------------------------------------------------------------
 *
 * session_index.h
 *	  Finding the sessions that a constraint may match, without looking at all
 *	  of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SESSION_INDEX_H
#define RINQ_SESSION_INDEX_H

#include "postgres.h"

#include "peer/session/sessions.h"
#include "protocol/constraint.h"

/* to keep the index in line with sessions */
extern void rinq_index_add(RinqSession * session);
extern void rinq_index_remove(RinqSession * session);
extern void rinq_index_changed(RinqSession * session, RinqBytes namespace, RinqBytes key);
extern void rinq_index_namespace_changed(RinqSession * session, RinqBytes namespace);

/* to search: build what is missing, find, take one session after the other */
extern bool rinq_index_build(const RinqConstraint *constraint, RinqBytes namespace);
extern bool rinq_index_find(const RinqConstraint *constraint, RinqBytes namespace);
extern RinqSession * rinq_index_next(void);
extern void rinq_index_end(void);

#endif							/* RINQ_SESSION_INDEX_H */
