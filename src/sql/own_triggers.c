/*-------------------------------------------------------------------------
 *
 * own_triggers.c
 *	  Trigger functions that keep others from writing the extension's tables.
 *
 * Rows of these tables say as whom functions run, and which commands are sent
 * in the name of the database.  No privilege is enough to write them by hand,
 * be it pg_write_all_data, and rows of another server are of no meaning here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "catalog/catalog.h"
#include "catalog/pg_publication.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "replication/origin.h"
#include "utils/acl.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rinq_guard);
PG_FUNCTION_INFO_V1(rinq_keep_local);

/*
 * Tell whether the current transaction brings what another server has written.
 * Only the origin tells: session_replication_role is a mode that a restore, or
 * an administrator at work, may be in as well.
 */
static bool
is_replicating(void)
{
	return IsLogicalWorker() ||
		(rinq_replication_origin() != InvalidReplOriginId &&
		 rinq_replication_origin() != DoNotReplicateId);
}

static void
require_trigger(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be called as a trigger", name)));
}

/*
 * Refuse TRUNCATE where it is replicated: a subscriber would empty its own
 * table, and no trigger there can prevent it.
 */
static void
refuse_replicated_truncate(Relation rel)
{
	PublicationDesc publication;

	if (is_replicating())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" cannot be truncated by replication",
						RINQ_INTERNAL_SCHEMA, RelationGetRelationName(rel)),
				 errhint("Use ALTER SUBSCRIPTION ... SKIP.")));
	if (!RelationIsLogicallyLogged(rel))
		return;
	RelationBuildPublicationDesc(rel, &publication);
	if (publication.pubactions.pubtruncate)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" cannot be truncated while it is published",
						RINQ_INTERNAL_SCHEMA, RelationGetRelationName(rel)),
				 errdetail("Subscribers would truncate their own tables."),
				 errhint("Use DELETE.")));
}

/*
 * guard() returns trigger
 *
 * Before each statement: refuses those of all but the owner and superusers.
 */
Datum
rinq_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	require_trigger(fcinfo, "guard");
	if (!rinq_is_table_owner(RelationGetRelid(data->tg_relation), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table \"%s.%s\" cannot be written directly",
						RINQ_INTERNAL_SCHEMA, RelationGetRelationName(data->tg_relation)),
				 errhint("Use the functions of the extension, such as rinq_listen and rinq_execute.")));
	if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		refuse_replicated_truncate(data->tg_relation);
	return PointerGetDatum(NULL);
}

/*
 * keep_local() returns trigger
 *
 * Before each row: ignores what logical replication brings.  What the extension
 * itself writes is not ignored, if a trigger of a user's table has called it.
 */
Datum
rinq_keep_local(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	require_trigger(fcinfo, "keep_local");
	if (is_replicating() && !rinq_own_tables_in_use())
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ?
						   data->tg_newtuple : data->tg_trigtuple);
}
