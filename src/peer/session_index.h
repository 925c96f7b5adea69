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

#include "constraint.h"
#include "peer/peer.h"

/* sessions with the same hash of an attribute's value */
typedef struct RinqPosting
{
	uint64		hash;			/* hash key */
	uint32		count;
	dlist_head	members;
} RinqPosting;

typedef struct RinqPostingMember
{
	uint32		seq;			/* hash key */
	RinqSession *session;
	RinqPosting *posting;
	dlist_node	node;
} RinqPostingMember;

/* to keep the index in line with sessions */
extern void rinq_index_add(RinqSession *session);
extern void rinq_index_remove(RinqSession *session);
extern void rinq_index_changed(RinqSession *session, RinqBytes namespace, RinqBytes key);
extern void rinq_index_namespace_changed(RinqSession *session, RinqBytes namespace);

extern bool rinq_index_find(const RinqConstraint *constraint, RinqBytes namespace, List **postings);

#endif							/* RINQ_SESSION_INDEX_H */
