/*-------------------------------------------------------------------------
 *
 * source.c
 *	  The attributes that a durable message is given.
 *
 * They are those of a session, so the roles that may give a message attributes are
 * those that may set the attributes of a session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backend/own_access.h"
#include "backend/own_schema.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "protocol/attribute.h"
#include "sql/arguments.h"
#include "sql/source.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Raise an error unless the current role may set attributes of sessions. */
static void
check_may_set_attributes(void)
{
	Oid			types[3] = {TEXTOID, TEXTOID, JSONBOID};
	List	   *name = list_make2(makeString(get_namespace_name(rinq_extension_schema())),
								  makeString(pstrdup("rinq_session_update")));
	Oid			func = LookupFuncName(name, 3, types, false);

	if (!rinq_can_execute(func, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to give a message attributes"),
				 errdetail("It takes the privilege EXECUTE on the function \"rinq_session_update\".")));
}

/* Check an object of attributes in a namespace. */
static int
check_namespace_attributes(JsonbValue *value)
{
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;
	int			count = 0;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes must be an object of namespaces, which are objects"),
				 errhint("An example is '{\"auth\": {\"tenant\": \"acme\"}}'.")));
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			(void) rinq_attribute_text(pnstrdup(element.val.string.val, element.val.string.len), "key");
		else if (token == WJB_VALUE)
		{
			(void) rinq_attribute_value(&element);
			count++;
		}
	}
	return count;
}

/*
 * Return an argument that is the attributes of a message; NULL when there are
 * none.
 */
const Jsonb *
rinq_source_attributes_argument(FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *attributes;
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;
	int			count = 0;

	if (PG_ARGISNULL(n))
		return NULL;
	attributes = PG_GETARG_JSONB_P(n);
	check_may_set_attributes();
	if (!JB_ROOT_IS_OBJECT(attributes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes must be an object of namespaces, which are objects"),
				 errhint("An example is '{\"auth\": {\"tenant\": \"acme\"}}'.")));
	it = JsonbIteratorInit(&attributes->root);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			rinq_check_namespace(pnstrdup(element.val.string.val, element.val.string.len));
		else if (token == WJB_VALUE)
			count += check_namespace_attributes(&element);
	}
	if (count > RINQ_MAX_ATTRIBUTES || VARSIZE(attributes) > 1024 * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many attributes"),
				 errdetail("There may be %d of them, of 1 MB together.", RINQ_MAX_ATTRIBUTES)));
	return attributes;
}
