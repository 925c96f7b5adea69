/*-------------------------------------------------------------------------
 *
 * handler_signature.c
 *	  Which functions can be handlers, by what they take and return.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "backend/handler_signature.h"
#include "backend/own_schema.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Tell whether a type is the extension's own, and not only one of that name.
 */
static bool
is_own_type(Oid type, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		named;

	if (!HeapTupleIsValid(tuple))
		return false;
	named = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), name) == 0;
	ReleaseSysCache(tuple);
	return named && rinq_is_extension_object(TypeRelationId, type);
}

/* Say why a function cannot take requests. */
static const char *
request_signature_problem(Form_pg_proc proc)
{
	if (proc->prorettype != JSONBOID && proc->prorettype != BYTEAOID)
		return "it returns neither jsonb nor bytea";
	if (proc->pronargs != 1 ||
		get_typtype(proc->proargtypes.values[0]) != TYPTYPE_COMPOSITE ||
		!is_own_type(proc->proargtypes.values[0],
					 proc->prorettype == BYTEAOID ? "rinq_raw_request" : "rinq_request"))
		return proc->prorettype == BYTEAOID ? "its argument is not one rinq_raw_request" :
			"its argument is not one rinq_request";
	return NULL;
}

/* Say why a function cannot take what is not to be answered. */
static const char *
argument_problem(Form_pg_proc proc, RinqWork work)
{
	const char *type = work == RINQ_WORK_RESPONSE ? "rinq_response" : "rinq_notification";

	if (proc->pronargs != 1 ||
		get_typtype(proc->proargtypes.values[0]) != TYPTYPE_COMPOSITE ||
		!is_own_type(proc->proargtypes.values[0], type))
		return psprintf("its argument is not one %s", type);
	return NULL;
}

/*
 * Say why a function cannot be a handler.  The rules are those of the SQL
 * functions that register handlers, and hold again when the handler is called,
 * since functions change.
 */
const char *
rinq_handler_problem(Oid func, RinqWork work)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	Form_pg_proc proc;
	const char *problem;

	if (!HeapTupleIsValid(tuple))
		return "it does not exist";
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		problem = "it is not a plain function";
	else if (proc->proretset)
		problem = "it returns a set";
	else if (work != RINQ_WORK_REQUEST)
		problem = argument_problem(proc, work);
	else
		problem = request_signature_problem(proc);
	ReleaseSysCache(tuple);
	return problem;
}

/*
 * Return the owner of a function that is to be registered.
 */
Oid
rinq_function_owner(Oid func)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", func)));
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}
