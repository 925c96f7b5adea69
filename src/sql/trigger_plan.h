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

#include "base/bytes.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "protocol/constraint.h"

/* a column whose values are sent, or compared with attributes */
typedef struct RinqTriggerColumn
{
	int			number;
	const char *name;
	RinqBytes	key;			/* the column's name as it is sent */
	const char *namespace;		/* of the attribute to match; NULL: the
								 * notification's */
	FmgrInfo	to_jsonb;		/* converts its values */
} RinqTriggerColumn;

typedef struct RinqTriggerPlan
{
	Oid			trigger;
	Oid			relation;
	RinqBytes	namespace;
	RinqBytes	type;			/* empty: the operation */
	int			target_column;	/* that names the session; 0 is none */
	RinqConstraint *constraint; /* otherwise */
	RinqBytes	encoded;		/* the constraint, when it is the same for all
								 * rows */
	int			num_match;		/* columns whose values sessions must have as
								 * well */
	RinqTriggerColumn *match;
	int			num_columns;	/* that are sent, in jsonb's order of keys */
	RinqTriggerColumn *columns;
	bool		has_money;		/* values look different with another
								 * lc_monetary */
	bool		has_names;		/* … with another search_path */
	size_t		chunk;			/* bytes of rows in one message */
	bool		only_if_peer;	/* without a peer, nothing is sent, and that
								 * is no error */
} RinqTriggerPlan;

/*
 * What an error is about, for its context.  Code that works on a column says
 * so here, and takes it back.
 */
typedef struct RinqTriggerContext
{
	TriggerData *data;
	const char *table;			/* with its schema */
	const char *column;			/* NULL for none */
	bool		is_sent;		/* fewer columns would help */
} RinqTriggerContext;

extern RinqTriggerPlan *rinq_trigger_plan(TriggerData *data, RinqTriggerContext *about,
										  MemoryContext context);
extern RinqBytes rinq_trigger_encode(const RinqConstraint *constraint);

/* in trigger_row.c */
extern int	rinq_trigger_fix_settings(const RinqTriggerPlan *plan);
extern RinqBytes rinq_trigger_constraint(RinqTriggerPlan *plan, RinqTriggerContext *about,
										 TupleDesc desc, HeapTuple row);
extern void rinq_trigger_append_row(RinqTriggerPlan *plan, RinqTriggerContext *about,
									TupleDesc desc, HeapTuple row, StringInfo out);

#endif							/* RINQ_TRIGGER_PLAN_H */
