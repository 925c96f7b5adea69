/*-------------------------------------------------------------------------
 *
 * trigger_plan.c
 *	  What the arguments of rinq_notify_trigger mean: a namespace, a type, whom
 *	  to notify, and options.  Wrong ones are errors of the statement that fires
 *	  the trigger first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "guc.h"
#include "nodes/makefuncs.h"
#include "payload.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "sql/trigger_plan.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#define DEFAULT_CHUNK (64 * 1024)
#define MIN_CHUNK 1024

static int
column_number(TupleDesc desc, const char *name)
{
	int			number = SPI_fnumber(desc, name);

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", name)));
	return number;
}

static int
column_list(TupleDesc desc, const char *option, const char *list, int **numbers)
{
	List	   *names;
	ListCell   *lc;
	int			count = 0;

	if (!SplitIdentifierString(pstrdup(list), ',', &names) || names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list of columns \"%s\" in option \"%s\"", list, option)));
	*numbers = palloc(list_length(names) * sizeof(int));
	foreach(lc, names)
		(*numbers)[count++] = column_number(desc, lfirst(lc));
	return count;
}

static size_t
chunk_size(const char *text)
{
	char	   *end;
	long		size = strtol(text, &end, 10);

	if (end == text || *end != '\0' || size < MIN_CHUNK || (size_t) size > rinq_payload_limit())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value \"%s\" of option \"%s\"", text, "chunk"),
				 errdetail("It is a number of bytes between %d and %zu.", MIN_CHUNK,
						   rinq_payload_limit())));
	return (size_t) size;
}

static void
read_option(RinqTriggerPlan *plan, TupleDesc desc, const char *option)
{
	const char *value = strchr(option, '=');

	if (value != NULL && strncmp(option, "columns=", 8) == 0)
		plan->num_columns = column_list(desc, "columns", value + 1, &plan->columns);
	else if (value != NULL && strncmp(option, "match=", 6) == 0)
		plan->num_match = column_list(desc, "match", value + 1, &plan->match);
	else if (value != NULL && strncmp(option, "chunk=", 6) == 0)
		plan->chunk = chunk_size(value + 1);
	else if (strcmp(option, "only_if_peer") == 0)
		plan->only_if_peer = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown option \"%s\" of rinq_notify_trigger", option),
				 errhint("Options are \"columns=...\", \"match=...\", \"chunk=...\" and \"only_if_peer\".")));
}

/* a constraint, or the name of a column */
static void
read_target(RinqTriggerPlan *plan, TupleDesc desc, const char *text)
{
	if (strchr(text, '{') == NULL)
	{
		plan->target_column = column_number(desc, text);
		return;
	}
	plan->constraint = rinq_constraint_argument(text);
}

static void
project(RinqTriggerPlan *plan, TupleDesc desc)
{
	int			i;

	plan->projected = CreateTemplateTupleDesc(plan->num_columns);
	for (i = 0; i < plan->num_columns; i++)
		TupleDescCopyEntry(plan->projected, (AttrNumber) (i + 1), desc,
						   (AttrNumber) plan->columns[i]);
	plan->projected = BlessTupleDesc(plan->projected);
}

/* to_jsonb finds out by the call's expression what it is given */
static void
prepare_to_jsonb(RinqTriggerPlan *plan, Oid type, MemoryContext context)
{
	Param	   *row = makeNode(Param);

	row->paramkind = PARAM_EXTERN;
	row->paramtype = type;
	row->paramtypmod = -1;
	fmgr_info_cxt(F_TO_JSONB, &plan->to_jsonb, context);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(row), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &plan->to_jsonb);
}

/*
 * A constraint as it is sent.
 */
RinqBytes
rinq_trigger_encode(const RinqConstraint *constraint)
{
	StringInfoData cbor;

	initStringInfo(&cbor);
	rinq_constraint_encode(&cbor, constraint);
	if (cbor.len > RINQ_CONSTRAINT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("constraint is too large"),
				 errdetail("It takes %d bytes in CBOR, and may take %d.",
						   cbor.len, RINQ_CONSTRAINT_MAX_SIZE)));
	return rinq_bytes(cbor.data, cbor.len);
}

/*
 * Finds out what the arguments of a trigger mean, in memory of the context.
 */
RinqTriggerPlan *
rinq_trigger_plan(TriggerData *data, MemoryContext context)
{
	Trigger    *trigger = data->tg_trigger;
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	MemoryContext old = MemoryContextSwitchTo(context);
	RinqTriggerPlan *plan = palloc0(sizeof(RinqTriggerPlan));
	int			i;

	if (trigger->tgnargs < 3)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rinq_notify_trigger needs a namespace, a type, and a constraint or column"),
				 errhint("For example: EXECUTE FUNCTION rinq_notify_trigger('orders', 'changed', '{*}').")));
	rinq_check_namespace(trigger->tgargs[0]);
	plan->namespace = rinq_bytes_str(pstrdup(trigger->tgargs[0]));
	plan->type = rinq_bytes_copy(rinq_check_notification_type(trigger->tgargs[1]));
	plan->chunk = Min(DEFAULT_CHUNK, rinq_payload_limit());
	read_target(plan, desc, trigger->tgargs[2]);
	for (i = 3; i < trigger->tgnargs; i++)
		read_option(plan, desc, trigger->tgargs[i]);
	if (plan->num_match > 0 && plan->constraint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a constraint", "match"),
				 errhint("Use the constraint {*}.")));
	if (plan->num_match == 0 && plan->constraint != NULL)
		plan->encoded = rinq_trigger_encode(plan->constraint);
	if (plan->num_columns > 0)
		project(plan, desc);
	prepare_to_jsonb(plan, plan->num_columns > 0 ? RECORDOID : desc->tdtypeid, context);
	plan->trigger = trigger->tgoid;
	plan->relation = RelationGetRelid(data->tg_relation);
	MemoryContextSwitchTo(old);
	return plan;
}
