/*-------------------------------------------------------------------------
 *
 * role_reference.c
 *	  The type of the columns that say as whom a handler runs.
 *
 * Keep the number of a role, so that a listener follows a role that is renamed
 * and never passes to another one that takes its old name; print the name, so
 * that a dump holds no number that means another role where it is restored.
 *
 * A name that is no role when it is read stays a name, and stands for no role,
 * also when a role of that name comes later.  A role that was dropped prints
 * as nothing, which no role can be called.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/role_reference.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rinq_role_reference_in);
PG_FUNCTION_INFO_V1(rinq_role_reference_out);
PG_FUNCTION_INFO_V1(rinq_role_reference_from_oid);
PG_FUNCTION_INFO_V1(rinq_role_reference_oid);

/*
 * Make a reference to a role.
 */
RinqRoleReference *
rinq_role_reference(Oid role)
{
	RinqRoleReference *reference = palloc0(sizeof(RinqRoleReference));

	reference->role = role;
	return reference;
}

/*
 * Read a reference: the name of a role, as it is and without quotes.
 */
Datum
rinq_role_reference_in(PG_FUNCTION_ARGS)
{
	const char *name = PG_GETARG_CSTRING(0);
	RinqRoleReference *reference = rinq_role_reference(InvalidOid);

	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of a role has less than %d bytes", NAMEDATALEN)));
	reference->role = GetSysCacheOid1(AUTHNAME, Anum_pg_authid_oid, CStringGetDatum(name));
	if (!OidIsValid(reference->role))
		namestrcpy(&reference->name, name);
	PG_RETURN_POINTER(reference);
}

/*
 * Print a reference: what its role is called now.
 */
Datum
rinq_role_reference_out(PG_FUNCTION_ARGS)
{
	const RinqRoleReference *reference = (RinqRoleReference *) PG_GETARG_POINTER(0);
	char	   *name;

	if (!OidIsValid(reference->role))
		PG_RETURN_CSTRING(pstrdup(NameStr(reference->name)));
	name = GetUserNameFromId(reference->role, true);
	PG_RETURN_CSTRING(name == NULL ? pstrdup("") : name);
}

/*
 * Make a reference of the number of a role of this server.
 */
Datum
rinq_role_reference_from_oid(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(rinq_role_reference(PG_GETARG_OID(0)));
}

/*
 * Return the number of the role; 0 when it is no role.
 */
Datum
rinq_role_reference_oid(PG_FUNCTION_ARGS)
{
	const RinqRoleReference *reference = (RinqRoleReference *) PG_GETARG_POINTER(0);

	PG_RETURN_OID(reference->role);
}
