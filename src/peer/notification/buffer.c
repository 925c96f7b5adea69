/*-------------------------------------------------------------------------
 *
 * buffer.c
 *	  Notifications that wait in the peer until they are fetched, and the
 *	  fetches that wait for such.
 *
 * Each session keeps a bounded number; then the oldest make room, since a
 * receiver that is behind has more use for the newest.  All together take no
 * more than rinq.notification_memory.  When that is full, the session that
 * keeps the most makes room: a session that is not fetched from takes nothing
 * away from those that keep less.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/command/pending_calls.h"
#include "peer/notification/buffer.h"
#include "peer/process.h"
#include "peer/session/sessions.h"
#include "port/pg_bitutils.h"
#include "protocol/notification.h"
#include "utils/memutils.h"

typedef struct BufferedNotification
{
	dlist_node	node;
	uint32		size;			/* of what follows */
	char		packed[FLEXIBLE_ARRAY_MEMBER];
} BufferedNotification;

/* the sessions that keep any, by the power of two of the bytes that they keep */
#define NUM_CLASSES 64

static dlist_head by_size[NUM_CLASSES];

/* what all of them keep */
static Size bytes_used = 0;

static Size
bytes_of(const BufferedNotification * buffered)
{
	return offsetof(BufferedNotification, packed) + buffered->size;
}

static int
class_of(Size bytes)
{
	Assert(bytes > 0);
	return pg_leftmost_one_pos64(bytes);
}

/*
 * Note that a session has more in its buffer, or less; it comes behind others
 * that have as much.
 */
static void
resize_session_buffer(RinqSession * session, int64 change)
{
	if (session->buffered_bytes > 0)
		dlist_delete(&session->keeping);
	Assert(change >= 0 || session->buffered_bytes >= (Size) -change);
	session->buffered_bytes += change;
	bytes_used += change;
	Assert(bytes_used >= session->buffered_bytes);
	if (session->buffered_bytes > 0)
		dlist_push_tail(&by_size[class_of(session->buffered_bytes)], &session->keeping);
}

static void
drop_oldest(RinqSession * session)
{
	BufferedNotification *buffered = dlist_container(BufferedNotification, node, dlist_pop_head_node(&session->buffered));

	Assert(session->num_buffered > 0 && session->buffered_bytes >= bytes_of(buffered));
	resize_session_buffer(session, -(int64) bytes_of(buffered));
	session->num_buffered--;
	pfree(buffered);
}

static Size
buffer_limit(void)
{
	return (Size) rinq_notification_memory * 1024 * 1024;
}

static Size
buffer_room(void)
{
	return bytes_used < buffer_limit() ? buffer_limit() - bytes_used : 0;
}

/*
 * Find the session that has to make room for "bytes" bytes more of another
 * one: that which keeps the most, unless the other one would keep more.  NULL
 * when it is its own turn, and all that it keeps is not enough.
 */
static RinqSession *
find_victim(RinqSession * session, Size bytes)
{
	int			class;

	for (class = NUM_CLASSES - 1; class >= class_of(session->buffered_bytes + bytes); class--)
	{
		if (!dlist_is_empty(&by_size[class]))
			return dlist_container(RinqSession, keeping, dlist_head_node(&by_size[class]));
	}
	return session->buffered_bytes + buffer_room() >= bytes ? session : NULL;
}

static bool
make_room_in_buffer(RinqSession * session, Size bytes)
{
	while (session->num_buffered >= rinq_buffer_notifications || buffer_room() < bytes)
	{
		RinqSession *victim = buffer_room() < bytes ? find_victim(session, bytes) : session;

		if (victim == NULL)
			return false;
		drop_oldest(victim);
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	}
	return true;
}

/*
 * Finish a fetch with the oldest that is buffered, if there is one.  It is
 * forgotten when, and only when, it is still waited for.
 */
static void
finish_fetch(RinqSession * session, uint32 index)
{
	BufferedNotification *buffered = session->num_buffered == 0 ? NULL :
		dlist_container(BufferedNotification, node, dlist_head_node(&session->buffered));
	RinqFields	result;

	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	if (buffered != NULL)
		rinq_put_bytes(&result, RINQ_OP_RESULT_NOTIFICATION, rinq_bytes(buffered->packed, buffered->size));
	if (rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result) && buffered != NULL)
		drop_oldest(session);
}

/*
 * Keep a notification for a session, or hand it to who waits for it; false
 * when there is no room for it.  Older ones that make room are counted here.
 */
bool
rinq_buffer_add(RinqSession * session, const RinqFields *fields)
{
	Size		size = rinq_fields_size(fields);
	Size		bytes = offsetof(BufferedNotification, packed) + size;
	BufferedNotification *buffered;

	if (size > PG_INT32_MAX || bytes > buffer_limit() || !make_room_in_buffer(session, bytes))
		return false;
	buffered = MemoryContextAllocHuge(TopMemoryContext, bytes);
	buffered->size = (uint32) size;
	rinq_fields_write(fields, buffered->packed);
	dlist_push_tail(&session->buffered, &buffered->node);
	resize_session_buffer(session, (int64) bytes);
	session->num_buffered++;

	while (session->fetching != NIL && session->num_buffered > 0)
	{
		RinqWaiter *waiting = linitial(session->fetching);

		session->fetching = list_delete_first(session->fetching);
		if (rinq_waits(waiting))
			finish_fetch(session, waiting->index);
		pfree(waiting);
	}
	return true;
}

/*
 * Finish a fetch with what is buffered; if that is nothing, and "wait" is set,
 * when the next one comes.
 */
void
rinq_buffer_fetch(RinqSession * session, uint32 index, bool wait)
{
	ListCell   *lc;

	if (session->num_buffered > 0 || !wait)
	{
		finish_fetch(session, index);
		return;
	}
	foreach(lc, session->fetching)
	{
		if (rinq_waits(lfirst(lc)))
			continue;
		pfree(lfirst(lc));
		session->fetching = foreach_delete_current(session->fetching, lc);
	}
	rinq_wait_in(&session->fetching, index, rinq_peer.slots->slot[index].serial, sizeof(RinqWaiter));
}

/* tell those who wait that nothing will come */
static void
end_fetching(RinqSession * session, RinqOutcome outcome, const char *text)
{
	ListCell   *lc;

	foreach(lc, session->fetching)
	{
		const		RinqWaiter *waiting = lfirst(lc);

		if (rinq_waits(waiting))
			rinq_pending_finish_text(waiting->index, outcome, text);
	}
	list_free_deep(session->fetching);
	session->fetching = NIL;
}

/*
 * End the fetches that wait in a session that buffers nothing any more; what
 * was buffered stays.
 */
void
rinq_buffer_no_more(RinqSession * session)
{
	end_fetching(session, RINQ_OUTCOME_REFUSED, RINQ_NOTHING_BUFFERED);
}

/*
 * Drop what is buffered for a session that ends, and end the fetches that
 * wait.
 */
void
rinq_buffer_session_ends(RinqSession * session)
{
	while (session->num_buffered > 0)
	{
		drop_oldest(session);
		rinq_count(rinq_peer.db, RINQ_NOTIFICATIONS_DROPPED);
	}
	end_fetching(session, RINQ_OUTCOME_NOT_FOUND, "");
}
