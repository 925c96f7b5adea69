/*-------------------------------------------------------------------------
 *
 * handler_signature.h
 *	  Which functions can be handlers, by what they take and return.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_HANDLER_SIGNATURE_H
#define RINQ_BACKEND_HANDLER_SIGNATURE_H

#include "postgres.h"

#include "ipc/slots.h"

extern const char *rinq_handler_problem(Oid func, RinqWork work);
extern Oid	rinq_function_owner(Oid func);

#endif							/* RINQ_BACKEND_HANDLER_SIGNATURE_H */
