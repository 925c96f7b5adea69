/*-------------------------------------------------------------------------
 *
 * handler.c
 *	  Finding and calling the SQL function that handles a request.
 *
 * Handlers are stored by name, so that one which is dropped and created anew
 * goes on working.  Looking one up costs more than a trivial handler, so
 * the result is kept until a function, type or schema changes.
 *
 * Transactions, deadlines and errors are the business of command_worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/handler_rules.h"
#include "backend/handler_signature.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "funcapi.h"
#include "pgstat.h"
#include "protocol/notification.h"
#include "protocol/payload.h"
#include "protocol/response.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "worker/handler.h"

#define HANDLER_NAME_LEN 600
#define MAX_LOOK_UPS 10			/* while its catalog entries change; then it
								 * is looked up for each call */

/* columns of rinq_request; the install script defines it to match */
enum
{
	REQUEST_ID,
	REQUEST_SOURCE,
	REQUEST_NAMESPACE,
	REQUEST_COMMAND,
	REQUEST_PAYLOAD,
	REQUEST_TRACE_ID,
	REQUEST_DEADLINE,
	REQUEST_IS_RESPONSE_REQUIRED,
	REQUEST_ATTEMPT,
	REQUEST_FIRST_RECEIVED,
	REQUEST_COLUMNS
};

typedef struct Handler
{
	char		name[HANDLER_NAME_LEN]; /* reference, behind a letter for the
										 * kind of work */
	bool		valid;
	Oid			func;
	Oid			request_type;
	bool		raw;			/* takes and returns CBOR */
	FmgrInfo	flinfo;
	MemoryContext context;		/* of flinfo and what hangs on it */
} Handler;

bool		rinq_handler_entered = false;

static HTAB *handlers = NULL;

/* counts the changes that may make what is known about handlers wrong */
static uint64 invalidations = 0;

static void
forget_handlers(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS seq;
	Handler    *handler;

	invalidations++;
	hash_seq_init(&seq, handlers);
	while ((handler = hash_seq_search(&seq)) != NULL)
		handler->valid = false;
}

void
rinq_handler_init(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = HANDLER_NAME_LEN;
	ctl.entrysize = sizeof(Handler);
	handlers = hash_create("rinq handlers", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	CacheRegisterSyscacheCallback(PROCOID, forget_handlers, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_handlers, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_handlers, (Datum) 0);
}

/*
 * Raise the error that a handler does not exist, unless it does.
 */
static void
check_existence(Oid func, const char *name)
{
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(func)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("the handler does not exist"),
				 errdetail_log("Function %s was dropped.", name)));
}

/* look a handler up */
static void
look_up_handler(Handler *handler, RinqWork work)
{
	const char *name = rinq_handler_name(handler->name + 1);
	const char *problem;

	if (handler->context == NULL)
		handler->context = AllocSetContextCreate(TopMemoryContext, "rinq handler",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(handler->context);

	handler->func = rinq_handler_find(handler->name + 1);
	check_existence(handler->func, name);
	problem = rinq_handler_problem(handler->func, work);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Function %s: %s.", name, problem)));

	/* what comes next finds it where this has */
	check_existence(handler->func, name);
	{
		Oid		   *argtypes;
		int			nargs;

		(void) get_func_signature(handler->func, &argtypes, &nargs);
		handler->request_type = argtypes[0];
		handler->raw = get_func_rettype(handler->func) == BYTEAOID;
		pfree(argtypes);
	}
	fmgr_info_cxt(handler->func, &handler->flinfo, handler->context);
}

/*
 * Find out all about a handler.  Looking into the catalog is when changes by
 * others are noticed, so that what was read first may be out of date by the
 * end: then it is read again.
 */
static void
resolve_handler(Handler *handler, RinqWork work)
{
	int			tries;

	for (tries = 0; !handler->valid && tries < MAX_LOOK_UPS; tries++)
	{
		uint64		seen = invalidations;

		CHECK_FOR_INTERRUPTS();
		look_up_handler(handler, work);
		handler->valid = seen == invalidations;
	}
}

static Handler *
find_handler(RinqBytes name, RinqWork work, Oid owner)
{
	char		key[HANDLER_NAME_LEN];
	Handler    *handler;
	const char *obstacle;
	bool		found;

	if (name.len >= HANDLER_NAME_LEN - 1)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Its name has more than %d bytes.", HANDLER_NAME_LEN - 2)));
	memset(key, 0, sizeof(key));
	key[0] = (char) ('0' + work);
	memcpy(key + 1, name.data, name.len);
	handler = hash_search(handlers, key, HASH_ENTER, &found);
	if (!found)
	{
		handler->valid = false;
		handler->context = NULL;
	}
	if (!handler->valid)
		resolve_handler(handler, work);

	obstacle = rinq_handler_obstacle(handler->func, rinq_handler_name(handler->name + 1),
									 GetUserId(), owner);
	if (obstacle != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the handler cannot be used"),
				 errdetail_log("%s", obstacle)));
	return handler;
}

/*
 * Return a row type of the extension.  The columns are filled in by position,
 * so their types have to be these; one of the extension's own has no fixed
 * OID.
 */
TupleDesc
rinq_row_type(Oid type, const Oid *column_types, int count)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	bool		fits = desc->natts == count;
	int			i;

	for (i = 0; fits && i < count; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		fits = !column->attisdropped &&
			(getBaseType(column->atttypid) == column_types[i] || !OidIsValid(column_types[i]));
	}
	if (!fits)
	{
		ReleaseTupleDesc(desc);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type %s does not fit the loaded version of rinq", format_type_be(type)),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));
	}
	return desc;
}

static Datum
build_request(const Handler *handler, const RinqFields *fields, int64 deadline,
			  bool wants_response)
{
	static const int source_of[] = {
		RINQ_REQUEST_ID, RINQ_REQUEST_SOURCE, RINQ_REQUEST_NAMESPACE,
		RINQ_REQUEST_COMMAND, -1, RINQ_REQUEST_TRACE
	};
	const Oid	column_types[REQUEST_COLUMNS] = {
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, handler->raw ? BYTEAOID : JSONBOID, TEXTOID,
		TIMESTAMPTZOID, BOOLOID, INT4OID, TIMESTAMPTZOID
	};
	TupleDesc	desc;
	Datum		values[REQUEST_COLUMNS];
	bool		nulls[REQUEST_COLUMNS];
	HeapTuple	tuple;
	void	   *payload = handler->raw ?
		(void *) rinq_payload_to_raw(rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD)) :
		(void *) rinq_payload_to_jsonb(rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD));
	int			i;

	desc = rinq_row_type(handler->request_type, column_types, REQUEST_COLUMNS);
	memset(nulls, 0, sizeof(nulls));
	for (i = 0; i < (int) lengthof(source_of); i++)
	{
		if (source_of[i] >= 0)
			values[i] = rinq_text_datum(rinq_get_bytes(fields, source_of[i]));
	}
	nulls[REQUEST_PAYLOAD] = payload == NULL;
	values[REQUEST_PAYLOAD] = PointerGetDatum(payload);
	nulls[REQUEST_DEADLINE] = deadline == 0;
	values[REQUEST_DEADLINE] =
		deadline == 0 ? (Datum) 0 : TimestampTzGetDatum(rinq_timestamp_of_ms(rinq_wall_of_clock(deadline)));
	values[REQUEST_IS_RESPONSE_REQUIRED] = BoolGetDatum(wants_response);
	values[REQUEST_ATTEMPT] = Int32GetDatum((int32) rinq_get_uint32(fields, RINQ_REQUEST_ATTEMPT));
	values[REQUEST_FIRST_RECEIVED] =
		TimestampTzGetDatum(rinq_get_int64(fields, RINQ_REQUEST_FIRST_RECEIVED));

	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

static Datum
build_response(const Handler *handler, const RinqFields *fields)
{
	TupleDesc	desc;
	Datum		values[RINQ_RESPONSE_COLUMNS];
	bool		nulls[RINQ_RESPONSE_COLUMNS];
	HeapTuple	tuple;

	rinq_response_row(fields, values, nulls);
	desc = rinq_row_type(handler->request_type, rinq_response_types, RINQ_RESPONSE_COLUMNS);
	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

static Datum
build_notification(const Handler *handler, const RinqFields *fields)
{
	TupleDesc	desc;
	Datum		values[RINQ_NOTIFICATION_COLUMNS];
	bool		nulls[RINQ_NOTIFICATION_COLUMNS];
	HeapTuple	tuple;

	rinq_notification_row(fields, values, nulls);
	desc = rinq_row_type(handler->request_type, rinq_notification_types,
						 RINQ_NOTIFICATION_COLUMNS);
	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

static Datum
build_argument(RinqWork work, const Handler *handler, const RinqFields *fields, int64 deadline,
			   bool wants_response)
{
	switch (work)
	{
		case RINQ_WORK_REQUEST:
			return build_request(handler, fields, deadline, wants_response);
		case RINQ_WORK_RESPONSE:
			return build_response(handler, fields);
		case RINQ_WORK_NOTIFICATION:
			return build_notification(handler, fields);
	}
	elog(ERROR, "unknown kind of work");
}

/*
 * Call the handler of a request, response or notification, in the current transaction and as the
 * current role; "owner" is whom the function belonged to when it was
 * registered.  Returns its result as the body of the response.  Everything that
 * is wrong with handler or request is raised as an error.
 */
RinqBytes
rinq_handler_call(RinqWork work, const RinqFields *fields, Oid owner, int64 deadline,
				  bool wants_response)
{
	Handler    *handler;
	PgStat_FunctionCallUsage usage;
	Datum		result;

	LOCAL_FCINFO(fcinfo, 1);

	handler = find_handler(rinq_get_bytes(fields, rinq_common_fields_of(fields)->handler), work, owner);
	InitFunctionCallInfoData(*fcinfo, &handler->flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = build_argument(work, handler, fields, deadline, wants_response);
	fcinfo->args[0].isnull = false;

	rinq_handler_entered = true;
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	if (work != RINQ_WORK_REQUEST)
		return rinq_bytes(NULL, 0);
	if (handler->raw)
		return rinq_payload_from_raw(fcinfo->isnull ? NULL : DatumGetByteaPP(result));
	return rinq_payload_from_jsonb(fcinfo->isnull ? NULL : DatumGetJsonbP(result));
}
