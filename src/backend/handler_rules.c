/*-------------------------------------------------------------------------
 *
 * backend/handler_rules.c
 *	  Whether a function may be run for a role, as its handler.
 *
 * The owner of a function can replace it, and so a role that registers another
 * role's function lets that act with its own rights.  That is a decision about
 * one owner: when the function has another one later, it does not run until it
 * is registered again.  For a superuser it is refused altogether, unless the
 * owner is a superuser as well.
 *
 * Apply the rules when a handler is registered, and each time before it runs,
 * since owners and attributes of roles change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/bus_access.h"
#include "backend/handler_rules.h"
#include "backend/handler_signature.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/row_access.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(rinq_handler_problem_text);

/*
 * Find the function whose EXECUTE privilege is held by the roles that have
 * listeners or subscriptions; InvalidOid when it is not there.
 */
Oid
rinq_registration_function(void)
{
	oidvector  *no_arguments = buildoidvector(NULL, 0);
	Oid			schema = rinq_internal_schema();

	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(RINQ_REGISTRATION_FUNCTION),
						   PointerGetDatum(no_arguments), ObjectIdGetDatum(schema));
}

/*
 * Check whether a role has been granted that privilege by itself.  Without, it
 * could be dropped, or DROP OWNED BY has taken the privilege away.
 */
bool
rinq_is_registered_role(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(rinq_registration_function()));
	bool		found;
	bool		isnull;
	Datum		value;
	Acl		   *acl;
	int			i;

	if (!HeapTupleIsValid(tuple))
		return false;
	found = ((Form_pg_proc) GETSTRUCT(tuple))->proowner == role;
	value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	acl = isnull ? NULL : DatumGetAclPCopy(value);
	for (i = 0; acl != NULL && !found && i < ACL_NUM(acl); i++)
		found = ACL_DAT(acl)[i].ai_grantee == role;
	ReleaseSysCache(tuple);
	return found;
}

/* Tell whether sessions of this role may be started. */
static bool
can_login(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Tell whether the owner of the extension may act as a role.  He can write the
 * table that says as whom functions run, and so does not get more rights by
 * it.
 */
static bool
owner_may_act_as(Oid role)
{
	return has_privs_of_role(rinq_extension_owner(), role);
}

/*
 * Say why nothing can run as a role; NULL when it can.
 */
const char *
rinq_role_obstacle(const RinqRoleReference *role)
{
	if (!OidIsValid(role->role) && NameStr(role->name)[0] != '\0')
		return psprintf("its role \"%s\" did not exist when it was restored", NameStr(role->name));
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role->role)))
		return "its role does not exist any more";
	if (!owner_may_act_as(role->role))
		return psprintf("the owner of the extension, role \"%s\", may not act as its role",
						GetUserNameFromId(rinq_extension_owner(), false));
	if (!rinq_is_registered_role(role->role))
		return "the privilege that its role has with it was taken away";
	if (RINQ_HANDLER_NEEDS_LOGIN && !can_login(role->role))
		return "its role is not permitted to log in";
	if (!rinq_can_connect(MyDatabaseId, role->role))
		return "its role may not connect to the database";
	return rinq_bus_obstacle(role->role);
}

/*
 * Split "schema.name" as quote_qualified_identifier writes it, and find the
 * schema; false when it is written otherwise or there is no such schema.
 */
static bool
split_name(char *text, Oid *schema, char **name)
{
	List	   *names;

	if (!SplitIdentifierString(text, '.', &names) || list_length(names) != 2)
		return false;
	*schema = get_namespace_oid(linitial(names), true);
	*name = lsecond(names);
	return OidIsValid(*schema);
}

/*
 * Find the parenthesis behind the name of a function, whatever is in quotes
 * before.
 */
static char *
find_arguments(char *name)
{
	bool		quoted = false;
	char	   *p;

	for (p = name; *p != '\0' && (quoted || *p != '('); p++)
	{
		if (*p == '"')
			quoted = !quoted;
	}
	return *p == '\0' ? NULL : p;
}

/*
 * Find the function of a stored name, "schema.name(schema.type)".  What is
 * written otherwise is no error: it comes from a table.
 */
Oid
rinq_handler_by_name(const char *name)
{
	char	   *text = pstrdup(name);
	char	   *arguments = find_arguments(text);
	size_t		len;
	Oid			schema;
	char	   *part;
	Oid			type;

	if (arguments == NULL)
		return InvalidOid;
	*arguments++ = '\0';
	len = strlen(arguments);
	if (len == 0 || arguments[len - 1] != ')')
		return InvalidOid;
	arguments[len - 1] = '\0';
	if (!split_name(arguments, &schema, &part))
		return InvalidOid;
	type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(part),
						   ObjectIdGetDatum(schema));
	if (!OidIsValid(type) || !split_name(text, &schema, &part))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(part),
						   PointerGetDatum(buildoidvector(&type, 1)), ObjectIdGetDatum(schema));
}

/*
 * Make a reference to a handler.
 */
char *
rinq_handler_reference(Oid func, const char *name)
{
	return psprintf("%u %s", func, name);
}

/*
 * Return the name in a reference to a handler.
 */
const char *
rinq_handler_name(const char *reference)
{
	const char *space = strchr(reference, ' ');

	return space == NULL ? reference : space + 1;
}

/*
 * Find the function that a reference means; InvalidOid when there is none.
 */
Oid
rinq_handler_find(const char *reference)
{
	Oid			func = (Oid) strtoul(reference, NULL, 10);

	if (SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(func)))
		return func;
	return rinq_handler_by_name(rinq_handler_name(reference));
}

/* Return the name of a role, or its number when it is not there any more. */
static const char *
name_of_role(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	return name == NULL ? psprintf("%u", role) : name;
}

/* Tell whether a role may call the function of a row. */
static bool
may_execute(HeapTuple tuple, Oid role)
{
	static const RinqAclColumn where = {PROCOID, Anum_pg_proc_proacl, OBJECT_FUNCTION};
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

	return rinq_row_allows(&where, tuple, proc->proowner, role, ACL_EXECUTE) &&
		SearchSysCacheExists1(NAMESPACEOID, ObjectIdGetDatum(proc->pronamespace)) &&
		rinq_can_use_schema(proc->pronamespace, role);
}

/* Say why the function of a row must not run as a role, as rinq_handler_obstacle does. */
static const char *
obstacle_of_row(HeapTuple tuple, const char *name, Oid role, Oid owner)
{
	Oid			now = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;

	/*
	 * the name may have passed to the function of a role that was never
	 * trusted
	 */
	if (now != owner && now != role && !superuser_arg(now))
		return psprintf("Function %s has another owner than when it was registered.", name);
	if (superuser_arg(role) && !superuser_arg(now))
		return psprintf("Role \"%s\" is a superuser, and the owner of function %s is not.",
						name_of_role(role), name);
	if (!may_execute(tuple, role))
		return psprintf("Role \"%s\" may not execute function %s.", name_of_role(role), name);
	return NULL;
}

/*
 * Say why a function must not run as a role; NULL when it may.  "owner" is whom
 * it belonged to when it was registered.  What others drop meanwhile is no error.
 */
const char *
rinq_handler_obstacle(Oid func, const char *name, Oid role, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	const char *obstacle;

	if (!HeapTupleIsValid(tuple))
		return psprintf("Function %s does not exist any more.", name);
	obstacle = obstacle_of_row(tuple, name, role, owner);
	ReleaseSysCache(tuple);
	if (obstacle == NULL && rinq_bus_obstacle(role) != NULL)
		return psprintf("Role \"%s\" may not use the server that says where the broker is.", name_of_role(role));
	return obstacle;
}

/*
 * Raise an error when a superuser registers a function that a role with fewer
 * rights can replace.
 */
void
rinq_check_superuser_handler(Oid func, Oid role)
{
	Oid			owner = rinq_function_owner(func);

	if (!superuser_arg(role) || superuser_arg(owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("function %s cannot be a handler of superuser \"%s\"",
					format_procedure(func), GetUserNameFromId(role, false)),
			 errdetail("Its owner, role \"%s\", could replace it and would then act as a superuser.",
					   GetUserNameFromId(owner, false)),
			 errhint("Register it as its owner, or make a superuser its owner.")));
}

/* Say what is wrong with a handler, in a few words; NULL when it can run. */
static const char *
handler_problem(const char *name, RinqWork work, const RinqRoleReference *role,
				const RinqRoleReference *owner)
{
	const char *problem = rinq_role_obstacle(role);
	Oid			func;

	if (problem != NULL)
		return problem;
	func = rinq_handler_by_name(name);
	if (!OidIsValid(func))
		return "its function does not exist";
	problem = rinq_handler_problem(func, work);
	if (problem != NULL)
		return psprintf("its function cannot be used: %s", problem);
	return rinq_handler_obstacle(func, name, role->role, owner->role);
}

/*
 * rinq_internal.handler_problem(handler text, notifications boolean, role
 * role_reference, owner role_reference) returns text
 *
 * Why a handler of requests, or of notifications, cannot run now; NULL when it
 * can.
 */
Datum
rinq_handler_problem_text(PG_FUNCTION_ARGS)
{
	const char *problem = handler_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)),
										  PG_GETARG_BOOL(1) ? RINQ_WORK_NOTIFICATION : RINQ_WORK_REQUEST,
										  (RinqRoleReference *) PG_GETARG_POINTER(2),
										  (RinqRoleReference *) PG_GETARG_POINTER(3));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
