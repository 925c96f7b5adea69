/*-------------------------------------------------------------------------
 *
 * backend/own_access.c
 *	  What others may not do with the extension's relations, whatever
 *	  privileges on them they were given.
 *
 * GRANT ALL ON ALL TABLES of the schema that users share with the extension
 * covers its views.  A trigger on a view would run as the role that writes it,
 * mostly an administrator.  LOCK TABLE on a view locks the tables behind it,
 * too, as the view's owner, and so stops the extension for everybody.  Both
 * are refused to all but superusers and owners, and triggers on views to these
 * as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "backend/bus_access.h"
#include "backend/own_access.h"
#include "backend/own_schema.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Read the row of a trigger that was made just now, without what it has of any length. */
static bool
read_new_trigger(Oid trigger, FormData_pg_trigger * form)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		memcpy(form, GETSTRUCT(tuple), offsetof(FormData_pg_trigger, tgattr));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static bool
is_notify_trigger(Oid func)
{
	char	   *name = get_func_name(func);

	return name != NULL && strcmp(name, "rinq_notify_trigger") == 0 &&
		rinq_is_extension_object(ProcedureRelationId, func);
}

/*
 * Refuse a trigger on a view of the extension, and to a role that may not use
 * the bus one that sends: the privilege TRIGGER on another role's table is enough
 * to attach it, and it fires by that role's rights.  Those that partitions get
 * follow from one that was attached.
 */
void
rinq_own_access_created(ObjectAccessType access, Oid classId, Oid objectId)
{
	FormData_pg_trigger trigger;
	Oid			relid;

	if (access != OAT_POST_CREATE || classId != TriggerRelationId || creating_extension ||
		!read_new_trigger(objectId, &trigger))
		return;
	if (!OidIsValid(trigger.tgparentid) && is_notify_trigger(trigger.tgfoid))
		rinq_check_bus_access(GetUserId());
	relid = trigger.tgrelid;
	if (get_rel_relkind(relid) == RELKIND_VIEW && rinq_is_extension_object(RelationRelationId, relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("view \"%s\" cannot have triggers", get_rel_name(relid)),
				 errdetail("It belongs to the extension rinq.")));
}

/* views that were looked into, and as a result whether one is the extension's */
typedef struct Search
{
	List	   *seen;
	Oid			found;
} Search;

static bool search_relation(Oid relid, Search *search);

static bool
search_query(Node *node, void *arg)
{
	Search	   *search = arg;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, search_query, arg);
	foreach(lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *entry = lfirst(lc);

		if (OidIsValid(entry->relid) && search_relation(entry->relid, search))
			return true;
	}
	return query_tree_walker((Query *) node, search_query, arg, QTW_IGNORE_JOINALIASES);
}

/*
 * Tell whether locking a relation locks one of the extension that the current
 * role does not own.  The lock on each view keeps it as it was found.
 */
static bool
search_relation(Oid relid, Search *search)
{
	Relation	view;
	bool		found = false;

	check_stack_depth();
	if (list_member_oid(search->seen, relid))
		return false;
	search->seen = lappend_oid(search->seen, relid);
	if (rinq_is_extension_object(RelationRelationId, relid) && !rinq_is_table_owner(relid, GetUserId()))
	{
		search->found = relid;
		return true;
	}
	if (get_rel_relkind(relid) != RELKIND_VIEW)
		return false;
	view = try_relation_open(relid, AccessShareLock);
	if (view != NULL)
	{
		if (view->rd_rel->relkind == RELKIND_VIEW)
			found = search_query((Node *) get_view_query(view), search);
		relation_close(view, NoLock);
	}
	return found;
}

/*
 * Refuse LOCK TABLE when it would keep the extension from its own tables.
 */
void
rinq_own_access_check(Node *command)
{
	LockStmt   *stmt = (LockStmt *) command;
	Search		search = {NIL, InvalidOid};
	ListCell   *lc;

	if (!IsA(command, LockStmt) || stmt->mode <= AccessShareLock || superuser())
		return;
	foreach(lc, stmt->relations)
	{
		Oid			relid = RangeVarGetRelid((RangeVar *) lfirst(lc), NoLock, true);

		if (OidIsValid(relid) && search_relation(relid, &search))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("relation \"%s\" cannot be locked", get_rel_name(search.found)),
					 errdetail("It belongs to the extension rinq, which has to write its tables for others.")));
	}
	list_free(search.seen);
}
