/*-------------------------------------------------------------------------
 *
 * backend/bus_server.h
 *	  Which foreign server says where the broker of the database is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BUS_SERVER_H
#define RINQ_BUS_SERVER_H

#include "postgres.h"

#include "ipc/listener_config.h"

/* the foreign-data wrapper, and the table of the server that was chosen */
#define RINQ_WRAPPER "rinq"
#define RINQ_CHOSEN_TABLE "chosen_server"

/* a foreign server of the wrapper */
typedef struct RinqServer
{
	Oid			oid;
	Oid			owner;
	char	   *name;
	List	   *options;		/* of DefElem */
} RinqServer;

/*
 * What the database has.  Neither a server nor a problem: no server, so that
 * the settings say where the broker is.
 */
typedef struct RinqBusServer
{
	RinqServer *server;			/* NULL: none, or a problem */
	char	   *problem;		/* why none can be used; NULL when all is well */
	List	   *meant;			/* OIDs of the servers that may be meant, one
								 * unless there is a problem */
} RinqBusServer;

extern Oid	rinq_wrapper(void);
extern bool rinq_server_counts(Oid owner);
extern RinqServer *rinq_server_by_name(const char *name);
extern void rinq_bus_server_find(RinqBusServer *found);
extern void rinq_bus_server_read(RinqServerConfig *config);

#endif							/* RINQ_BUS_SERVER_H */
