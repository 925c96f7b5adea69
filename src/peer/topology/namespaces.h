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
#include "ipc/slots.h"
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
	int64		bound_at;		/* when the broker has confirmed its binding
								 * on this connection, first; 0: not yet */
	bool		unbind_first;	/* a binding that routes nothing is not mended
								 * by binding again (mending.c) */
	int64		mend_after;		/* the queue is not declared again before
								 * (mending.c) */
	uint16		channel;		/* that consumes its requests; 0 is none yet */
	bool		consuming;		/* requested from the broker */
	bool		consumed;		/* and confirmed by it, while "consuming" */
	bool		multicast_bound;	/* likewise, the binding to requests that
									 * all peers of the namespace get */
	RinqListener *listener;		/* NULL when no session listens */
	int64		retry_at;		/* when a failed one is tried again */
	int			retry_delay;
	bool		wanted;			/* durable messages wait for its queue */
	bool		refused;		/* its queue, until an administrator mends
								 * that: not for a node that is away */
	bool		suspect;		/* the broker closed the connection when its
								 * queue was declared; outlives connections */
	int64		lost_at;		/* when the broker has ended consuming, the
								 * last time */
	List	   *waiting;		/* calls, as slot indexes and serials */
	int			started;		/* requests in the dispatch queue, or running */
	int64		problem_noted;	/* when its listener's problem was logged */
	int64		due;			/* when a command that waits in the inbox may
								 * be due (peer/command/due.h); 0 is never */
	struct RinqInbound *asking; /* the latest one on its way to an executor
								 * that looks what is due, NULL for none */
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

/* what others do when something happens to a namespace */
typedef struct RinqTopologyHooks
{
	/* its queue is there; or cannot be had, and outcome and error say why */
	void		(*declared) (RinqNamespace * ns, RinqOutcome outcome, const char *error);

	/* its queue is waited for in vain; no longer than until the deadline */
	void		(*overdue) (RinqNamespace * ns, int64 deadline, const char *problem);

	/* the broker sends its notifications; or cannot, for the error */
	void		(*bound) (RinqNamespace * ns, const char *error);

	/* the broker has refused to send its notifications */
	void		(*binding_refused) (RinqNamespace * ns);

	/* a channel that consumes was closed, with all that is not settled */
	void		(*channel_lost) (uint16 channel);
} RinqTopologyHooks;

extern const RinqTopologyHooks *rinq_topology_hooks;

extern void rinq_topology_init(const RinqTopologyHooks *hooks);
extern RinqNamespace * rinq_topology_namespace(RinqBytes name, int limit);
extern RinqNamespace * rinq_topology_find(RinqBytes name);
extern uint32 rinq_topology_count(void);
extern RinqNamespace * rinq_topology_at(uint32 index);

#endif							/* RINQ_PEER_TOPOLOGY_NAMESPACES_H */
