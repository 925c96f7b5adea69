/*-------------------------------------------------------------------------
 *
 * backend/role_reference.h
 *	  The type of the columns that say as whom a handler runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ROLE_REFERENCE_H
#define RINQ_ROLE_REFERENCE_H

#include "postgres.h"

/* as it is stored; the install script says how long it is */
typedef struct RinqRoleReference
{
	Oid			role;			/* InvalidOid: the name was no role when it
								 * was read */
	NameData	name;			/* in that case only */
} RinqRoleReference;

StaticAssertDecl(sizeof(RinqRoleReference) == 68, "rinq_internal.role_reference has 68 bytes");

extern RinqRoleReference *rinq_role_reference(Oid role);

#endif							/* RINQ_ROLE_REFERENCE_H */
