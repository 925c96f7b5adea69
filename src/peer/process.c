/*-------------------------------------------------------------------------
 *
 * process.c
 *	  The peer process: what all its parts know of it, and ask of it.
 *
 * Whatever several parts need, and what must know none of them, is here: waking
 * processes at the end of a turn, having the listeners read again, the log of bad
 * input, giving the connection up, and lists of calls and operations that wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/burst.h"
#include "peer/process.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

#define MAX_WAKE 64				/* processes woken at the end of a turn */

RinqPeer	rinq_peer;

/* processes to wake when the turn is over, each once */
static int	to_wake[MAX_WAKE];
static int	num_to_wake;

/*
 * Wake a process at the end of the turn, so that one wake-up serves all that
 * the turn has for it.
 */
void
rinq_peer_wake_later(int procno)
{
	int			i;

	Assert(RINQ_IN_PEER());
	if (procno == RINQ_NO_PROC)
		return;
	for (i = 0; i < num_to_wake; i++)
	{
		if (to_wake[i] == procno)
			return;
	}
	if (num_to_wake == MAX_WAKE)
		rinq_wake_proc(procno);
	else
		to_wake[num_to_wake++] = procno;
}

/*
 * Count the processes that are to be woken at the end of the turn.
 */
int
rinq_peer_wakes(void)
{
	return num_to_wake;
}

/*
 * Wake all processes that were to be woken at the end of the turn.
 */
void
rinq_peer_wake_now(void)
{
	int			i;

	for (i = 0; i < num_to_wake; i++)
		rinq_wake_proc(to_wake[i]);
	num_to_wake = 0;
}

/*
 * Have the listeners read again, because what was read may be out of date.
 */
void
rinq_peer_ask_for_reading(void)
{
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (rinq_peer.db->oid == rinq_peer.args.dboid)
		rinq_peer.db->read_wanted++;
	LWLockRelease(rinq_shared->lock);
	rinq_wake_launcher();
}

/*
 * Note a message that makes no sense, without letting anyone flood the log.
 */
void
rinq_peer_log_input(const char *what, const RinqDelivery *delivery)
{
	static RinqBurst logged;
	uint64		suppressed;
	char		exchange[RINQ_DISPLAY_LEN];
	char		key[RINQ_DISPLAY_LEN];
	char		id[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];

	if (!rinq_may_log(&logged, rinq_peer.now, &suppressed))
		return;
	ereport(LOG,
			(errmsg("rinq peer %s rejected a message: %s", rinq_peer.id_text, what),
			 errdetail_internal("Exchange \"%s\", routing key \"%s\", message id \"%s\", trace id \"%s\"; "
								UINT64_FORMAT " more since the last such entry.",
								rinq_text_for_display(delivery->exchange, exchange),
								rinq_text_for_display(delivery->routing_key, key),
								rinq_text_for_display(delivery->message.message_id, id),
								rinq_text_for_display(delivery->message.correlation_id.len > 0 ?
													  delivery->message.correlation_id :
													  delivery->message.message_id, trace),
								suppressed)));
}

/*
 * Show an error in the view rinq_peer, beside a state that stays as it is.
 */
void
rinq_peer_show_error(const char *error)
{
	RinqStatus *status = &rinq_peer.db->status;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&rinq_peer.db->mutex);
	strlcpy(status->last_error, error, sizeof(status->last_error));
	status->last_error_at = now;
	SpinLockRelease(&rinq_peer.db->mutex);
}

/*
 * Give the connection up at the end of this turn; of several reasons, for the
 * first one.
 */
void
rinq_peer_fail(const char *reason)
{
	if (rinq_peer.failure[0] == '\0')
		strlcpy(rinq_peer.failure, reason, sizeof(rinq_peer.failure));
}

/*
 * Add the call or operation in a slot to a list of those that wait for the
 * same, and return the entry: "size" bytes of zeros, which begin with a
 * RinqWaiter.  Entries last, and are freed with list_free_deep.
 */
void *
rinq_wait_in(List **list, uint32 index, uint32 serial, Size size)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	RinqWaiter *waiter = palloc0(size);

	Assert(RINQ_IN_PEER() && size >= sizeof(RinqWaiter));
	waiter->index = index;
	waiter->serial = serial;
	*list = lappend(*list, waiter);
	MemoryContextSwitchTo(old);
	return waiter;
}

/*
 * Tell whether a backend still waits for the call or operation.
 */
bool
rinq_waits(const RinqWaiter * waiter)
{
	RinqSlot   *slot;

	if (waiter->index >= rinq_peer.slots->num_calls)
		return false;
	slot = &rinq_peer.slots->slot[waiter->index];
	return slot->serial == waiter->serial && rinq_slot_state(slot) == RINQ_SLOT_QUEUED;
}
