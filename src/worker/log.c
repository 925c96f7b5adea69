/*-------------------------------------------------------------------------
 *
 * log.c
 *	  What the log says about requests that have failed.
 *
 * An error of a handler is the business of its author, and logged each
 * time.  Errors before a handler can be caused by any peer on the network:
 * they are logged too, up to a number in each interval for the whole database,
 * and the ones beyond are counted and told in one line.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "worker/handler.h"
#include "worker/log.h"
#include "worker/response.h"
#include "worker/time_limit.h"

#define INTERVAL 10000			/* ms in which that number is logged */
#define MAX_IN_INTERVAL 10

/*
 * Count an error that no handler was there for; false when it is not to be
 * logged.  Then *suppressed is 0; else it is how many were not logged before.
 */
static bool
may_log(RinqDatabase *db, uint64 *suppressed)
{
	int64		now = rinq_clock_ms();
	bool		allowed;

	*suppressed = 0;
	SpinLockAcquire(&db->mutex);
	if (now < db->early_errors_since || now - db->early_errors_since >= INTERVAL)
	{
		*suppressed = db->early_errors_suppressed;
		db->early_errors_since = now;
		db->early_errors_logged = 0;
		db->early_errors_suppressed = 0;
	}
	allowed = db->early_errors_logged < MAX_IN_INTERVAL;
	if (allowed)
		db->early_errors_logged++;
	else
		db->early_errors_suppressed++;
	SpinLockRelease(&db->mutex);
	return allowed;
}

static void
log_early(RinqDatabase *db)
{
	uint64		suppressed;

	if (!may_log(db, &suppressed))
		return;
	if (suppressed > 0)
		ereport(LOG,
				(errmsg("rinq did not log " UINT64_FORMAT " errors of requests that did not reach their handlers",
						suppressed),
				 errdetail("At most %d of them are logged in %d seconds.", MAX_IN_INTERVAL,
						   INTERVAL / 1000)));
	EmitErrorReport();
}

/*
 * Log that the deadline of its request has ended a handler: the message of a
 * cancelled statement would name the timer that was used for it.
 */
static void
log_deadline(const ErrorData *error)
{
	ErrorContextCallback *context = error_context_stack;

	/* the request is in the error's own context already */
	error_context_stack = NULL;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("rinq ended a handler because the deadline of its request has passed"),
			 error->context != NULL ? errcontext("%s", error->context) : 0));
	error_context_stack = context;
}

/*
 * Log that a handler was ended because it took longer than its listener, or
 * the setting, allows; with the error if it was one that ended it.
 */
void
rinq_log_limit(const ErrorData *error)
{
	ErrorContextCallback *context = error_context_stack;

	if (error != NULL)
		error_context_stack = NULL;
	ereport(LOG,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("rinq ended a handler: %s", rinq_limit_text()),
			 errhint("The limit is the timeout of its listener, or else \"rinq.handler_timeout\"."),
			 error != NULL && error->context != NULL ? errcontext("%s", error->context) : 0));
	error_context_stack = context;
}

/*
 * Log the error that has ended a request, as it is known to PostgreSQL at this
 * moment, in a PG_CATCH.  A failure that the application defines is no error.
 */
void
rinq_log_failed_request(RinqDatabase *db, const RinqSlot *slot, ErrorData *error)
{
	if (rinq_result_is_failure(error))
		return;
	if (rinq_result_is_over_limit(slot, error))
		rinq_log_limit(error);
	else if (!rinq_handler_entered)
	{
		if (slot->work == RINQ_WORK_REQUEST)
			rinq_count(db, RINQ_REQUESTS_UNHANDLED);
		log_early(db);
	}
	else if (rinq_result_is_late(slot, error))
		log_deadline(error);
	else
		EmitErrorReport();
}
