/*-------------------------------------------------------------------------
 *
 * kept.c
 *	  Notifications that wait in the peer until somebody fetches them, and those
 *	  who wait for such.
 *
 * Each session keeps a bounded number; then the oldest make room, since a
 * receiver that is behind has more use for the newest.  They take memory as
 * sessions do, within rinq.session_memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "notification.h"
#include "peer/peer.h"
#include "utils/memutils.h"

/* what one fetch gets */
#define PAGE_COUNT 1000
#define PAGE_BYTES (256 * 1024)

typedef struct Kept
{
	dlist_node	node;
	uint32		size;			/* of what follows */
	char		packed[FLEXIBLE_ARRAY_MEMBER];
} Kept;

static Size
bytes_of(const Kept *kept)
{
	return offsetof(Kept, packed) + kept->size;
}

static void
drop_oldest(RinqSession *session)
{
	Kept	   *kept = dlist_container(Kept, node, dlist_pop_head_node(&session->kept));

	rinq_own_sessions_release(bytes_of(kept));
	session->kept_bytes -= bytes_of(kept);
	session->num_kept--;
	pfree(kept);
}

/*
 * Answers a fetch with the oldest that are kept.  They are forgotten when, and
 * only when, it is still waited for.
 */
static void
answer(RinqSession *session, uint32 index)
{
	StringInfoData page;
	dlist_iter	iter;
	int			count = 0;

	initStringInfo(&page);
	dlist_foreach(iter, &session->kept)
	{
		Kept	   *kept = dlist_container(Kept, node, iter.cur);

		if (count == PAGE_COUNT || (count > 0 && page.len + kept->size > PAGE_BYTES))
			break;
		appendBinaryStringInfo(&page, kept->packed, (int) kept->size);
		count++;
	}
	if (rinq_invoker_finish(index, RINQ_OUTCOME_SUCCESS, rinq_bytes(NULL, 0),
							rinq_bytes(NULL, 0), rinq_bytes(page.data, page.len)))
	{
		for (; count > 0; count--)
			drop_oldest(session);
	}
	pfree(page.data);
}

/*
 * Keeps a notification for a session, or hands it to who waits for it; false
 * when there is no room for it.  Older ones that make room are counted here.
 */
bool
rinq_kept_add(RinqSession *session, const RinqBytes *fields)
{
	Size		size = rinq_notification_packed_size(fields);
	Size		bytes = offsetof(Kept, packed) + size;
	Kept	   *kept;

	/* where the room that older ones can make is not enough, they stay */
	if (size > PG_INT32_MAX ||
		(bytes > session->kept_bytes &&
		 !rinq_own_sessions_has_room(bytes - session->kept_bytes)))
		return false;
	while (session->num_kept > 0 &&
		   (session->num_kept >= rinq_kept_notifications || !rinq_own_sessions_has_room(bytes)))
	{
		drop_oldest(session);
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	}
	if (!rinq_own_sessions_reserve(bytes))
		return false;
	kept = MemoryContextAllocHuge(TopMemoryContext, bytes);
	kept->size = (uint32) size;
	rinq_notification_pack(kept->packed, fields);
	dlist_push_tail(&session->kept, &kept->node);
	session->kept_bytes += bytes;
	session->num_kept++;

	while (session->fetching != NIL && session->num_kept > 0)
	{
		void	   *waiting = linitial(session->fetching);
		uint32		index;

		session->fetching = list_delete_first(session->fetching);
		if (rinq_operation_waits(waiting, &index))
			answer(session, index);
		pfree(waiting);
	}
	return true;
}

/*
 * Answers a fetch with what is kept; if that is nothing, and "wait" is set, when
 * the next one comes.
 */
void
rinq_kept_fetch(RinqSession *session, uint32 index, bool wait)
{
	ListCell   *lc;
	uint32		other;

	if (session->num_kept > 0 || !wait)
	{
		answer(session, index);
		return;
	}
	foreach(lc, session->fetching)
	{
		if (rinq_operation_waits(lfirst(lc), &other))
			continue;
		pfree(lfirst(lc));
		session->fetching = foreach_delete_current(session->fetching, lc);
	}
	session->fetching = rinq_operation_wait(session->fetching, index);
}

/* tells those who wait that nothing will come */
static void
end_fetching(RinqSession *session, RinqOutcome outcome, const char *text)
{
	ListCell   *lc;

	foreach(lc, session->fetching)
	{
		uint32		index;

		if (rinq_operation_waits(lfirst(lc), &index))
			rinq_invoker_finish_text(index, outcome, text);
	}
	list_free_deep(session->fetching);
	session->fetching = NIL;
}

/*
 * The session keeps no notifications any more, but for those that it has.
 */
void
rinq_kept_no_more(RinqSession *session)
{
	end_fetching(session, RINQ_OUTCOME_REFUSED, RINQ_NOTHING_KEPT);
}

/*
 * The session ends: what was kept is lost, and who waits is told.
 */
void
rinq_kept_session_ends(RinqSession *session)
{
	while (session->num_kept > 0)
	{
		drop_oldest(session);
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	}
	end_fetching(session, RINQ_OUTCOME_NOT_FOUND, "");
}
