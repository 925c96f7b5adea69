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

#include "ipc/slots.h"
#include "sql/session_ref.h"

extern void rinq_check_handler_role(Oid role);
extern void rinq_check_handler(Oid func, RinqWork work, Oid role);
extern void rinq_handler_input(Oid func, RinqWork work, RinqOperationInput *input);

#endif							/* RINQ_LISTEN_H */
