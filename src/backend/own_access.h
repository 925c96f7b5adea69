/*-------------------------------------------------------------------------
 *
 * backend/own_access.h
 *	  What others may not do with the extension's relations, whatever
 *	  privileges on them they were given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_ACCESS_H
#define RINQ_OWN_ACCESS_H

#include "postgres.h"

#include "catalog/objectaccess.h"
#include "nodes/nodes.h"

extern void rinq_own_access_created(ObjectAccessType access, Oid classId, Oid objectId);
extern void rinq_own_access_check(Node *command);

#endif							/* RINQ_OWN_ACCESS_H */
