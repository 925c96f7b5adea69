/*-------------------------------------------------------------------------
 *
 * backend/own_relation.c
 *	  Whether the extension's tables are as the install script made them.
 *
 * Statements on these tables run as their owner, mostly a superuser, and so
 * would anything that was attached to one: a trigger, a rule, a
 * policy, the default of a column, the expression of an index.  A table that
 * carries such a thing is not used.
 *
 * What can be told from the catalogs is told from them.  For the rest, the
 * install script writes down the shape of each table in
 * rinq_internal.manifest; shapes are lists of names and numbers, which no
 * version of PostgreSQL writes differently from the next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/own_version.h"
#include "backend/parallel.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rinq_relation_shape);
PG_FUNCTION_INFO_V1(rinq_relation_problem);
PG_FUNCTION_INFO_V1(rinq_require_own_relation);

#define MANIFEST "manifest"
#define MAX_REMEMBERED 32

/* tables found sound, until something about them changes */
static Oid	sound[MAX_REMEMBERED];
static int	num_sound = 0;

static void
forget_sound(Datum arg, Oid relid)
{
	int			i;

	if (!OidIsValid(relid))
		num_sound = 0;
	for (i = 0; i < num_sound; i++)
	{
		if (sound[i] == relid)
			sound[i--] = sound[--num_sound];
	}
}

static bool
is_remembered(Oid relid)
{
	int			i;

	for (i = 0; i < num_sound; i++)
	{
		if (sound[i] == relid)
			return true;
	}
	return false;
}

static void
remember_sound(Oid relid)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterRelcacheCallback(forget_sound, (Datum) 0);
	registered = true;
	if (num_sound < MAX_REMEMBERED)
		sound[num_sound++] = relid;
}

/*
 * Tell whether a trigger calls a function that is meant for these tables,
 * always.  Before a row, most of these functions would have it ignored.
 */
static bool
is_own_trigger(const Trigger *trigger)
{
	Oid			function = trigger->tgfoid;

	if (trigger->tgqual != NULL || get_func_namespace(function) != rinq_internal_schema() ||
		!rinq_is_extension_object(ProcedureRelationId, function))
		return false;
	return !TRIGGER_FOR_ROW(trigger->tgtype) || !TRIGGER_FOR_BEFORE(trigger->tgtype) ||
		strcmp(get_func_name(function), "keep_local") == 0;
}

/*
 * Find a trigger that is not the extension's.
 */
static const Trigger *
foreign_trigger(Relation rel)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!is_own_trigger(trigger))
			return trigger;
	}
	return NULL;
}

/*
 * Append a type to a shape: by its number if it is one of PostgreSQL's own, by
 * its name if it is one of the extension's.
 */
static void
append_type(StringInfo shape, Oid type)
{
	HeapTuple	tuple;

	if (type < FirstNormalObjectId)
	{
		appendStringInfo(shape, " %u", type);
		return;
	}
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (HeapTupleIsValid(tuple) &&
		(((Form_pg_type) GETSTRUCT(tuple))->typnamespace == rinq_extension_schema() ||
		 ((Form_pg_type) GETSTRUCT(tuple))->typnamespace == rinq_internal_schema()))
		appendStringInfo(shape, " %s", NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname));
	else
		appendStringInfo(shape, " type %u", type);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
}

static void
append_columns(StringInfo shape, TupleDesc desc)
{
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped)
			continue;
		appendStringInfoString(shape, NameStr(column->attname));
		append_type(shape, column->atttypid);
		appendStringInfo(shape, "%s%s, ", column->attnotnull ? " not null" : "",
						 column->attgenerated != '\0' ? " generated" : "");
	}
}

static void
append_indexes(StringInfo shape, Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	int			plain = 0;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (RelationGetIndexExpressions(index) != NIL || RelationGetIndexPredicate(index) != NIL ||
			index->rd_index->indisexclusion)
			appendStringInfoString(shape, "index with an expression, ");
		else
			plain++;
		index_close(index, AccessShareLock);
	}
	appendStringInfo(shape, "%d indexes", plain);
	list_free(indexes);
}

/*
 * Write a table's columns and what is computed for them as text.  A list of
 * OIDs of types is that of pg_catalog, which are the same everywhere.
 */
static char *
relation_shape(Relation rel)
{
	StringInfoData shape;
	TupleDesc	desc = RelationGetDescr(rel);

	initStringInfo(&shape);
	append_columns(&shape, desc);
	appendStringInfo(&shape, "%d defaults, %d checks, ",
					 desc->constr == NULL ? 0 : desc->constr->num_defval,
					 desc->constr == NULL ? 0 : desc->constr->num_check);
	append_indexes(&shape, rel);
	return shape.data;
}

/*
 * Return a registered snapshot that sees what is committed by now in a table,
 * whatever the transaction's own is.  It is that of the catalog, which there is
 * in a parallel operation, too, where GetLatestSnapshot() is refused.
 */
Snapshot
rinq_register_newest_snapshot(Relation rel)
{
	return RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(rel)));
}

/*
 * Look up the shape that the install script wrote down for a table; NULL when
 * there is none.
 */
static char *
recorded_shape(Relation rel)
{
	Oid			relid = get_relname_relid(MANIFEST, rinq_internal_schema());
	Relation	manifest;
	TupleTableSlot *slot;
	TableScanDesc scan;
	Snapshot	snapshot;
	char	   *shape = NULL;

	if (!OidIsValid(relid))
		return NULL;
	manifest = table_open(relid, AccessShareLock);
	if (RelationGetDescr(manifest)->natts != 2 ||
		TupleDescAttr(RelationGetDescr(manifest), 0)->atttypid != TEXTOID ||
		TupleDescAttr(RelationGetDescr(manifest), 1)->atttypid != TEXTOID ||
		manifest->rd_rel->relkind != RELKIND_RELATION)
	{
		table_close(manifest, AccessShareLock);
		return NULL;
	}
	slot = table_slot_create(manifest, NULL);
	snapshot = rinq_register_newest_snapshot(manifest);
	scan = rinq_begin_scan(manifest, snapshot);
	while (shape == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		name = slot_getattr(slot, 1, &isnull);

		if (!isnull && strcmp(TextDatumGetCString(name), RelationGetRelationName(rel)) == 0)
		{
			Datum		value = slot_getattr(slot, 2, &isnull);

			shape = isnull ? NULL : TextDatumGetCString(value);
		}
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(manifest, AccessShareLock);
	return shape;
}

/*
 * Say what stands in the way of reading a table as its owner; NULL for nothing.
 */
static char *
reading_problem(Relation rel)
{
	char	   *shape;
	char	   *owner;

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relispartition)
		return pstrdup("it is not a plain table");
	if (rel->rd_rel->relowner != rinq_extension_owner())
	{
		owner = GetUserNameFromId(rel->rd_rel->relowner, true);
		return psprintf("it belongs to role \"%s\", which does not own the extension",
						owner == NULL ? "" : owner);
	}
	if (rel->rd_rules != NULL)
		return pstrdup("it has a rule");
	if (rel->rd_rel->relrowsecurity || rel->rd_rel->relforcerowsecurity)
		return pstrdup("it has row-level security");
	if (rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		return pstrdup("another table inherits from it");
	shape = recorded_shape(rel);
	if (shape == NULL)
		return pstrdup("it is not in the table \"" RINQ_INTERNAL_SCHEMA "." MANIFEST "\"");
	if (strcmp(shape, relation_shape(rel)) != 0)
		return pstrdup("its columns, constraints, defaults or indexes have changed");
	return NULL;
}

/*
 * Say what a table carries that is not the extension's, palloc'd; NULL for
 * nothing.
 */
char *
rinq_own_relation_problem(Relation rel, RinqOwnUse use)
{
	char	   *problem;
	const Trigger *trigger;

	if (is_remembered(RelationGetRelid(rel)))
		return NULL;
	problem = rinq_own_version_problem();
	if (problem == NULL)
		problem = reading_problem(rel);
	if (problem != NULL)
		return problem;
	trigger = foreign_trigger(rel);
	if (trigger == NULL)
		remember_sound(RelationGetRelid(rel));
	else if (use == RINQ_OWN_WRITE)
		return trigger->tgisinternal ?
			pstrdup("another table references it, or is referenced by it") :
			psprintf("it has the trigger \"%s\"", trigger->tgname);
	return NULL;
}

/*
 * Raise an error unless a table of the extension, which is open and locked, can
 * be used as its owner.
 */
void
rinq_check_own_relation(Relation rel, RinqOwnUse use)
{
	char	   *problem = rinq_own_relation_problem(rel, use);

	if (problem == NULL)
		return;
	rinq_check_own_version();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s.%s\" is not used, because it is not as rinq made it",
					RINQ_INTERNAL_SCHEMA, RelationGetRelationName(rel)),
			 errdetail_internal("The table cannot be used: %s.", problem),
			 errhint("Remove what was added; rinq_check() lists it.")));
}

/*
 * relation_shape(regclass) returns text
 *
 * Describes a table for the manifest.
 */
Datum
rinq_relation_shape(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	char	   *shape = relation_shape(rel);

	relation_close(rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(shape));
}

/*
 * relation_problem(regclass) returns text
 *
 * Says what a table carries that is not the extension's; NULL for nothing.
 */
Datum
rinq_relation_problem(PG_FUNCTION_ARGS)
{
	Relation	rel;
	char	   *problem;

	rinq_refuse_parallel(fcinfo);
	rinq_lock_extension();
	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	problem = rinq_own_relation_problem(rel, RINQ_OWN_WRITE);
	relation_close(rel, AccessShareLock);
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/*
 * require_own_relation(regclass) returns void
 *
 * Raises an error unless a table can be written; the lock keeps it so until the
 * transaction ends.  For functions in SQL, before their other statements.
 */
Datum
rinq_require_own_relation(PG_FUNCTION_ARGS)
{
	Relation	rel;

	rinq_refuse_parallel(fcinfo);
	rinq_lock_extension();
	rel = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	rinq_check_own_relation(rel, RINQ_OWN_WRITE);
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}
