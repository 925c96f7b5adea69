/*-------------------------------------------------------------------------
 *
 * backend/bus_access.h
 *	  Who may use the bus of this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BUS_ACCESS_H
#define RINQ_BUS_ACCESS_H

#include "postgres.h"

extern char *rinq_bus_obstacle(Oid role);
extern void rinq_check_bus_access(Oid role);

#endif							/* RINQ_BUS_ACCESS_H */
