/*-------------------------------------------------------------------------
 *
 * listen.h
 *	  What functions have to be that are registered as handlers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_LISTEN_H
#define RINQ_LISTEN_H

#include "postgres.h"

#include "channel.h"

extern void rinq_check_handler(Oid func, RinqWork work);

#endif							/* RINQ_LISTEN_H */
