/*-------------------------------------------------------------------------
 *
 * trigger_plan.h
 *	  What the arguments of rinq_notify_trigger mean.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_TRIGGER_PLAN_H
#define RINQ_TRIGGER_PLAN_H

#include "postgres.h"

#include "bytes.h"
#include "commands/trigger.h"
#include "constraint.h"
#include "fmgr.h"

typedef struct RinqTriggerPlan
{
	Oid			trigger;
	Oid			relation;
	RinqBytes	namespace;
	RinqBytes	type;			/* empty: the operation */
	int			target_column;	/* that names the session; 0 is none */
	RinqConstraint *constraint; /* otherwise */
	RinqBytes	encoded;		/* the constraint, when it is the same for all rows */
	int			num_match;		/* columns whose values sessions must have as well */
	int		   *match;
	int			num_columns;	/* that are sent; 0 is all */
	int		   *columns;
	TupleDesc	projected;		/* of these */
	size_t		chunk;			/* bytes of rows in one message */
	bool		only_if_peer;	/* without a peer, nothing is sent, and that is no error */
	FmgrInfo	to_jsonb;
} RinqTriggerPlan;

extern RinqTriggerPlan *rinq_trigger_plan(TriggerData *data, MemoryContext context);
extern RinqBytes rinq_trigger_encode(const RinqConstraint *constraint);

#endif							/* RINQ_TRIGGER_PLAN_H */
