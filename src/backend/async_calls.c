/*-------------------------------------------------------------------------
 *
 * async_calls.c
 *	  Calls of this connection that are not waited for yet, and results that
 *	  were awaited in this transaction.
 *
 * Such a call keeps its slot until it is awaited or cancelled, or the
 * connection ends; but not for ever: a connection may have
 * rinq.max_async_calls of them, and some time after its deadline the peer
 * takes a result back that was not asked for.  The process that claims the
 * slot first, by its serial number, has it.
 *
 * PostgreSQL may evaluate an expression again for the same row: to check it
 * again after a concurrent update, to scroll back in a cursor, or to join it
 * with another.  So a result that was awaited stays here, in memory of this
 * process, until the transaction ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/async_calls.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "base/hash_table.h"
#include "base/request_end.h"
#include "guc.h"
#include "protocol/packed.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

static HTAB *calls = NULL;
static int64 made = 0;
static int	num_awaited = 0;

/* of results that were awaited; reset when the transaction ends */
static MemoryContext awaited_context = NULL;

static RinqSlot *
slot_of(const RinqAsyncCall *call)
{
	Assert(!call->awaited);
	return &rinq_slots_of(call->db)->slot[call->index];
}

/*
 * Find the call of a message id; NULL when it is not known.
 */
RinqAsyncCall *
rinq_async_find(const RinqMessageId *id)
{
	RinqMessageId key;

	if (calls == NULL)
		return NULL;
	rinq_message_id_key(id, &key);
	return hash_search(calls, &key, HASH_FIND, NULL);
}

/* Tell whether a call was answered, also when its answer was dropped since. */
static bool
has_async_result(const RinqAsyncCall *call)
{
	RinqSlot   *slot;

	if (call->awaited)
		return true;
	slot = slot_of(call);
	return pg_atomic_read_u32(&slot->claim) != call->serial ||
		rinq_slot_state(slot) == RINQ_SLOT_DONE ||
		call->db->incarnation != slot->incarnation;
}

/*
 * Tell whether rinq_async_result would not have to wait: the call was answered,
 * or its deadline has passed.
 */
bool
rinq_async_ended(const RinqAsyncCall *call)
{
	return has_async_result(call) || slot_of(call)->deadline <= rinq_clock_ms();
}

/*
 * Wait until one of some calls has ended, or a time has come; returns the call,
 * or NULL.
 */
RinqAsyncCall *
rinq_async_wait_any(RinqAsyncCall **some, int count, int64 until)
{
	for (;;)
	{
		int64		next = until;
		int			i;

		for (i = 0; i < count; i++)
		{
			if (rinq_async_ended(some[i]))
				return some[i];
			next = Min(next, slot_of(some[i])->deadline);
		}
		if (until <= rinq_clock_ms())
			return NULL;
		rinq_call_sleep(next);
	}
}

/* make the slot this process's own; false when the peer has taken it back */
static bool
claim_async_slot(const RinqAsyncCall *call)
{
	uint32		expected = call->serial;

	Assert(expected != RINQ_CLAIMED_BY_PEER && expected != RINQ_CLAIMED_BY_OWNER);
	return pg_atomic_compare_exchange_u32(&slot_of(call)->claim, &expected,
										  RINQ_CLAIMED_BY_OWNER);
}

static void
forget_async_call(RinqAsyncCall *call)
{
	if (call->awaited)
		num_awaited--;
	Assert(num_awaited >= 0);
	pfree(call->namespace);		/* with the command */
	hash_search(calls, &call->id, HASH_REMOVE, NULL);
}

/* forget results that were awaited in the transaction that ends */
static void
forget_awaited_at_xact_end(XactEvent event, void *arg)
{
	HASH_SEQ_STATUS seq;
	RinqAsyncCall *call;

	if (num_awaited == 0 || event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		return;
	hash_seq_init(&seq, calls);
	while ((call = hash_seq_search(&seq)) != NULL)
	{
		if (call->awaited)
			forget_async_call(call);
	}
	Assert(num_awaited == 0);
	MemoryContextReset(awaited_context);
}

/*
 * Return the result of a call that has ended, also when it was awaited before
 * in this transaction.  Its outcome is RINQ_OUTCOME_NONE when it was dropped.
 */
const RinqResult *
rinq_async_result(RinqAsyncCall *call)
{
	RinqResult	result;
	MemoryContext old;
	uint32		index = call->index;
	char	   *volatile copy = NULL;

	Assert(rinq_async_ended(call));
	if (call->awaited)
		return &call->result;
	result.outcome = RINQ_OUTCOME_NONE;
	rinq_fields_init(&result.fields, RINQ_KIND_RESULT);
	if (claim_async_slot(call))
	{
		PG_TRY();
		{
			rinq_call_wait(call->db, index, &result);
			old = MemoryContextSwitchTo(awaited_context);
			copy = rinq_fields_copy(&result.fields);
			MemoryContextSwitchTo(old);
		}
		PG_CATCH();
		{
			rinq_call_release(call->db, index);
			forget_async_call(call);
			PG_RE_THROW();
		}
		PG_END_TRY();
		rinq_call_release(call->db, index);
	}
	call->result = result;
	call->result_memory = copy;
	call->awaited = true;
	num_awaited++;
	return &call->result;
}

/*
 * Give a call up whose result was not awaited: it will be dropped.
 */
void
rinq_async_cancel(RinqAsyncCall *call)
{
	Assert(!call->awaited);
	if (claim_async_slot(call))
		rinq_call_release(call->db, call->index);
	forget_async_call(call);
}

/* give all calls up: the request that has made them is over */
static void
forget_all_async_calls(void)
{
	HASH_SEQ_STATUS seq;
	RinqAsyncCall *call;

	hash_seq_init(&seq, calls);
	while ((call = hash_seq_search(&seq)) != NULL)
		rinq_async_cancel(call);
}

/*
 * Find the oldest of the calls that can be done without; what was awaited goes
 * first.
 */
static RinqAsyncCall *
find_oldest(void)
{
	HASH_SEQ_STATUS seq;
	RinqAsyncCall *call;
	RinqAsyncCall *oldest = NULL;

	hash_seq_init(&seq, calls);
	while ((call = hash_seq_search(&seq)) != NULL)
	{
		if (!has_async_result(call))
			continue;
		if (oldest == NULL || call->awaited > oldest->awaited ||
			(call->awaited == oldest->awaited && call->made < oldest->made))
			oldest = call;
	}
	return oldest;
}

/* forgets a call that was answered, for another one to be made */
static void
drop_async_result(RinqAsyncCall *call)
{
	if (call->awaited)
	{
		if (call->result_memory != NULL)
			pfree(call->result_memory);
	}
	else if (claim_async_slot(call))
	{
		rinq_call_release(call->db, call->index);
		rinq_count(call->db, RINQ_RESPONSES_DROPPED);
	}
	forget_async_call(call);
}

/* make room for another call, at the expense of results */
static void
make_room_for_call(void)
{
	RinqAsyncCall *oldest;

	if (hash_get_num_entries(calls) < rinq_max_async_calls)
		return;
	oldest = find_oldest();
	if (oldest != NULL)
		drop_async_result(oldest);
	else
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many asynchronous calls are in flight"),
				 errdetail("The setting \"rinq.max_async_calls\" allows %d for each connection.",
						   rinq_max_async_calls)));
}

static void
init_async_calls(void)
{
	if (calls != NULL)
		return;
	if (awaited_context == NULL)
		awaited_context = AllocSetContextCreate(TopMemoryContext, "rinq awaited results",
												ALLOCSET_DEFAULT_SIZES);
	calls = rinq_make_hash_table("rinq asynchronous calls", 64, sizeof(RinqMessageId), sizeof(RinqAsyncCall), TopMemoryContext);
	rinq_at_request_end(forget_all_async_calls);
	RegisterXactCallback(forget_awaited_at_xact_end, NULL);
}

/*
 * Make a call without waiting for it, with a message id that was allocated
 * before, or else one of this process's session.
 */
RinqAsyncCall *
rinq_async_call(RinqDatabase *db, const RinqFields *fields, int64 deadline,
				const RinqMessageId *id)
{
	RinqBytes	namespace = rinq_get_bytes(fields, RINQ_CALL_NAMESPACE);
	RinqBytes	command = rinq_get_bytes(fields, RINQ_CALL_COMMAND);
	RinqAsyncCall *volatile call = NULL;
	RinqSlot   *volatile slot = NULL;
	uint32 volatile index = RINQ_NO_SLOT;
	RinqMessageId key;
	char	   *texts;

	init_async_calls();
	make_room_for_call();
	texts = MemoryContextAllocZero(TopMemoryContext, namespace.len + command.len + 2);
	memcpy(texts, namespace.data, namespace.len);
	memcpy(texts + namespace.len + 1, command.data, command.len);
	PG_TRY();
	{
		index = rinq_call_submit(db, fields, deadline, true, id);
		slot = &rinq_slots_of(db)->slot[index];
		rinq_message_id_key(&slot->id, &key);
		call = hash_search(calls, &key, HASH_ENTER, NULL);
	}
	PG_CATCH();
	{
		pfree(texts);
		if (index != RINQ_NO_SLOT)
			rinq_call_release(db, index);
		PG_RE_THROW();
	}
	PG_END_TRY();
	call->db = db;
	call->index = index;
	Assert(slot->async && slot->owner == RINQ_MY_PROCNO);
	call->serial = slot->serial;
	call->made = made++;
	call->namespace = texts;
	call->command = texts + namespace.len + 1;
	call->awaited = false;
	return call;
}
