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
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
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
	Oid			owner;
	Oid			request_type;
	bool		raw;			/* takes and returns CBOR */
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

/* is it the extension's own type, and not only one of that name? */
static bool
is_request_type(Oid type, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		named;

	if (!HeapTupleIsValid(tuple))
		return false;
	named = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), name) == 0;
	ReleaseSysCache(tuple);
	return named &&
		getExtensionOfObject(TypeRelationId, type) ==
		get_extension_oid("rinq", true);
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
	else if (proc->prorettype != JSONBOID && proc->prorettype != BYTEAOID)
		problem = "it returns neither jsonb nor bytea";
	else if (proc->pronargs != 1 ||
			 get_typtype(proc->proargtypes.values[0]) != TYPTYPE_COMPOSITE ||
			 !is_request_type(proc->proargtypes.values[0],
							  proc->prorettype == BYTEAOID ? "rinq_raw_request" : "rinq_request"))
		problem = proc->prorettype == BYTEAOID ? "its argument is not one rinq_raw_request" :
			"its argument is not one rinq_request";
	ReleaseSysCache(tuple);
	return problem;
}

Oid
rinq_function_owner(Oid func)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", func);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
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
	handler->owner = rinq_function_owner(handler->func);
	{
		Oid		   *argtypes;
		int			nargs;

		(void) get_func_signature(handler->func, &argtypes, &nargs);
		handler->request_type = argtypes[0];
		handler->raw = get_func_rettype(handler->func) == BYTEAOID;
		pfree(argtypes);
	}
	fmgr_info_cxt(handler->func, &handler->flinfo, handler->context);
	handler->valid = true;
}

static Handler *
find_handler(RinqBytes name, Oid owner)
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

	/* the name may have passed to a function of somebody who was never trusted */
	if (handler->owner != owner && handler->owner != GetUserId() &&
		!superuser_arg(handler->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Function %s has another owner than when it was registered.",
							   handler->name)));
	if (!rinq_can_use_schema(handler->namespace, GetUserId()) ||
		!rinq_can_execute(handler->func, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the handler cannot be used"),
				 errdetail_log("Role \"%s\" may not execute function %s.",
							   GetUserNameFromId(GetUserId(), false), handler->name)));
	return handler;
}

/* the columns are filled in by position, so their types have to be these */
static bool
fits_request(TupleDesc desc, bool raw)
{
	const Oid	column_types[REQUEST_COLUMNS] = {
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, raw ? BYTEAOID : JSONBOID, TEXTOID,
		TIMESTAMPTZOID, BOOLOID
	};
	int			i;

	if (desc->natts != REQUEST_COLUMNS)
		return false;
	for (i = 0; i < REQUEST_COLUMNS; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || getBaseType(column->atttypid) != column_types[i])
			return false;
	}
	return true;
}

static Datum
build_request(const Handler *handler, const RinqBytes *fields, int64 deadline,
			  bool wants_response)
{
	static const int source_of[] = {
		RINQ_REQUEST_ID, RINQ_REQUEST_SOURCE, RINQ_REQUEST_NAMESPACE,
		RINQ_REQUEST_COMMAND, -1, RINQ_REQUEST_TRACE
	};
	TupleDesc	desc = lookup_rowtype_tupdesc(handler->request_type, -1);
	Datum		values[REQUEST_COLUMNS];
	bool		nulls[REQUEST_COLUMNS];
	HeapTuple	tuple;
	void	   *payload = handler->raw ?
		(void *) rinq_payload_to_raw(fields[RINQ_REQUEST_PAYLOAD]) :
		(void *) rinq_payload_to_jsonb(fields[RINQ_REQUEST_PAYLOAD]);
	int			i;

	if (!fits_request(desc, handler->raw))
	{
		ReleaseTupleDesc(desc);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type %s does not fit the loaded version of rinq",
						format_type_be(handler->request_type)),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));
	}
	memset(nulls, 0, sizeof(nulls));
	for (i = 0; i < (int) lengthof(source_of); i++)
	{
		if (source_of[i] >= 0)
			values[i] = CStringGetTextDatum(rinq_text_from_wire(fields[source_of[i]]));
	}
	nulls[REQUEST_PAYLOAD] = payload == NULL;
	values[REQUEST_PAYLOAD] = PointerGetDatum(payload);
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
 * current role; "owner" is whom the function belonged to when it was
 * registered.  Returns its result as the body of the response.  Everything that
 * is wrong with handler or request is raised as an error.
 */
RinqBytes
rinq_handler_call(const RinqBytes *fields, Oid owner, int64 deadline,
				  bool wants_response)
{
	Handler    *handler;
	PgStat_FunctionCallUsage usage;
	Datum		result;
	LOCAL_FCINFO(fcinfo, 1);

	handler = find_handler(fields[RINQ_REQUEST_HANDLER], owner);
	InitFunctionCallInfoData(*fcinfo, &handler->flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = build_request(handler, fields, deadline, wants_response);
	fcinfo->args[0].isnull = false;

	rinq_handler_entered = true;
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	if (handler->raw)
		return rinq_payload_from_raw(fcinfo->isnull ? NULL : DatumGetByteaPP(result));
	return rinq_payload_from_jsonb(fcinfo->isnull ? NULL : DatumGetJsonbP(result));
}
