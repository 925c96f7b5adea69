/*-------------------------------------------------------------------------
 *
 * backend/server_options.h
 *	  Options of foreign servers and user mappings that say where a broker is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SERVER_OPTIONS_H
#define RINQ_SERVER_OPTIONS_H

#include "postgres.h"

#include "ipc/listener_config.h"

extern void rinq_check_server_options(List *options, Oid catalog);
extern List *rinq_server_options(List *server, List *mapping, bool may_read_files, char **problem);

#endif							/* RINQ_SERVER_OPTIONS_H */
