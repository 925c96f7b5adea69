/*-------------------------------------------------------------------------
 *
 * config.h
 *	  What the reader found in a database: the namespaces it listens to, handed
 *	  to the peer through shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CONFIG_H
#define RINQ_CONFIG_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "shared.h"

typedef struct RinqListener
{
	char	   *namespace;
	char	   *handler;		/* as the text of a regprocedure */
	Oid			role;			/* that it runs as */
	Oid			owner;			/* of the function, when it was registered */
	int32		max_concurrent; /* requests that run at a time; 0 is no limit */
	bool		deduplicate;
	char	   *problem;		/* why it cannot be served; NULL when it can */
} RinqListener;

extern dsa_pointer rinq_config_pack(List *listeners);
extern void rinq_config_publish(RinqDatabase *db, Oid dboid, RinqPresence presence,
								dsa_pointer config, uint32 covers);
extern List *rinq_config_fetch(RinqDatabase *db, uint32 *serial);

#endif							/* RINQ_CONFIG_H */
