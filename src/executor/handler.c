/*-------------------------------------------------------------------------
 *
 * handler.c
 *	  Finding and calling the SQL function that handles a request.
 *
 * Handlers are stored by name, so that one which is dropped and created anew
 * goes on working.  Looking a name up costs more than a trivial handler, so
 * the result is kept until a function, type or schema changes.
 *
 * Transactions, deadlines and errors are the business of executor.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/handler.h"
#include "fmgr.h"
#include "funcapi.h"
#include "payload.h"
#include "pgstat.h"
#include "request.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#define HANDLER_NAME_LEN 600

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
	REQUEST_COLUMNS
};

typedef struct Handler
{
	char		name[HANDLER_NAME_LEN]; /* hash key */
	bool		valid;
	Oid			func;
	Oid			namespace;
	Oid			request_type;
	FmgrInfo	flinfo;
	MemoryContext context;		/* of flinfo and what hangs on it */
} Handler;

bool		rinq_handler_entered = false;

static HTAB *handlers = NULL;

static void
forget_handlers(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS seq;
	Handler    *handler;

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
 * The rules are those of the SQL function rinq_listen, and hold again when
 * the handler is called, since functions change.
 */
const char *
rinq_handler_problem(Oid func)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	Form_pg_proc proc;
	const char *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return "it does not exist";
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		problem = "it is not a plain function";
	else if (proc->proretset)
		problem = "it returns a set";
	else if (proc->prorettype != JSONBOID)
		problem = "it does not return jsonb";
	else if (proc->pronargs != 1 ||
			 get_typtype(proc->proargtypes.values[0]) != TYPTYPE_COMPOSITE)
		problem = "its argument is not one rinq_request";
	else
	{
		char	   *argname = NULL;
		HeapTuple	type = SearchSysCache1(TYPEOID,
										   ObjectIdGetDatum(proc->proargtypes.values[0]));

		if (HeapTupleIsValid(type))
		{
			argname = pstrdup(NameStr(((Form_pg_type) GETSTRUCT(type))->typname));
			ReleaseSysCache(type);
		}
		if (argname == NULL || strcmp(argname, "rinq_request") != 0)
			problem = "its argument is not one rinq_request";
	}
	ReleaseSysCache(tuple);
	return problem;
}

/* looks a handler up by its name, as a regprocedure is written */
static void
resolve(Handler *handler)
{
	Datum		found;
	const char *problem;
	LOCAL_FCINFO(fcinfo, 1);

	if (handler->context == NULL)
		handler->context = AllocSetContextCreate(TopMemoryContext, "rinq handler",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(handler->context);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(cstring_to_text(handler->name));
	fcinfo->args[0].isnull = false;
	found = to_regprocedure(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("the handler does not exist"),
				 errdetail_log("Function %s was dropped, or renamed.", handler->name)));
	handler->func = DatumGetObjectId(found);

	problem = rinq_handler_problem(handler->func);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Function %s: %s.", handler->name, problem)));

	handler->namespace = get_func_namespace(handler->func);
	{
		Oid		   *argtypes;
		int			nargs;

		(void) get_func_signature(handler->func, &argtypes, &nargs);
		handler->request_type = argtypes[0];
		pfree(argtypes);
	}
	fmgr_info_cxt(handler->func, &handler->flinfo, handler->context);
	handler->valid = true;
}

static Handler *
find_handler(RinqBytes name)
{
	char		key[HANDLER_NAME_LEN];
	Handler    *handler;
	bool		found;

	if (name.len >= HANDLER_NAME_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Its name has more than %d bytes.", HANDLER_NAME_LEN - 1)));
	memset(key, 0, sizeof(key));
	memcpy(key, name.data, name.len);
	handler = hash_search(handlers, key, HASH_ENTER, &found);
	if (!found)
	{
		handler->valid = false;
		handler->context = NULL;
	}
	if (!handler->valid)
		resolve(handler);

	if (!rinq_can_use_schema(handler->namespace, GetUserId()) ||
		!rinq_can_execute(handler->func, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Role \"%s\" may not execute function %s.",
							   GetUserNameFromId(GetUserId(), false), handler->name)));
	return handler;
}

static Datum
build_request(Oid type, const RinqBytes *fields, int64 deadline, bool wants_response)
{
	static const int source_of[] = {
		RINQ_REQUEST_ID, RINQ_REQUEST_SOURCE, RINQ_REQUEST_NAMESPACE,
		RINQ_REQUEST_COMMAND, -1, RINQ_REQUEST_TRACE
	};
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	Datum		values[REQUEST_COLUMNS];
	bool		nulls[REQUEST_COLUMNS];
	HeapTuple	tuple;
	Jsonb	   *payload = rinq_payload_to_jsonb(fields[RINQ_REQUEST_PAYLOAD]);
	int			i;

	if (desc->natts != REQUEST_COLUMNS)
	{
		ReleaseTupleDesc(desc);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type rinq_request does not fit the loaded version of rinq"),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));
	}
	memset(nulls, 0, sizeof(nulls));
	for (i = 0; i < (int) lengthof(source_of); i++)
	{
		if (source_of[i] >= 0)
			values[i] = CStringGetTextDatum(rinq_text_from_wire(fields[source_of[i]]));
	}
	nulls[REQUEST_PAYLOAD] = payload == NULL;
	values[REQUEST_PAYLOAD] = payload == NULL ? (Datum) 0 : JsonbPGetDatum(payload);
	nulls[REQUEST_DEADLINE] = deadline == 0;
	values[REQUEST_DEADLINE] =
		deadline == 0 ? (Datum) 0 : TimestampTzGetDatum(rinq_timestamp_of_ms(deadline));
	values[REQUEST_IS_RESPONSE_REQUIRED] = BoolGetDatum(wants_response);

	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

/*
 * Calls the handler of a request, in the current transaction and as the
 * current role.  Returns its result, NULL for nil.  Everything that is wrong
 * with handler or request is raised as an error.
 */
Jsonb *
rinq_handler_call(const RinqBytes *fields, int64 deadline, bool wants_response)
{
	Handler    *handler;
	PgStat_FunctionCallUsage usage;
	Datum		result;
	LOCAL_FCINFO(fcinfo, 1);

	rinq_handler_entered = false;
	handler = find_handler(fields[RINQ_REQUEST_HANDLER]);
	InitFunctionCallInfoData(*fcinfo, &handler->flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = build_request(handler->request_type, fields, deadline,
										  wants_response);
	fcinfo->args[0].isnull = false;

	rinq_handler_entered = true;
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	if (fcinfo->isnull)
		return NULL;
	return DatumGetJsonbP(result);
}
