/*-------------------------------------------------------------------------
 *
 * repeat.c
 *	  What is run again by this peer, after a while: responses and notifications
 *	  whose executor has ended in the middle, and calls that have failed and whose
 *	  listener's policy wants another attempt within their deadline.
 *
 * Responses and notifications were acknowledged when they arrived, so that no
 * broker delivers them again; how often they are run is limited as it is for
 * requests.  Calls keep their delivery.  All keep their body, and are counted
 * among those that wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/repeat.h"
#include "peer/process.h"
#include "protocol/payload.h"

#define FIRST_DELAY 1000		/* ms before something is run a third time */
#define LAST_DELAY 60000

/* what waits until its time has come */
static dlist_head repeated = DLIST_STATIC_INIT(repeated);

/* no time comes before; 0 is never */
static int64 next_time = 0;

static void
run_again_at(RinqInbound * request, int64 at)
{
	Assert(at > 0);
	request->settle_at = at;
	next_time = rinq_clock_earlier(next_time, at);
	rinq_inbound_waits(request, request->body.len);
	dlist_push_tail(&repeated, &request->node);
}

/* Log that an executor has ended each time that it ran this. */
static void
log_given_up(const RinqInbound * request)
{
	const RinqCommonFields *common = rinq_common_fields_of(&request->fields);
	char		id[RINQ_DISPLAY_LEN];
	char		ns[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];

	ereport(LOG,
			(errmsg("rinq gives up a %s after %d attempts",
					request->work == RINQ_WORK_RESPONSE ? "response" : "notification", request->deaths),
			 errdetail_internal("Message %s in namespace \"%s\", trace id \"%s\": its handler has ended its process each time.",
								rinq_text_for_display(rinq_get_bytes(&request->fields, common->id), id),
								rinq_text_for_display(rinq_get_bytes(&request->fields, common->namespace), ns),
								rinq_text_for_display(rinq_get_bytes(&request->fields, common->trace), trace))));
}

/* Count one more attempt at a notification. */
static void
count_notification(RinqInbound * request)
{
	if (request->work == RINQ_WORK_NOTIFICATION)
		rinq_put_uint32(&request->fields, RINQ_NOTIFICATION_ATTEMPT,
						rinq_get_uint32(&request->fields, RINQ_NOTIFICATION_ATTEMPT) + 1);
}

/*
 * Have a response or notification run again whose executor has ended: at once
 * the first time, then later and later.  After enough attempts, one that is kept is
 * set aside, by an executor, however often that takes; of others, false.
 */
bool
rinq_repeat_unfinished(RinqInbound * request)
{
	int64		at = rinq_peer.now;

	Assert(request->work != RINQ_WORK_REQUEST && !request->from_inbox);
	request->deaths++;
	if (rinq_max_attempts > 0 && request->deaths >= rinq_max_attempts)
	{
		if (!rinq_inbound_is_kept(request))
		{
			log_given_up(request);
			return false;
		}
		request->give_up = true;
	}
	else
		count_notification(request);
	if (request->deaths > 1)
		at += rinq_backoff_after(request->deaths - 1, FIRST_DELAY, LAST_DELAY);
	run_again_at(request, at);
	return true;
}

/*
 * Have a call handled again at a time.
 */
void
rinq_repeat_call(RinqInbound * request, int64 at)
{
	Assert(request->work == RINQ_WORK_REQUEST && !request->from_inbox);
	rinq_put_uint32(&request->fields, RINQ_REQUEST_ATTEMPT,
					rinq_get_uint32(&request->fields, RINQ_REQUEST_ATTEMPT) + 1);
	run_again_at(request, at);
}

/*
 * Return something whose time has come; NULL when there is none, and *next is
 * when there will be, 0 for never.
 */
RinqInbound *
rinq_repeat_take(int64 *next)
{
	dlist_iter	iter;

	*next = next_time;
	if (next_time == 0 || next_time > rinq_peer.now)
		return NULL;
	*next = 0;
	dlist_foreach(iter, &repeated)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (request->settle_at <= rinq_peer.now)
		{
			dlist_delete(&request->node);
			return request;
		}
		*next = rinq_clock_earlier(*next, request->settle_at);
	}
	next_time = *next;
	return NULL;
}

/*
 * Take all that a filter wants.
 */
void
rinq_repeat_extract(bool (*wanted) (const RinqInbound * request, void *arg), void *arg,
					dlist_head *into)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &repeated)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (!wanted(request, arg))
			continue;
		dlist_delete(&request->node);
		dlist_push_tail(into, &request->node);
	}
}
