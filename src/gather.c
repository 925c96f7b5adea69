/*-------------------------------------------------------------------------
 *
 * gather.c
 *	  Making queries that fan calls out make all of them before they wait.
 *
 *		SELECT rinq_await(id) FROM (SELECT rinq_call_async(...) AS id ...) s
 *
 * is evaluated row by row, and so each call would be awaited before the next
 * one is made.  In plans of statements that call both functions, a node is put
 * above each subquery whose result has rinq_call_async in it, which reads all
 * rows before it returns the first.  No other statement is touched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "gather.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

typedef struct RinqGatherState
{
	CustomScanState css;
	Tuplestorestate *store;		/* NULL until the child was read */
	TupleTableSlot *stored;		/* a row as the store returns it */
} RinqGatherState;

static planner_hook_type prev_planner = NULL;

/* what a walk over expressions looks for, and has found */
typedef struct Search
{
	bool		calls;			/* rinq_call_async */
	bool		awaits;			/* rinq_await and its like */
} Search;

static bool
is_own_function(Oid func, const char *prefix)
{
	char	   *name;

	if (func < FirstNormalObjectId)
		return false;
	name = get_func_name(func);
	return name != NULL && strncmp(name, prefix, strlen(prefix)) == 0 &&
		getExtensionOfObject(ProcedureRelationId, func) == get_extension_oid("rinq", true);
}

static bool
search_expression(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr))
	{
		Oid			func = ((FuncExpr *) node)->funcid;

		if (is_own_function(func, "rinq_call_async"))
			search->calls = true;
		else if (is_own_function(func, "rinq_await"))
			search->awaits = true;
	}
	return expression_tree_walker(node, search_expression, context);
}

static void search_plan(Plan *plan, Search *search);

static void
search_plans(List *plans, Search *search)
{
	ListCell   *lc;

	foreach(lc, plans)
		search_plan(lfirst(lc), search);
}

/* looks through a plan and all below it */
static void
search_plan(Plan *plan, Search *search)
{
	if (plan == NULL)
		return;
	(void) search_expression((Node *) plan->targetlist, search);
	(void) search_expression((Node *) plan->qual, search);
	search_plan(plan->lefttree, search);
	search_plan(plan->righttree, search);
	switch (nodeTag(plan))
	{
		case T_SubqueryScan:
			search_plan(((SubqueryScan *) plan)->subplan, search);
			break;
		case T_Append:
			search_plans(((Append *) plan)->appendplans, search);
			break;
		case T_MergeAppend:
			search_plans(((MergeAppend *) plan)->mergeplans, search);
			break;
		case T_CustomScan:
			search_plans(((CustomScan *) plan)->custom_plans, search);
			break;
		case T_FunctionScan:
			(void) search_expression((Node *) ((FunctionScan *) plan)->functions, search);
			break;
		default:
			break;
	}
}

static Node *create_state(CustomScan *scan);

static const CustomScanMethods scan_methods = {
	.CustomName = "RinqGather",
	.CreateCustomScanState = create_state
};

/* are there calls in the rows of a plan, made by itself or by one whose rows it passes on? */
static bool
makes_calls(Plan *plan)
{
	Search		search = {false, false};

	if (plan == NULL || IsA(plan, ModifyTable))
		return false;
	(void) search_expression((Node *) plan->targetlist, &search);
	if (search.calls)
		return true;
	switch (nodeTag(plan))
	{
		case T_Limit:
		case T_Sort:
		case T_IncrementalSort:
		case T_Unique:
		case T_Material:
		case T_LockRows:
			return makes_calls(plan->lefttree);
		case T_SubqueryScan:
			return makes_calls(((SubqueryScan *) plan)->subplan);
		default:
			return false;
	}
}

/* puts the node above a plan whose rows have calls in them */
static Plan *
gather_above(Plan *child)
{
	CustomScan *scan;
	ListCell   *lc;
	List	   *columns = NIL;

	if (!makes_calls(child))
		return child;

	foreach(lc, child->targetlist)
	{
		TargetEntry *column = lfirst(lc);
		Var		   *var = makeVarFromTargetEntry(INDEX_VAR, column);

		columns = lappend(columns, makeTargetEntry((Expr *) var, column->resno,
												   column->resname, column->resjunk));
	}
	scan = makeNode(CustomScan);
	scan->scan.plan.targetlist = columns;
	scan->scan.plan.startup_cost = child->total_cost;
	scan->scan.plan.total_cost = child->total_cost;
	scan->scan.plan.plan_rows = child->plan_rows;
	scan->scan.plan.plan_width = child->plan_width;
	scan->scan.plan.parallel_safe = false;
	scan->scan.plan.extParam = bms_copy(child->extParam);
	scan->scan.plan.allParam = bms_copy(child->allParam);
	scan->scan.scanrelid = 0;
	scan->custom_plans = list_make1(child);
	scan->custom_scan_tlist = copyObject(child->targetlist);
	scan->methods = &scan_methods;
	return (Plan *) scan;
}

/*
 * May a plan wait for what its input has in its rows?  One that only passes
 * rows on does not, and must not be given more of them than it asks for.
 */
static bool
may_wait(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Agg:
		case T_Group:
		case T_WindowAgg:
		case T_ProjectSet:
		case T_Result:
		case T_NestLoop:
		case T_HashJoin:
		case T_MergeJoin:
			return true;
		default:
			return false;
	}
}

static void
change_plan(Plan *plan)
{
	ListCell   *lc;
	List	   *children = NIL;

	if (plan == NULL)
		return;
	change_plan(plan->lefttree);
	change_plan(plan->righttree);
	if (may_wait(plan))
	{
		plan->lefttree = gather_above(plan->lefttree);
		plan->righttree = gather_above(plan->righttree);
	}
	switch (nodeTag(plan))
	{
		case T_SubqueryScan:
			change_plan(((SubqueryScan *) plan)->subplan);
			((SubqueryScan *) plan)->subplan = gather_above(((SubqueryScan *) plan)->subplan);
			break;
		case T_Append:
			children = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			children = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_CustomScan:
			children = ((CustomScan *) plan)->custom_plans;
			break;
		default:
			break;
	}
	foreach(lc, children)
		change_plan(lfirst(lc));
}

/*
 * May a statement have functions of this extension in it?  The planner notes
 * the functions that a plan depends on, but for built-in ones: where it has
 * noted none, as in most statements, the plan need not be searched.
 */
static bool
may_use_functions(PlannedStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		if (((PlanInvalItem *) lfirst(lc))->cacheId == PROCOID)
			return true;
	}
	return false;
}

static PlannedStmt *
plan_query(Query *parse, const char *query_string, int options, ParamListInfo params)
{
	PlannedStmt *stmt = prev_planner != NULL ?
		prev_planner(parse, query_string, options, params) :
		standard_planner(parse, query_string, options, params);
	Search		search = {false, false};
	ListCell   *lc;

	if (!may_use_functions(stmt))
		return stmt;
	search_plan(stmt->planTree, &search);
	search_plans(stmt->subplans, &search);
	if (!search.calls || !search.awaits)
		return stmt;

	change_plan(stmt->planTree);
	foreach(lc, stmt->subplans)
	{
		change_plan(lfirst(lc));
		lfirst(lc) = gather_above(lfirst(lc));
	}
	return stmt;
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	RinqGatherState *state = (RinqGatherState *) node;

	state->stored = ExecInitExtraTupleSlot(estate, node->ss.ss_ScanTupleSlot->tts_tupleDescriptor,
										   &TTSOpsMinimalTuple);

	/* it is read once, forwards */
	node->custom_ps = list_make1(ExecInitNode(linitial(scan->custom_plans), estate,
											  eflags & ~(EXEC_FLAG_REWIND | EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK)));
}

static TupleTableSlot *
next_row(ScanState *node)
{
	RinqGatherState *state = (RinqGatherState *) node;
	PlanState  *child = linitial(state->css.custom_ps);
	TupleTableSlot *slot = node->ss_ScanTupleSlot;

	if (state->store == NULL)
	{
		TupleTableSlot *row;
		MemoryContext old = MemoryContextSwitchTo(node->ps.state->es_query_cxt);

		state->store = tuplestore_begin_heap(true, false, work_mem);
		MemoryContextSwitchTo(old);
		while (row = ExecProcNode(child), !TupIsNull(row))
			tuplestore_puttupleslot(state->store, row);
	}
	if (!tuplestore_gettupleslot(state->store,
								 ScanDirectionIsForward(node->ps.state->es_direction), false,
								 state->stored))
		return ExecClearTuple(slot);
	return ExecCopySlot(slot, state->stored);
}

static bool
recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
execute(CustomScanState *node)
{
	return ExecScan(&node->ss, next_row, recheck);
}

static void
end(CustomScanState *node)
{
	RinqGatherState *state = (RinqGatherState *) node;

	if (state->store != NULL)
		tuplestore_end(state->store);
	state->store = NULL;
	ExecEndNode(linitial(node->custom_ps));
}

static void
rescan(CustomScanState *node)
{
	RinqGatherState *state = (RinqGatherState *) node;
	PlanState  *child = linitial(node->custom_ps);

	if (node->ss.ps.chgParam != NULL)
		UpdateChangedParamSet(child, node->ss.ps.chgParam);
	ExecScanReScan(&node->ss);

	/* as any volatile subquery, it is only run again for other parameters */
	if (state->store != NULL && child->chgParam == NULL)
	{
		tuplestore_rescan(state->store);
		return;
	}
	if (state->store != NULL)
		tuplestore_end(state->store);
	state->store = NULL;
	ExecReScan(child);
}

static const CustomExecMethods exec_methods = {
	.CustomName = "RinqGather",
	.BeginCustomScan = begin,
	.ExecCustomScan = execute,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan
};

static Node *
create_state(CustomScan *scan)
{
	RinqGatherState *state = palloc0(sizeof(RinqGatherState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/*
 * Installs the hook; called while the server loads the library.
 */
void
rinq_gather_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	prev_planner = planner_hook;
	planner_hook = plan_query;
}
