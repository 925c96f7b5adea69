/*-------------------------------------------------------------------------
 *
 * notify_trigger.c
 *	  rinq_notify_trigger: a trigger function that sends notifications about
 *	  changes of a table, row by row or many rows in one.
 *
 * What the trigger's arguments mean (trigger_plan.c) is found out when it fires
 * first in a query.  Of a statement, only the rows of one message are in memory, besides
 * the messages themselves, which backend/commit_queue.c keeps until the commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/bus_access.h"
#include "backend/calls.h"
#include "backend/parallel.h"
#include "cbor/stream.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "sql/session_ref.h"
#include "sql/trigger_plan.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rinq_notify_trigger);

/* whom a row is sent to */
typedef struct Target
{
	bool		nobody;
	RinqSessionId session;		/* of a notification to one; number 0 is none */
	RinqBytes	constraint;
} Target;

/* a message that is being filled with the rows of a statement */
typedef struct Batch
{
	RinqTriggerPlan *plan;
	RinqTriggerContext *about;
	RinqDatabase *db;
	MemoryContext row_context;	/* of what a row needs, until the next one */
	Target		target;			/* the constraint of the target is in
								 * "constraint" */
	StringInfoData constraint;
	StringInfoData new_rows;	/* in CBOR, one after another */
	StringInfoData old_rows;
	int			num_new;
	int			num_old;
	int			part;			/* number of the last message of the statement */
} Batch;

/* ---------------- rows ---------------- */

static Target
target_of(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc, HeapTuple row)
{
	Target		target;
	RinqSessionRef session;
	char	   *text;

	memset(&target, 0, sizeof(target));
	if (plan->constraint != NULL)
	{
		target.constraint = rinq_trigger_constraint(plan, about, desc, row);
		return target;
	}
	about->column = NameStr(TupleDescAttr(desc, plan->target_column - 1)->attname);
	text = SPI_getvalue(row, desc, plan->target_column);
	target.nobody = text == NULL;
	if (text != NULL)
	{
		rinq_session_ref_parse(text, &session);
		rinq_check_notification_target(&session);
		target.session = session.ref.session;
	}
	about->column = NULL;
	return target;
}

static bool
same_target(const Target *a, const Target *b)
{
	return a->nobody == b->nobody && rinq_session_id_equal(&a->session, &b->session) &&
		rinq_bytes_equal(a->constraint, b->constraint);
}

/* ---------------- messages ---------------- */

static const char *
operation_name(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	return TRIGGER_FIRED_BY_DELETE(event) ? "DELETE" : "TRUNCATE";
}

static void
append_text_pair(StringInfo body, const char *key, RinqBytes value)
{
	rinq_cbor_write_text(body, rinq_bytes_str(key));
	rinq_cbor_write_text(body, value);
}

/*
 * Append which operation it was, on which table; the keys are in jsonb's
 * order.
 */
static void
append_origin(StringInfo body, TriggerData *data)
{
	append_text_pair(body, "table", rinq_text_to_wire(RelationGetRelationName(data->tg_relation)));
	append_text_pair(body, "schema",
					 rinq_text_to_wire(get_namespace_name(RelationGetNamespace(data->tg_relation))));
	append_text_pair(body, "operation", rinq_bytes_str(operation_name(data->tg_event)));
}

static void
send_trigger_message(RinqDatabase *db, const RinqTriggerPlan *plan, RinqTriggerContext *about,
					 const Target *target, const StringInfoData *body)
{
	TriggerData *data = about->data;
	RinqOutbound message;
	RinqBytes	type = plan->type;

	about->is_sent = true;
	rinq_check_payload_size((size_t) body->len);
	about->is_sent = false;
	if (type.len == 0)
		type = rinq_bytes_str(asc_tolower(operation_name(data->tg_event),
										  strlen(operation_name(data->tg_event))));
	memset(&message, 0, sizeof(message));
	message.kind = target->session.seq != 0 ? RINQ_SEND_NOTIFICATION : RINQ_SEND_MULTICAST;
	message.target = target->session;
	rinq_send_notification(db, &message, false, plan->namespace, type,
						   rinq_bytes(body->data, body->len), target->constraint);
}

static void
send_row(RinqDatabase *db, RinqTriggerPlan *plan, RinqTriggerContext *about)
{
	TriggerData *data = about->data;
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	bool		updated = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	bool		deleted = TRIGGER_FIRED_BY_DELETE(data->tg_event);
	HeapTuple	row = updated ? data->tg_newtuple : data->tg_trigtuple;
	Target		target = target_of(plan, about, desc, row);
	StringInfoData body;

	if (target.nobody)
		return;
	initStringInfo(&body);
	rinq_cbor_write_map(&body, updated ? 5 : 4);
	rinq_cbor_write_text(&body, rinq_bytes_str(deleted ? "old" : "new"));
	rinq_trigger_append_row(plan, about, desc, row, &body);
	if (updated)
	{
		rinq_cbor_write_text(&body, rinq_bytes_str("old"));
		rinq_trigger_append_row(plan, about, desc, data->tg_trigtuple, &body);
	}
	append_origin(&body, data);
	send_trigger_message(db, plan, about, &target, &body);
}

/* send the rows that were collected */
static void
flush_batch(Batch *batch, bool last)
{
	StringInfoData body;

	initStringInfo(&body);
	rinq_cbor_write_map(&body, 5 + (batch->num_new > 0) + (batch->num_old > 0));
	if (batch->num_new > 0)
	{
		rinq_cbor_write_text(&body, rinq_bytes_str("new"));
		rinq_cbor_write_array(&body, (uint64) batch->num_new);
		appendBinaryStringInfo(&body, batch->new_rows.data, batch->new_rows.len);
	}
	if (batch->num_old > 0)
	{
		rinq_cbor_write_text(&body, rinq_bytes_str("old"));
		rinq_cbor_write_array(&body, (uint64) batch->num_old);
		appendBinaryStringInfo(&body, batch->old_rows.data, batch->old_rows.len);
	}
	rinq_cbor_write_text(&body, rinq_bytes_str("last"));
	rinq_cbor_write_bool(&body, last);
	rinq_cbor_write_text(&body, rinq_bytes_str("part"));
	rinq_cbor_write_uint(&body, (uint64) ++batch->part);
	append_origin(&body, batch->about->data);
	send_trigger_message(batch->db, batch->plan, batch->about, &batch->target, &body);
	pfree(body.data);
	resetStringInfo(&batch->new_rows);
	resetStringInfo(&batch->old_rows);
	batch->num_new = 0;
	batch->num_old = 0;
}

/* Open a transition table, read from its beginning; NULL for none. */
static TupleTableSlot *
open_rows(Tuplestorestate *store, TupleDesc desc, int *pointer)
{
	if (store == NULL)
		return NULL;
	*pointer = tuplestore_alloc_read_pointer(store, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(store, *pointer);
	tuplestore_rescan(store);
	return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
}

static HeapTuple
next_row(Tuplestorestate *store, TupleTableSlot *slot, int pointer)
{
	MemoryContext old;
	bool		found;
	bool		should_free;

	if (slot == NULL)
		return NULL;
	tuplestore_select_read_pointer(store, pointer);

	/* what is read from disk is the slot's, which frees it for the next one */
	old = MemoryContextSwitchTo(slot->tts_mcxt);
	found = tuplestore_gettupleslot(store, true, false, slot);
	MemoryContextSwitchTo(old);
	if (!found)
		return NULL;

	/* the copy is in memory of the row */
	return ExecFetchSlotHeapTuple(slot, false, &should_free);
}

static bool
is_batch_empty(const Batch *batch)
{
	return batch->num_new == 0 && batch->num_old == 0;
}

static void
set_target(Batch *batch, const Target *target)
{
	resetStringInfo(&batch->constraint);
	if (target->constraint.len > 0)
		appendBinaryStringInfo(&batch->constraint, target->constraint.data,
							   (int) target->constraint.len);
	batch->target = *target;
	batch->target.constraint = rinq_bytes(target->constraint.data == NULL ? NULL :
										  batch->constraint.data, target->constraint.len);
}

/* add a row, or both of its versions; send those before if they do not go together */
static void
add_row(Batch *batch, HeapTuple new_row, HeapTuple old_row)
{
	RinqTriggerPlan *plan = batch->plan;
	TupleDesc	desc = RelationGetDescr(batch->about->data->tg_relation);
	StringInfoData new_cbor;
	StringInfoData old_cbor;
	Target		target = target_of(plan, batch->about, desc, new_row != NULL ? new_row : old_row);

	if (target.nobody)
		return;
	initStringInfo(&new_cbor);
	initStringInfo(&old_cbor);
	if (new_row != NULL)
		rinq_trigger_append_row(plan, batch->about, desc, new_row, &new_cbor);
	if (old_row != NULL)
		rinq_trigger_append_row(plan, batch->about, desc, old_row, &old_cbor);
	if (!is_batch_empty(batch) &&
		(!same_target(&batch->target, &target) ||
		 (size_t) batch->new_rows.len + batch->old_rows.len + new_cbor.len + old_cbor.len > plan->chunk))
		flush_batch(batch, false);
	if (is_batch_empty(batch))
		set_target(batch, &target);
	appendBinaryStringInfo(&batch->new_rows, new_cbor.data, new_cbor.len);
	appendBinaryStringInfo(&batch->old_rows, old_cbor.data, old_cbor.len);
	batch->num_new += new_row != NULL;
	batch->num_old += old_row != NULL;
}

/*
 * Send that something was done, which is all there is to say without
 * transition tables.
 */
static void
send_operation(RinqDatabase *db, RinqTriggerPlan *plan, RinqTriggerContext *about)
{
	Target		target;
	StringInfoData body;

	if (plan->constraint == NULL || plan->num_match > 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" needs rows to tell whom to notify",
						about->data->tg_trigger->tgname),
				 errhint("Create it FOR EACH ROW, or REFERENCING transition tables.")));
	memset(&target, 0, sizeof(target));
	target.constraint = plan->encoded;
	initStringInfo(&body);
	rinq_cbor_write_map(&body, 3);
	append_origin(&body, about->data);
	send_trigger_message(db, plan, about, &target, &body);
}

static void
send_statement(RinqDatabase *db, RinqTriggerPlan *plan, RinqTriggerContext *about)
{
	TriggerData *data = about->data;
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	int			new_pointer = 0;
	int			old_pointer = 0;
	TupleTableSlot *new_slot = open_rows(data->tg_newtable, desc, &new_pointer);
	TupleTableSlot *old_slot = open_rows(data->tg_oldtable, desc, &old_pointer);
	Batch		batch;

	if (new_slot == NULL && old_slot == NULL)
	{
		send_operation(db, plan, about);
		return;
	}
	memset(&batch, 0, sizeof(batch));
	batch.plan = plan;
	batch.about = about;
	batch.db = db;
	batch.row_context = AllocSetContextCreate(CurrentMemoryContext, "rinq trigger row",
											  ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&batch.constraint);
	initStringInfo(&batch.new_rows);
	initStringInfo(&batch.old_rows);
	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(batch.row_context);
		HeapTuple	new_row = next_row(data->tg_newtable, new_slot, new_pointer);
		HeapTuple	old_row = next_row(data->tg_oldtable, old_slot, old_pointer);
		bool		more = new_row != NULL || old_row != NULL;

		if (more)
			add_row(&batch, new_row, old_row);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch.row_context);
		if (!more)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	if (!is_batch_empty(&batch))
		flush_batch(&batch, true);
	if (new_slot != NULL)
		ExecDropSingleTupleTableSlot(new_slot);
	if (old_slot != NULL)
		ExecDropSingleTupleTableSlot(old_slot);
	MemoryContextDelete(batch.row_context);
}

/* ---------------- the trigger ---------------- */

/* say which trigger an error is about, and what can be done */
static void
add_context(void *arg)
{
	const RinqTriggerContext *about = arg;

	if (about->column != NULL)
		errcontext("trigger \"%s\" on table %s, column \"%s\"",
				   about->data->tg_trigger->tgname, about->table, about->column);
	else
		errcontext("trigger \"%s\" on table %s", about->data->tg_trigger->tgname, about->table);
	if (about->is_sent &&
		ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_OPERATOR_INTERVENTION)
		errhint("The trigger's option \"columns=...\" says which columns are sent.");
}

static RinqTriggerPlan *
plan_of(FunctionCallInfo fcinfo, RinqTriggerContext *about)
{
	RinqTriggerPlan *plan = fcinfo->flinfo->fn_extra;

	if (plan == NULL || plan->trigger != about->data->tg_trigger->tgoid ||
		plan->relation != RelationGetRelid(about->data->tg_relation))
	{
		plan = rinq_trigger_plan(about->data, about, fcinfo->flinfo->fn_mcxt);
		fcinfo->flinfo->fn_extra = plan;
	}
	return plan;
}

/* Return the peer's database; NULL when nothing is to be sent. */
static RinqDatabase *
database_of(const RinqTriggerPlan *plan)
{
	if (plan->only_if_peer)
		return rinq_preloaded() ? rinq_find_peer() : NULL;
	rinq_require_preloaded();
	return rinq_require_peer();
}

/*
 * Check that the owner of the table may use the bus; who attached the trigger
 * was able to then (backend/own_access.c).  Those who write the table need not.
 */
static void
check_owner_of_table(const RinqTriggerContext *about)
{
	rinq_check_bus_access(about->data->tg_relation->rd_rel->relowner);
}

static void
notify_by_trigger(FunctionCallInfo fcinfo, RinqTriggerContext *about)
{
	RinqTriggerPlan *plan = plan_of(fcinfo, about);
	RinqDatabase *db = database_of(plan);
	int			settings;

	if (db == NULL)
		return;
	check_owner_of_table(about);
	settings = rinq_trigger_fix_settings(plan);
	if (TRIGGER_FIRED_FOR_ROW(about->data->tg_event))
		send_row(db, plan, about);
	else
		send_statement(db, plan, about);
	AtEOXact_GUC(true, settings);
}

/*
 * rinq_notify_trigger(namespace, type, constraint or column, options ...)
 * returns trigger
 *
 * Notifies of changes of a table when the transaction commits: all sessions
 * that match a constraint, or the session that a column of the row names.
 * FOR EACH ROW, a message has one row; FOR EACH STATEMENT with transition
 * tables, as many as fit.
 */
Datum
rinq_notify_trigger(PG_FUNCTION_ARGS)
{
	RinqTriggerContext about;
	ErrorContextCallback callback;

	memset(&about, 0, sizeof(about));
	about.data = (TriggerData *) fcinfo->context;
	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(about.data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("rinq_notify_trigger must be called as a trigger that fires AFTER")));
	rinq_refuse_parallel(fcinfo);
	about.table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(about.data->tg_relation)),
											 RelationGetRelationName(about.data->tg_relation));
	callback.callback = add_context;
	callback.arg = &about;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	notify_by_trigger(fcinfo, &about);
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}
