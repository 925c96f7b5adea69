/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  rinq_execute: having a command executed when the transaction commits; and
 *	  what there is to know and do about messages that wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/calls.h"
#include "backend/commit_queue.h"
#include "backend/outbox_waiting.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/execution.h"
#include "sql/source.h"
#include "sql/resultset.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(rinq_execute);
PG_FUNCTION_INFO_V1(rinq_execute_raw);
PG_FUNCTION_INFO_V1(rinq_execute_many);
PG_FUNCTION_INFO_V1(rinq_execute_cancel);
PG_FUNCTION_INFO_V1(rinq_outbox_rescan);
PG_FUNCTION_INFO_V1(rinq_outbox_look);
PG_FUNCTION_INFO_V1(rinq_outbox_peer_status);

/* arguments beyond those of RINQ_EXECUTE_NAMESPACE and so on */
enum
{
	ARG_KEY = RINQ_EXECUTE_DELIVER_AT + 1,
	ARG_ORDERING,
	ARG_ATTRIBUTES,
	ARG_MANY_ORDERING = ARG_KEY
};

static Datum
execute_command(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	RinqExecution execution;

	rinq_refuse_parallel(fcinfo);
	rinq_execution_begin(fcinfo, ARG_KEY, ARG_ORDERING, &execution);
	execution.attributes = rinq_source_attributes_argument(fcinfo, ARG_ATTRIBUTES);
	if (execution.attributes != NULL && (!execution.durable || !PG_ARGISNULL(RINQ_EXECUTE_SESSION)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message with attributes is durable, and from a session of its own"),
				 errhint("Leave out \"durable\" and \"session\".")));
	PG_RETURN_DATUM(rinq_execution_send(&execution, rinq_payload_argument(fcinfo, RINQ_EXECUTE_PAYLOAD, form)));
}

/*
 * rinq_execute(namespace text, command text, payload jsonb, timeout interval,
 * durable boolean, session text, deliver_after interval, deliver_at timestamptz,
 * key text, ordering text, attributes jsonb) returns rinq_message_id
 *
 * Has a command executed by whichever peer listens to the namespace, when and
 * if the transaction commits; no process waits for it.
 */
Datum
rinq_execute(PG_FUNCTION_ARGS)
{
	return execute_command(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_execute_raw(namespace text, command text, payload bytea, …) returns
 * rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_execute_raw(PG_FUNCTION_ARGS)
{
	return execute_command(fcinfo, RINQ_PAYLOAD_RAW);
}

/*
 * rinq_execute_many(namespace text, command text, payloads jsonb[], timeout
 * interval, durable boolean, session text, deliver_after interval, deliver_at
 * timestamptz, ordering text) returns setof rinq_message_id
 *
 * Does the same once for each payload, and returns the ids in the same order.
 */
Datum
rinq_execute_many(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqExecution execution;
	Datum	   *payloads;
	bool	   *nulls;
	int			count;
	int			i;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin_scalar(fcinfo, &set);
	rinq_execution_begin(fcinfo, -1, ARG_MANY_ORDERING, &execution);
	if (PG_ARGISNULL(RINQ_EXECUTE_PAYLOAD))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(RINQ_EXECUTE_PAYLOAD), JSONBOID, -1, false, TYPALIGN_INT,
					  &payloads, &nulls, &count);
	for (i = 0; i < count; i++)
	{
		bool		isnull = false;
		Datum		id;

		CHECK_FOR_INTERRUPTS();
		if (i > 0)
			rinq_execution_next(&execution);
		id = rinq_execution_send(&execution, rinq_payload_from_jsonb(nulls[i] ? NULL : DatumGetJsonbP(payloads[i])));
		rinq_resultset_put(&set, &id, &isnull);
	}
	return (Datum) 0;
}

/*
 * rinq_execute_cancel(id rinq_message_id) returns boolean
 *
 * Takes a message back that waits for its time, or for the one before it.
 */
Datum
rinq_execute_cancel(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;
	char	   *id;

	rinq_refuse_parallel(fcinfo);
	id = rinq_text_argument(fcinfo, 0, "id");
	rinq_require_preloaded();
	PreventCommandDuringRecovery("rinq_execute_cancel()");
	PreventCommandIfReadOnly("rinq_execute_cancel()");
	db = rinq_require_database();
	PG_RETURN_BOOL(rinq_outbox_cancel(db, rinq_internal_schema(), id));
}

/*
 * outbox_rescan() returns trigger
 *
 * On the tables of the outbox, for rows that are written by hand: has them
 * found.
 */
Datum
rinq_outbox_rescan(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox_rescan must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	db = rinq_preloaded() ? rinq_my_database() : NULL;
	if (db != NULL)
		rinq_send_scan_at_commit(db);
	return PointerGetDatum(NULL);
}

/*
 * outbox_look() returns trigger
 *
 * On the table of messages that wait, for rows that are written by hand: has
 * them looked at.
 */
Datum
rinq_outbox_look(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox_look must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	db = rinq_preloaded() && !rinq_own_tables_in_use() ? rinq_my_database() : NULL;
	if (db != NULL)
		rinq_wait_at_commit(db, DT_NOBEGIN, 0);
	return PointerGetDatum(NULL);
}

/*
 * rinq_outbox_peer_status() returns (direct boolean, in_flight bigint,
 * retrying bigint, attempts integer, last_error text, waits_for text)
 *
 * What the peer knows of durable messages; the view rinq_outbox_status adds
 * what the tables say.
 */
Datum
rinq_outbox_peer_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false, false, false, false, false, false};
	RinqOutboxStatus status;
	RinqDatabase *db;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	rinq_require_preloaded();
	memset(&status, 0, sizeof(status));
	db = rinq_my_database();
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		status = db->status.outbox;
		SpinLockRelease(&db->mutex);
	}
	values[0] = BoolGetDatum(status.direct);
	values[1] = Int64GetDatum(status.in_flight);
	values[2] = Int64GetDatum(status.retrying);
	values[3] = Int32GetDatum(status.attempts);
	nulls[4] = status.last_error[0] == '\0';
	values[4] = CStringGetTextDatum(status.last_error);
	nulls[5] = status.waits_for[0] == '\0';
	values[5] = CStringGetTextDatum(status.waits_for);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
