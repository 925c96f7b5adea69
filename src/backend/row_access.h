/*-------------------------------------------------------------------------
 *
 * backend/row_access.h
 *	  Privileges on the object of a row that was read from a catalog.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ROW_ACCESS_H
#define RINQ_ROW_ACCESS_H

#include "postgres.h"

#include "access/htup.h"
#include "nodes/parsenodes.h"

/* where a catalog has what PostgreSQL's own functions read for themselves */
typedef struct RinqAclColumn
{
	int			cache;
	AttrNumber	column;
	ObjectType	type;
} RinqAclColumn;

extern bool rinq_row_allows(const RinqAclColumn * where, HeapTuple row, Oid owner, Oid role,
							AclMode privilege);

#endif							/* RINQ_ROW_ACCESS_H */
