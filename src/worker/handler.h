/*-------------------------------------------------------------------------
 *
 * handler.h
 *	  Finding and calling the SQL function that handles a request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_HANDLER_H
#define RINQ_HANDLER_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "ipc/slots.h"

/* why a function cannot be a handler, or NULL when it can */
/* did the last request get as far as its handler? */
extern bool rinq_handler_entered;

extern void rinq_handler_init(void);
extern RinqBytes rinq_handler_call(RinqWork work, const RinqFields *fields, Oid owner,
								   int64 deadline, bool wants_response);

/* rows for handlers, and what else takes them */
extern TupleDesc rinq_row_type(Oid type, const Oid *column_types, int count);

#endif							/* RINQ_HANDLER_H */
