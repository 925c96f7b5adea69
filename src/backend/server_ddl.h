/*-------------------------------------------------------------------------
 *
 * backend/server_ddl.h
 *	  Commands on foreign servers that say where the broker is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SERVER_DDL_H
#define RINQ_SERVER_DDL_H

#include "postgres.h"

#include "catalog/objectaccess.h"
#include "nodes/nodes.h"

extern bool rinq_server_ddl_noticed(ObjectAccessType access, Oid classId, Oid objectId);
extern bool rinq_server_ddl_done(Node *command);

#endif							/* RINQ_SERVER_DDL_H */
