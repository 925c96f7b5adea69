/*-------------------------------------------------------------------------
 *
 * backend/row_access.c
 *	  Privileges on the object of a row that was read from a catalog.
 *
 * PostgreSQL's own functions take the OID of an object, and raise an error
 * when others have dropped it meanwhile.  Here it is as it was when its row was
 * read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/row_access.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/syscache.h"

/*
 * Tell whether a role has a privilege on the object of a row, which has this
 * owner.
 */
bool
rinq_row_allows(const RinqAclColumn * where, HeapTuple row, Oid owner, Oid role, AclMode privilege)
{
	bool		isnull;
	Datum		value;
	Acl		   *acl;
	bool		allowed;

	if (superuser_arg(role))
		return true;
	value = SysCacheGetAttr(where->cache, row, where->column, &isnull);
	acl = isnull ? acldefault(where->type, owner) : DatumGetAclPCopy(value);
	allowed = aclmask(acl, role, owner, privilege, ACLMASK_ANY) != 0;
	pfree(acl);
	return allowed;
}
