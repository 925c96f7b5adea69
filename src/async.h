/*-------------------------------------------------------------------------
 *
 * async.h
 *	  Calls of this connection that nobody waits for yet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ASYNC_H
#define RINQ_ASYNC_H

#include "postgres.h"

#include "calls.h"

/* a call that was made, found by its message id */
typedef struct RinqAsyncCall
{
	RinqMessageId id;			/* hash key */
	uint32		index;			/* of its slot */
	uint32		serial;
	int64		made;			/* counts up, to tell the oldest */
	char	   *namespace;		/* both for error messages */
	char	   *command;
} RinqAsyncCall;

extern RinqAsyncCall *rinq_async_call(RinqDatabase *db, const RinqBytes *fields, int64 deadline,
									  const RinqMessageId *id);
extern RinqAsyncCall *rinq_async_find(const RinqMessageId *id);
extern bool rinq_async_answered(RinqDatabase *db, const RinqAsyncCall *call);
extern bool rinq_async_take(RinqDatabase *db, RinqAsyncCall *call);
extern void rinq_async_forget(RinqAsyncCall *call);

#endif							/* RINQ_ASYNC_H */
