/*-------------------------------------------------------------------------
 *
 * namespaces.h
 *	  The namespaces that this peer knows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_NAMESPACES_H
#define RINQ_PEER_TOPOLOGY_NAMESPACES_H

#include "postgres.h"

#include "base/ident.h"
#include "ipc/listener_config.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"

typedef enum RinqNamespaceState
{
	NAMESPACE_UNDECLARED,
	NAMESPACE_DECLARING,
	NAMESPACE_DECLARED,
	NAMESPACE_FAILED
} RinqNamespaceState;

typedef struct RinqNamespace
{
	char		name[RINQ_NAMESPACE_MAXLEN + 1];	/* hash key */
	uint32		index;			/* travels as cookie with requests */
	RinqNamespaceState state;	/* of the queue cmd.<namespace> */
	dlist_node	declaring;		/* while it is being declared (declare.c) */
	uint16		declare_channel;	/* where */
	int64		declare_since;
	int64		mend_after;		/* the queue is not declared again before
								 * (mending.c) */
	uint16		channel;		/* that consumes its requests; 0 is none yet */
	bool		consuming;		/* requested from the broker */
	RinqListener *listener;		/* NULL when no session listens */
	int64		retry_at;		/* when a failed one is tried again */
	int			retry_delay;
	int64		lost_at;		/* when the broker has ended consuming, the
								 * last time */
	List	   *waiting;		/* calls, as slot indexes and serials */
	int			started;		/* requests in the dispatch queue, or running */
	int64		problem_noted;	/* when its listener's problem was logged */
	dlist_head	subscriptions;	/* of sessions that listen to notifications */
	enum
	{
		NOTIFICATIONS_UNBOUND,
		NOTIFICATIONS_BINDING,
		NOTIFICATIONS_BOUND
	}			notifications;
	int			binds;			/* under way: a bind that was undone meanwhile
								 * counts, too */
	List	   *binding;		/* operations that wait for that
								 * (rinq_wait_in) */
} RinqNamespace;

extern void rinq_topology_init(void);
extern RinqNamespace * rinq_topology_namespace(RinqBytes name, int limit);
extern RinqNamespace * rinq_topology_find(RinqBytes name);
extern uint32 rinq_topology_count(void);
extern RinqNamespace * rinq_topology_at(uint32 index);

#endif							/* RINQ_PEER_TOPOLOGY_NAMESPACES_H */
