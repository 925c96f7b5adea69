/*-------------------------------------------------------------------------
 *
 * call_many.c
 *	  rinq_call_many: the same command for many payloads, side by side.
 *
 * As many calls are under way at a time as the connection may have asynchronous
 * ones, and as there is room for; a slow one keeps none of the others waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "guc.h"
#include "protocol/payload.h"
#include "sql/call.h"
#include "sql/call_outcome.h"
#include "sql/resultset.h"
#include "sql/session_ref.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_call_many);

enum
{
	ARG_NAMESPACE,
	ARG_COMMAND,
	ARG_PAYLOADS,
	ARG_TIMEOUT
};

/* ms until it is tried again to make a call that there was no room for */
#define NO_ROOM_DELAY 10

/* one of the calls */
typedef struct Call
{
	RinqBytes	payload;
	uint32		slot;			/* while it is under way; else RINQ_NO_SLOT */
	bool		has_id;			/* the id was allocated from the session in
								 * question */
	RinqMessageId id;
	Datum		values[RINQ_RESULT_COLUMNS];
	bool		nulls[RINQ_RESULT_COLUMNS];
} Call;

typedef struct Calls
{
	FunctionCallInfo fcinfo;
	RinqDatabase *db;
	RinqFields	fields;
	const char *namespace;
	const char *command;
	int64		give_up;		/* when waiting for room ends */
	Call	   *calls;
	int			count;
	int			first;			/* all before it have ended */
	int			made;			/* all from here on were not made yet */
	int			under_way;
} Calls;

static void
read_payloads(Calls *all, ArrayType *array)
{
	Datum	   *payloads;
	bool	   *nulls;
	int			i;

	deconstruct_array(array, JSONBOID, -1, false, TYPALIGN_INT, &payloads, &nulls, &all->count);
	all->calls = palloc_extended(Max(all->count, 1) * sizeof(Call), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (i = 0; i < all->count; i++)
	{
		all->calls[i].payload = rinq_payload_from_jsonb(nulls[i] ? NULL : DatumGetJsonbP(payloads[i]));
		all->calls[i].slot = RINQ_NO_SLOT;
	}
}

static int64
next_deadline(const Calls *all)
{
	FunctionCallInfo fcinfo = all->fcinfo;

	return rinq_call_deadline(PG_ARGISNULL(ARG_TIMEOUT) ? NULL : PG_GETARG_INTERVAL_P(ARG_TIMEOUT));
}

/* make the next call; false when there is no room for it now */
static bool
make_call(Calls *all)
{
	Call	   *call = &all->calls[all->made];
	int64		deadline = next_deadline(all);
	bool		uncorrelated;

	Assert(all->made < all->count && call->slot == RINQ_NO_SLOT);
	if (!call->has_id)
		call->has_id = rinq_allocate_id_argument(all->fcinfo, RINQ_CALL_SESSION_ARGUMENT, &call->id,
												 &uncorrelated);
	rinq_put_bytes(&all->fields, RINQ_CALL_PAYLOAD, call->payload);
	call->slot = rinq_call_try_submit(all->db, &all->fields, deadline,
									  call->has_id ? &call->id : NULL);
	if (call->slot == RINQ_NO_SLOT)
		return false;
	all->made++;
	all->under_way++;
	all->give_up = deadline;
	return true;
}

/* make as many as may be under way */
static void
make_calls(Calls *all)
{
	while (all->made < all->count && all->under_way < rinq_max_async_calls)
	{
		if (make_call(all))
			continue;
		if (all->under_way > 0 || rinq_clock_ms() < all->give_up)
			return;
		rinq_error_row(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "too many calls are in flight",
					   all->calls[all->made].values, all->calls[all->made].nulls);
		all->made++;
	}
}

static void
end_call(Calls *all, Call *call)
{
	RinqResult	result;

	rinq_call_wait(all->db, call->slot, &result);
	rinq_result_row(&result, all->namespace, all->command, call->values, call->nulls);
	rinq_call_release(all->db, call->slot);
	call->slot = RINQ_NO_SLOT;
	Assert(all->under_way > 0);
	all->under_way--;
}

/* take the results that are there, or else sleep until there may be one */
static void
take_results(Calls *all)
{
	int64		next = PG_INT64_MAX;
	bool		taken = false;
	int			i;

	for (i = all->first; i < all->made; i++)
	{
		Call	   *call = &all->calls[i];

		if (call->slot == RINQ_NO_SLOT)
			continue;
		if (rinq_call_ended(all->db, call->slot))
		{
			end_call(all, call);
			taken = true;
		}
		else
			next = Min(next, rinq_slots_of(all->db)->slot[call->slot].deadline);
	}
	while (all->first < all->made && all->calls[all->first].slot == RINQ_NO_SLOT)
		all->first++;
	if (!taken && all->first < all->count)
		rinq_call_sleep(all->under_way > 0 ? next : rinq_clock_ms() + NO_ROOM_DELAY);
}

static void
release_all_calls(const Calls *all)
{
	int			i;

	for (i = all->first; i < all->made; i++)
	{
		if (all->calls[i].slot != RINQ_NO_SLOT)
			rinq_call_release(all->db, all->calls[i].slot);
	}
}

static void
return_rows(const Calls *all, RinqResultSet *set)
{
	int			i;

	Assert(all->first == all->count && all->made == all->count && all->under_way == 0);
	for (i = 0; i < all->count; i++)
	{
		Datum		values[1 + RINQ_RESULT_COLUMNS];
		bool		nulls[1 + RINQ_RESULT_COLUMNS] = {false};

		values[0] = Int64GetDatum(i + 1);
		memcpy(values + 1, all->calls[i].values, sizeof(all->calls[i].values));
		memcpy(nulls + 1, all->calls[i].nulls, sizeof(all->calls[i].nulls));
		rinq_resultset_put(set, values, nulls);
	}
}

/*
 * rinq_call_many(namespace text, command text, payloads jsonb[], timeout
 * interval, session text) returns setof record
 *
 * Calls a command once for each payload, all of them before it waits, and
 * returns a row for each in the same order: what came, or what was wrong.
 */
Datum
rinq_call_many(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	Calls		all;

	rinq_refuse_parallel(fcinfo);
	rinq_require_preloaded();
	rinq_resultset_begin(fcinfo, &set, 1 + RINQ_RESULT_COLUMNS);
	memset(&all, 0, sizeof(all));
	all.fcinfo = fcinfo;
	all.namespace = rinq_namespace_argument(fcinfo, ARG_NAMESPACE);
	all.command = rinq_text_argument(fcinfo, ARG_COMMAND, "command");
	if (PG_ARGISNULL(ARG_PAYLOADS))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payloads must not be null")));
	rinq_call_fields(all.namespace, all.command, &all.fields);
	read_payloads(&all, PG_GETARG_ARRAYTYPE_P(ARG_PAYLOADS));
	all.give_up = next_deadline(&all);
	all.db = rinq_require_connection(all.give_up);
	PG_TRY();
	{
		while (all.first < all.count)
		{
			make_calls(&all);
			take_results(&all);
		}
	}
	PG_CATCH();
	{
		release_all_calls(&all);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return_rows(&all, &set);
	return (Datum) 0;
}
