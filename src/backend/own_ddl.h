/*-------------------------------------------------------------------------
 *
 * backend/own_ddl.h
 *	  Commands on the extension's own tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_DDL_H
#define RINQ_OWN_DDL_H

#include "postgres.h"

#include "catalog/objectaccess.h"
#include "nodes/nodes.h"

extern bool rinq_own_ddl_noticed(ObjectAccessType access, Oid classId, Oid objectId);
extern bool rinq_own_ddl_done(Node *command);

#endif							/* RINQ_OWN_DDL_H */
