/*-------------------------------------------------------------------------
 *
 * async_calls.h
 *	  Calls of this connection that are not waited for yet, and results that
 *	  were awaited in this transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_ASYNC_CALLS_H
#define RINQ_BACKEND_ASYNC_CALLS_H

#include "postgres.h"

#include "backend/calls.h"

/* a call that was made, found by its message id */
typedef struct RinqAsyncCall
{
	RinqMessageId id;			/* hash key */
	RinqDatabase *db;			/* whose slot it is */
	uint32		index;			/* of its slot, until "awaited" */
	uint32		serial;
	int64		made;			/* counts up, to tell the oldest */
	char	   *namespace;		/* for error messages */
	char	   *command;		/* the same; in the memory of the namespace */
	bool		awaited;		/* the slot was given back, and there is a
								 * result */
	RinqResult	result;			/* RINQ_OUTCOME_NONE: it was dropped */
	char	   *result_memory;	/* what its fields point to, or NULL */
} RinqAsyncCall;

extern RinqAsyncCall *rinq_async_call(RinqDatabase *db, const RinqFields *fields, int64 deadline,
									  const RinqMessageId *id);
extern RinqAsyncCall *rinq_async_find(const RinqMessageId *id);
extern bool rinq_async_ended(const RinqAsyncCall *call);
extern RinqAsyncCall *rinq_async_wait_any(RinqAsyncCall **some, int count, int64 until);
extern const RinqResult *rinq_async_result(RinqAsyncCall *call);
extern void rinq_async_cancel(RinqAsyncCall *call);

#endif							/* RINQ_BACKEND_ASYNC_CALLS_H */
