/*-------------------------------------------------------------------------
 *
 * lanes.c
 *	  What waits for executors, by role, kind of work and namespace, and whose
 *	  turn it is.
 *
 * All requests, responses or notifications of one namespace for handlers of
 * one role are a lane, in the order in which they came.  Only a limited number
 * of them is started, that is, put into slots, where executors take the
 * oldest: the rest waits here, so that what comes later in another lane need
 * not wait behind it.
 *
 * Whose turn it is, is decided from the top: roles take turns.  Of the kinds
 * of work for a role, and of the lanes of a kind, that comes next of which the
 * fewest are started; of those with as many, they take turns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "common/hashfn.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/lanes.h"
#include "peer/topology/namespaces.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define NUM_KINDS (RINQ_WORK_NOTIFICATION + 1)

/* all work of one kind for handlers of a role */
typedef struct Kind
{
	int			started;		/* in slots */
	dlist_head	lanes;			/* in which something waits */
} Kind;

typedef struct Role
{
	Oid			role;			/* hash key */
	int			num_lanes;
	int			num_waiting;	/* lanes in which something waits */
	Kind		kinds[NUM_KINDS];
	dlist_node	node;			/* in "turns", while there are such */
} Role;

typedef struct LaneKey
{
	Oid			role;
	uint32		work;
	uint32		namespace;		/* of requests its index, else a hash of the
								 * name */
} LaneKey;

struct RinqLane
{
	LaneKey		key;			/* hash key */
	Role	   *role;
	RinqNamespace *ns;			/* of requests */
	int			started;
	int			num_waiting;
	dlist_head	waiting;		/* oldest first */
	dlist_node	node;			/* among the lanes of its kind, while
								 * something waits */
};

static HTAB *roles;
static HTAB *lanes;
static dlist_head turns;		/* roles for which something waits, the next
								 * one first */
static int	num_slots;

void
rinq_lanes_init(int slots)
{
	num_slots = slots;
	roles = rinq_make_hash_table("rinq roles with work", 64, sizeof(Oid), sizeof(Role), TopMemoryContext);
	lanes = rinq_make_hash_table("rinq lanes of work", 64, sizeof(LaneKey), sizeof(RinqLane), TopMemoryContext);
	dlist_init(&turns);
}

/* Return how many of a kind may be started for one role. */
static int
kind_limit(void)
{
	int			share = num_slots / (NUM_KINDS * Max(1, (int) hash_get_num_entries(roles)));

	return Max(1, Min(3 * rinq_command_workers, share));
}

/*
 * Return how many of a lane may be started; the rest of its kind is room for
 * those that come.
 */
static int
lane_limit(void)
{
	return Min(2 * rinq_command_workers, kind_limit());
}

static Kind *
kind_of(const RinqLane * lane)
{
	Assert(lane->key.work < NUM_KINDS);
	return &lane->role->kinds[lane->key.work];
}

static Role *
find_role(Oid oid)
{
	bool		found;
	Role	   *role = hash_search(roles, &oid, HASH_ENTER, &found);
	int			i;

	if (found)
		return role;
	role->num_lanes = 0;
	role->num_waiting = 0;
	for (i = 0; i < NUM_KINDS; i++)
	{
		role->kinds[i].started = 0;
		dlist_init(&role->kinds[i].lanes);
	}
	return role;
}

static RinqLane *
find_lane(const RinqInbound * request, Oid role, RinqNamespace * ns)
{
	RinqBytes	namespace = rinq_get_bytes(&request->fields,
										   rinq_common_fields_of(&request->fields)->namespace);
	LaneKey		key;
	RinqLane   *lane;
	bool		found;

	key.role = role;
	key.work = request->work;
	key.namespace = ns != NULL ? ns->index :
		hash_bytes((const unsigned char *) namespace.data, (int) namespace.len);
	lane = hash_search(lanes, &key, HASH_ENTER, &found);
	if (found)
		return lane;
	lane->role = find_role(role);
	lane->role->num_lanes++;
	lane->ns = ns;
	lane->started = 0;
	lane->num_waiting = 0;
	dlist_init(&lane->waiting);
	return lane;
}

/* forget a lane that is of no use, and its role likewise */
static void
forget_if_unused(RinqLane * lane)
{
	Role	   *role = lane->role;

	Assert(lane->started >= 0 && lane->num_waiting >= 0);
	if (lane->started > 0 || lane->num_waiting > 0)
		return;
	hash_search(lanes, &lane->key, HASH_REMOVE, NULL);
	Assert(role->num_lanes > 0);
	if (--role->num_lanes == 0)
		hash_search(roles, &role->role, HASH_REMOVE, NULL);
}

/*
 * Count one more that waits in a lane, which may have to be given a turn from
 * now on.
 */
static void
more_waits(RinqLane * lane)
{
	if (lane->num_waiting++ > 0)
		return;
	dlist_push_tail(&kind_of(lane)->lanes, &lane->node);
	if (lane->role->num_waiting++ == 0)
		dlist_push_tail(&turns, &lane->role->node);
}

static void
less_waits(RinqLane * lane)
{
	Assert(lane->num_waiting > 0);
	if (--lane->num_waiting > 0)
		return;
	Assert(dlist_is_empty(&lane->waiting) && lane->role->num_waiting > 0);
	dlist_delete(&lane->node);
	if (--lane->role->num_waiting == 0)
		dlist_delete(&lane->role->node);
}

/*
 * Have a request wait for its turn.  Returns how many wait in its lane.
 */
int
rinq_lanes_add(RinqInbound * request, Oid role, RinqNamespace * ns)
{
	RinqLane   *lane = find_lane(request, role, ns);

	Assert((ns != NULL) == (request->work == RINQ_WORK_REQUEST));
	request->lane = lane;
	dlist_push_tail(&lane->waiting, &request->node);
	more_waits(lane);
	return lane->num_waiting;
}

static bool
may_start(const RinqLane * lane)
{
	const		RinqNamespace *ns = lane->ns;

	if (lane->started >= lane_limit())
		return false;
	return ns == NULL || ns->listener == NULL || ns->listener->max_concurrent == 0 ||
		ns->started < ns->listener->max_concurrent;
}

/*
 * Return the lane of a kind that comes next, or NULL. The walk is short: lanes
 * in its way have something in a slot.
 */
static RinqLane *
next_lane(Kind *kind)
{
	RinqLane   *best = NULL;
	dlist_iter	iter;

	if (kind->started >= kind_limit())
		return NULL;
	dlist_foreach(iter, &kind->lanes)
	{
		RinqLane   *lane = dlist_container(RinqLane, node, iter.cur);

		if (!may_start(lane) || (best != NULL && best->started <= lane->started))
			continue;
		best = lane;
		if (best->started == 0)
			break;
	}
	return best;
}

static RinqLane *
next_lane_of_role(Role * role)
{
	RinqLane   *best = NULL;
	int			i;

	for (i = 0; i < NUM_KINDS; i++)
	{
		RinqLane   *lane = next_lane(&role->kinds[i]);

		if (lane != NULL && (best == NULL || kind_of(lane)->started < kind_of(best)->started))
			best = lane;
	}
	return best;
}

/*
 * Take the request whose turn it is; NULL when none may be started now.  The caller
 * says what has become of it: started, put back or dropped.
 */
RinqInbound *
rinq_lanes_take(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &turns)
	{
		Role	   *role = dlist_container(Role, node, iter.cur);
		RinqLane   *lane = next_lane_of_role(role);
		RinqInbound *request;

		if (lane == NULL)
			continue;
		request = dlist_container(RinqInbound, node, dlist_pop_head_node(&lane->waiting));

		/* the others have their turns first */
		dlist_delete(&role->node);
		dlist_push_tail(&turns, &role->node);
		dlist_delete(&lane->node);
		dlist_push_tail(&kind_of(lane)->lanes, &lane->node);
		less_waits(lane);
		return request;
	}
	return NULL;
}

/*
 * Put a request back that was taken, since there is no room for it.
 */
void
rinq_lanes_put_back(RinqInbound * request)
{
	Assert(request->lane != NULL);
	dlist_push_head(&request->lane->waiting, &request->node);
	more_waits(request->lane);
}

/*
 * Note that a request that was taken from a lane has ended without being started.
 */
void
rinq_lanes_dropped(RinqLane * lane)
{
	forget_if_unused(lane);
}

/*
 * Count a request that was taken as started.
 */
void
rinq_lanes_started(RinqInbound * request)
{
	RinqLane   *lane = request->lane;

	lane->started++;
	kind_of(lane)->started++;
	Assert(lane->started <= kind_of(lane)->started && kind_of(lane)->started <= num_slots);
	if (lane->ns != NULL)
		lane->ns->started++;
}

/*
 * Count a request of a lane that was started as ended.
 */
void
rinq_lanes_ended(RinqLane * lane)
{
	Assert(lane->started > 0 && kind_of(lane)->started > 0);
	lane->started--;
	kind_of(lane)->started--;
	Assert(lane->ns == NULL || lane->ns->started > 0);
	if (lane->ns != NULL)
		lane->ns->started--;
	forget_if_unused(lane);
}

/*
 * Take all requests that a filter wants, in order within each lane.
 */
void
rinq_lanes_extract(RinqLaneFilter wanted, void *arg, dlist_head *into)
{
	HASH_SEQ_STATUS seq;
	RinqLane   *lane;

	hash_seq_init(&seq, lanes);
	while ((lane = hash_seq_search(&seq)) != NULL)
	{
		dlist_mutable_iter iter;

		dlist_foreach_modify(iter, &lane->waiting)
		{
			RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

			if (!wanted(request, arg))
				continue;
			dlist_delete(&request->node);
			less_waits(lane);
			request->lane = NULL;
			dlist_push_tail(into, &request->node);
		}
		forget_if_unused(lane);
	}
}
