/*-------------------------------------------------------------------------
 *
 * wait_ready.c
 *	  rinq_wait_ready: until what is committed is served.
 *
 * Shared memory says what is connected and what was read, the peer itself what
 * it consumes; so nothing is read here, no lock is taken, and nothing is held
 * between two looks but what the statement itself has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/calls.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "backend/utility_hook.h"
#include "base/clock.h"
#include "fmgr.h"
#include "sql/arguments.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_wait_ready);

#define FIRST_LOOK 2			/* ms until the second look; doubles */
#define LAST_LOOK 250			/* ms between looks */

/* Return until when to wait; a handler has no more time than its request. */
static int64
deadline_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null")));
	return rinq_clock_earlier(rinq_clock_ms() + rinq_interval_ms(PG_GETARG_INTERVAL_P(0)),
							  rinq_inherited.deadline);
}

/* Ask the peer what it does not serve yet; empty when there is nothing, NULL when it does not say. */
static char *
ask_peer(RinqDatabase *db, int64 deadline)
{
	RinqRef		nobody = {{{0, 0}, 0}, 0};
	char	   *volatile words = NULL;
	RinqFields	fields;
	uint32		index;

	rinq_fields_init(&fields, RINQ_KIND_OPERATION);
	index = rinq_operation_submit(db, RINQ_OP_LIST_UNREADY, &nobody, true, InvalidOid, false,
								  &fields, deadline);
	PG_TRY();
	{
		RinqResult	result;

		rinq_call_wait(db, index, &result);
		if (result.outcome == RINQ_OUTCOME_SUCCESS)
		{
			RinqBytes	named = rinq_get_bytes(&result.fields, RINQ_OP_RESULT_UNREADY);

			words = named.len == 0 ? pstrdup("") : pnstrdup(named.data, named.len);
		}
	}
	PG_FINALLY();
	{
		rinq_call_release(db, index);
	}
	PG_END_TRY();
	return words;
}

/* Tell whether the listeners were read as they were committed when the wait began. */
static bool
was_read(RinqDatabase *db, uint32 wanted)
{
	bool		read;

	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	read = (int32) (db->read_done - wanted) >= 0;
	LWLockRelease(rinq_shared->lock);
	return read;
}

/*
 * Tell whether the database was suspended when it was read, and has committed
 * since what may change that.
 */
static bool
may_have_been_adopted(RinqDatabase *db, uint32 wanted)
{
	return db != NULL && db->identities.suspended != RINQ_NOT_SUSPENDED && !was_read(db, wanted);
}

/*
 * Find out what is missing, in words; empty when nothing is, and NULL when the
 * peer does not say.  What waiting does not mend is an error.
 */
static char *
find_missing(uint32 wanted, int64 deadline)
{
	RinqDatabase *db = rinq_my_database();
	RinqStatus	status = {0};

	if (may_have_been_adopted(db, wanted))
		return pstrdup("the newest listeners and subscriptions");
	db = rinq_require_coming_peer();
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		status = db->status;
		SpinLockRelease(&db->mutex);
	}
	if (status.net == RINQ_NET_DISCONNECTED)
		return psprintf("a connection to the broker (%s)", status.last_error);
	if (status.net != RINQ_NET_CONNECTED)
		return pstrdup(status.net == RINQ_NET_STOPPED ? "a process that is the peer" :
					   "a connection to the broker");
	if (!was_read(db, wanted))
		return pstrdup("the newest listeners and subscriptions");
	return ask_peer(db, deadline);
}

/*
 * Return the number of the reading that covers what is committed by now.  On a
 * standby, and until its promotion is noticed, that has to be asked for.
 */
static uint32
reading_wanted(void)
{
	RinqDatabase *db;
	uint32		wanted = 0;

	if (rinq_shared->following)
		rinq_utility_hook_reread_now();
	db = rinq_my_database();
	if (db != NULL)
	{
		LWLockAcquire(rinq_shared->lock, LW_SHARED);
		wanted = db->read_wanted;
		LWLockRelease(rinq_shared->lock);
	}
	return wanted;
}

static void
refuse_uncommitted(void)
{
	if (rinq_utility_hook_rereads_at_commit())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for listeners or an extension that this transaction has not committed"),
				 errhint("Commit first. psql -c runs all its statements in one transaction; give each a -c of its own.")));
}

/*
 * rinq_wait_ready(timeout interval) returns void
 *
 * Waits until this database is a connected peer which serves the listeners and
 * subscriptions that are committed; an error names what is missing by then.
 */
Datum
rinq_wait_ready(PG_FUNCTION_ARGS)
{
	char	   *missing = pstrdup("an answer of the peer");
	int			pause = FIRST_LOOK;
	int64		deadline;
	uint32		wanted;

	rinq_refuse_parallel(fcinfo);
	deadline = deadline_argument(fcinfo);
	rinq_require_preloaded();
	refuse_uncommitted();
	wanted = reading_wanted();
	for (;;)
	{
		char	   *found = find_missing(wanted, deadline);

		if (found != NULL)
		{
			pfree(missing);
			missing = found;
		}
		if (missing[0] == '\0')
			break;
		if (rinq_clock_ms() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("the rinq peer of this database is not ready"),
					 errdetail("Missing: %s.", missing),
					 errhint("Look at the views rinq_peer, rinq_listeners and rinq_subscriptions, and at the server log.")));
		rinq_call_sleep(Min(deadline, rinq_clock_ms() + pause));
		pause = Min(pause * 2, LAST_LOOK);
	}
	PG_RETURN_VOID();
}
