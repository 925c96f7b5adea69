/*-------------------------------------------------------------------------
 *
 * time_limit.c
 *	  How long the handler of a request may take: until the request's deadline,
 *	  as long as its listener or rinq.handler_timeout says, or as the role's
 *	  own statement_timeout says, whichever comes first.
 *
 * The limit of the listener is there for requests without a deadline, since
 * not every broker takes back what a consumer keeps.  It begins with an attempt
 * at a request and covers all transactions of that attempt.  It ends where the
 * handler's transaction has nothing left to do but commit: waiting for a
 * standby is not what it is for, and cutting that short would acknowledge what
 * no standby has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "base/clock.h"
#include "guc.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "worker/time_limit.h"

/* of the request that this process is at: 0 when it has no limit */
static int	limit_length = 0;	/* ms */
static int64 limit_moment = 0;	/* on the monotonic clock */

/* whose handler's transaction runs, and may be cancelled by the limit */
static RinqSlot *armed = NULL;

/* the request's deadline, which goes on when the limit is taken back */
static int64 armed_deadline = 0;

/* Have the limit end nothing any more, neither here nor by the peer. */
static void
take_back(void)
{
	if (armed != NULL)
		pg_atomic_write_u64(&armed->limit, 0);
	armed = NULL;
}

/*
 * Take the limit back when the handler and all triggers that wait for the
 * commit are done.  A cancellation that came before that still ends the
 * handler, and not the commit's wait for a standby.  Other transactions of an
 * attempt, that keep books or clean up, have no limit.
 */
static void
release_limit(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT || armed == NULL)
		return;
	take_back();
	rinq_cancel_at(armed_deadline);
	CHECK_FOR_INTERRUPTS();
}

void
rinq_limit_init(void)
{
	RegisterXactCallback(release_limit, NULL);
}

/*
 * Begin an attempt at a request.
 */
void
rinq_limit_begin(const RinqSlot *slot)
{
	Assert(slot->timeout >= 0 && limit_moment == 0);
	limit_length = slot->timeout != 0 ? slot->timeout : rinq_handler_timeout;
	limit_moment = limit_length == 0 ? 0 : rinq_clock_ms() + limit_length;
}

/* Forget the limit: the attempt is over, whatever has become of it. */
void
rinq_limit_end(void)
{
	limit_length = 0;
	limit_moment = 0;
}

bool
rinq_limit_passed(void)
{
	return limit_moment != 0 && rinq_clock_ms() >= limit_moment;
}

/*
 * Tell whether the limit has passed for a handler that still runs.
 */
bool
rinq_limit_is_overrun(void)
{
	return armed != NULL && rinq_limit_passed();
}

/*
 * Return when the handler has to be done; 0 is never.
 */
int64
rinq_limit_moment(const RinqSlot *slot)
{
	return rinq_clock_earlier(slot->deadline, limit_moment);
}

/*
 * Have the statement cancelled when its time is over.  Deadline and limit have
 * a timer of their own, since PostgreSQL's go by the wall clock.  The peer knows
 * the limit, too, and ends the process of a handler that goes on.
 */
void
rinq_limit_arm(RinqSlot *slot)
{
	int64		moment = rinq_limit_moment(slot);

	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	armed_deadline = slot->deadline;
	if (limit_moment != 0)
	{
		armed = slot;
		pg_atomic_write_u64(&slot->limit, (uint64) limit_moment);
	}
	if (moment != 0)
		rinq_cancel_at(moment);
}

/*
 * Have nothing cancelled any more: the transaction is over, or is to be rolled
 * back.
 */
void
rinq_limit_disarm(void)
{
	take_back();
	disable_timeout(STATEMENT_TIMEOUT, false);
	rinq_cancel_at(0);
	QueryCancelPending = false;
}

/*
 * Say that the limit has ended a handler, in memory that needs no care: a
 * process that exits says it, too.
 */
const char *
rinq_limit_text(void)
{
	static char text[80];

	Assert(limit_length > 0);
	snprintf(text, sizeof(text), "the handler took longer than its limit of %d ms", limit_length);
	return text;
}
