/*-------------------------------------------------------------------------
 *
 * namespaces.c
 *	  The namespaces that this peer knows, because it listens to them, or has
 *	  called them.
 *
 * They are never forgotten, so that their numbers can travel with requests to
 * the broker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "peer/process.h"
#include "peer/topology/namespaces.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

const RinqTopologyHooks *rinq_topology_hooks;

static HTAB *namespaces;
static RinqNamespace * *by_index;
static uint32 num_namespaces;
static uint32 max_namespaces;

/*
 * Begin without namespaces; "hooks" are told what happens to those that come.
 */
void
rinq_topology_init(const RinqTopologyHooks *hooks)
{
	HASHCTL		ctl;

	Assert(RINQ_IN_PEER() && namespaces == NULL);
	rinq_topology_hooks = hooks;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = RINQ_NAMESPACE_MAXLEN + 1;
	ctl.entrysize = sizeof(RinqNamespace);
	ctl.hcxt = TopMemoryContext;
	namespaces = hash_create("rinq namespaces", 64, &ctl,
							 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	max_namespaces = 64;
	by_index = MemoryContextAlloc(TopMemoryContext,
								  max_namespaces * sizeof(RinqNamespace *));
}

/*
 * Find the namespace of this name, if it is known.
 */
RinqNamespace *
rinq_topology_find(RinqBytes name)
{
	char		key[RINQ_NAMESPACE_MAXLEN + 1];

	if (name.data == NULL || name.len > RINQ_NAMESPACE_MAXLEN ||
		!rinq_namespace_valid(name.data, name.len))
		return NULL;
	memset(key, 0, sizeof(key));
	memcpy(key, name.data, name.len);
	return hash_search(namespaces, key, HASH_FIND, NULL);
}

/*
 * Find the namespace of this name, made known if need be; NULL when the name
 * is not a namespace, or "limit" are known already.
 */
RinqNamespace *
rinq_topology_namespace(RinqBytes name, int limit)
{
	char		key[RINQ_NAMESPACE_MAXLEN + 1];
	RinqNamespace *ns = rinq_topology_find(name);

	if (ns != NULL || name.data == NULL || name.len > RINQ_NAMESPACE_MAXLEN ||
		!rinq_namespace_valid(name.data, name.len))
		return ns;

	if (num_namespaces >= (uint32) limit)
		return NULL;
	if (num_namespaces == max_namespaces)
	{
		max_namespaces *= 2;
		by_index = repalloc(by_index, max_namespaces * sizeof(RinqNamespace *));
	}
	memset(key, 0, sizeof(key));
	memcpy(key, name.data, name.len);
	ns = hash_search(namespaces, key, HASH_ENTER, NULL);
	ns->index = num_namespaces;
	ns->state = NAMESPACE_UNDECLARED;
	ns->declare_channel = 0;
	ns->declare_since = 0;
	ns->bound_at = 0;
	ns->unbind_first = false;
	ns->mend_after = 0;
	ns->channel = 0;
	ns->consuming = false;
	ns->consumed = false;
	ns->multicast_bound = false;
	ns->listener = NULL;
	ns->retry_at = 0;
	ns->retry_delay = 0;
	ns->wanted = false;
	ns->refused = false;
	ns->suspect = false;
	ns->lost_at = 0;
	ns->waiting = NIL;
	ns->started = 0;
	ns->problem_noted = 0;
	ns->due = 0;
	ns->asking = NULL;
	dlist_init(&ns->subscriptions);
	ns->notifications = NOTIFICATIONS_UNBOUND;
	ns->binds = 0;
	ns->binding = NIL;
	Assert(num_namespaces < max_namespaces);
	by_index[num_namespaces++] = ns;
	return ns;
}

/*
 * Return how many namespaces are known.
 */
uint32
rinq_topology_count(void)
{
	return num_namespaces;
}

/*
 * Return the namespace of this number.
 */
RinqNamespace *
rinq_topology_at(uint32 index)
{
	Assert(index < num_namespaces);
	return by_index[index];
}
