/*-------------------------------------------------------------------------
 *
 * durable_result.c
 *	  rinq_result and rinq_wait: reading what has become of a durable call
 *	  that has no handler, from whichever connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "backend/durable_calls.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/payload.h"
#include "protocol/response.h"
#include "sql/arguments.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(rinq_result);
PG_FUNCTION_INFO_V1(rinq_result_raw);
PG_FUNCTION_INFO_V1(rinq_wait);

#define LOOK_INTERVAL 1000		/* ms between looks while nothing is heard */

/* what there is of a call */
typedef struct Found
{
	bool		exists;
	bool		handled;		/* a function handles its outcome */
	bool		ours;			/* the current transaction has made it */
	bool		ended;			/* there is an outcome, in "fields" */
	RinqFields	fields;
} Found;

/*
 * Look a call up, as the newest snapshot sees it, whatever the transaction's
 * own is.
 */
static void
look_at_call(Datum id, Found *found)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2];
	RinqOwnTable table;
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	memset(found, 0, sizeof(*found));
	values[0] = id;
	values[1] = ObjectIdGetDatum(GetUserId());
	rinq_own_table_open(&table, rinq_internal_schema(), RINQ_DURABLE_CALL_TABLE);
	PushActiveSnapshot(GetLatestSnapshot());
	if (rinq_own_table_read_kept(&plan,
								 "SELECT " RINQ_DURABLE_OUTCOME_COLUMNS ", c.handler IS NOT NULL, c.xmin,"
								 " c.outcome IS NOT NULL FROM rinq_internal.durable_call c"
								 " WHERE c.id OPERATOR(pg_catalog.=) $1 AND pg_catalog.pg_has_role($2, c.role, 'USAGE')",
								 2, types, values) > 0)
	{
		row = SPI_tuptable->vals[0];
		desc = SPI_tuptable->tupdesc;
		found->exists = true;
		found->handled = DatumGetBool(SPI_getbinval(row, desc, RINQ_DURABLE_OUTCOME_COUNT + 1, &isnull));
		found->ours = TransactionIdIsCurrentTransactionId(
														  DatumGetTransactionId(SPI_getbinval(row, desc, RINQ_DURABLE_OUTCOME_COUNT + 2, &isnull)));
		found->ended = DatumGetBool(SPI_getbinval(row, desc, RINQ_DURABLE_OUTCOME_COUNT + 3, &isnull));
		if (found->ended)
			rinq_durable_call_outcome(row, desc, context, &found->fields);
	}
	PopActiveSnapshot();
	rinq_own_table_close(&table);
}

/* Look a call up that has to be there, and to have no handler. */
static void
require_call(Datum id, Found *found)
{
	look_at_call(id, found);
	if (!found->exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no durable call \"%s\"", TextDatumGetCString(id)),
				 errdetail("It was made by another role, or its outcome is not kept any more.")));
	if (found->handled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the outcome of durable call \"%s\" is handled by a function", TextDatumGetCString(id)),
				 errhint("Look at the view rinq_durable_calls.")));
}

static Datum
response_datum(FunctionCallInfo fcinfo, const Found *found)
{
	TupleDesc	desc;
	Datum		values[RINQ_RESPONSE_COLUMNS];
	bool		nulls[RINQ_RESPONSE_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != RINQ_RESPONSE_COLUMNS)
		elog(ERROR, "return type must be rinq_response");
	desc = BlessTupleDesc(desc);
	rinq_response_row(&found->fields, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * rinq_result(id rinq_message_id) returns rinq_response
 *
 * The outcome of a durable call, NULL while there is none.
 */
Datum
rinq_result(PG_FUNCTION_ARGS)
{
	Found		found;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	require_call(PG_GETARG_DATUM(0), &found);
	if (!found.ended)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(response_datum(fcinfo, &found));
}

/* Put a text of the outcome into a row. */
static void
put_outcome_text(Datum *value, bool *isnull, RinqBytes text)
{
	*isnull = text.data == NULL;
	*value = text.data == NULL ? (Datum) 0 : CStringGetTextDatum(rinq_message_from_wire(text));
}

/*
 * rinq_result_raw(id rinq_message_id) returns (outcome text, payload bytea,
 * failure_type text, message text)
 *
 * The same with the payload in CBOR.
 */
Datum
rinq_result_raw(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4];
	bytea	   *payload;
	Found		found;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	require_call(PG_GETARG_DATUM(0), &found);
	if (!found.ended)
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != 4)
		elog(ERROR, "return type must be a row type of four columns");
	desc = BlessTupleDesc(desc);
	payload = rinq_payload_to_raw(rinq_get_bytes(&found.fields, RINQ_RESPONSE_PAYLOAD));
	put_outcome_text(&values[0], &nulls[0], rinq_get_bytes(&found.fields, RINQ_RESPONSE_OUTCOME));
	nulls[1] = payload == NULL;
	values[1] = PointerGetDatum(payload);
	put_outcome_text(&values[2], &nulls[2], rinq_get_bytes(&found.fields, RINQ_RESPONSE_FAILURE_TYPE));
	put_outcome_text(&values[3], &nulls[3], rinq_get_bytes(&found.fields, RINQ_RESPONSE_MESSAGE));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/*
 * rinq_wait(id rinq_message_id, timeout interval) returns rinq_response
 *
 * Waits for the outcome of a durable call.  Who writes outcomes tells all who
 * wait for news of the database.
 */
Datum
rinq_wait(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	int64		deadline;
	int64		left;
	RinqDatabase *db;
	Found		found;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	rinq_require_preloaded();
	deadline = rinq_clock_ms() +
		(PG_ARGISNULL(1) ? rinq_default_timeout : rinq_interval_ms(PG_GETARG_INTERVAL_P(1)));
	require_call(PG_GETARG_DATUM(0), &found);
	if (found.ours && !found.ended)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("durable call \"%s\" is not sent before the transaction commits",
						TextDatumGetCString(PG_GETARG_DATUM(0))),
				 errhint("Commit before waiting for its outcome.")));
	db = rinq_my_database();
	if (db != NULL)
		ConditionVariablePrepareToSleep(&db->changed);
	for (; !found.ended; require_call(PG_GETARG_DATUM(0), &found))
	{
		left = deadline - rinq_clock_ms();
		if (left <= 0 || db == NULL)
			break;
		(void) ConditionVariableTimedSleep(&db->changed, (long) Min(left, LOOK_INTERVAL),
										   RINQ_WAIT_EVENT(wait_event, "RinqWait"));
	}
	ConditionVariableCancelSleep();
	if (!found.ended)
		ereport(ERROR,
				(errcode(ERRCODE_RINQ_TIMEOUT),
				 errmsg("durable call \"%s\" has no outcome yet", TextDatumGetCString(PG_GETARG_DATUM(0)))));
	PG_RETURN_DATUM(response_datum(fcinfo, &found));
}
