/*-------------------------------------------------------------------------
 *
 * async.c
 *	  Calls of this connection that nobody waits for yet.
 *
 * Such a call keeps its slot until somebody awaits or cancels it, or the
 * connection ends; but not for ever: a connection may have so many of them,
 * and some time after its deadline the peer takes an answer back that nobody
 * has asked for.  Whoever claims the slot first, by its serial number, has it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "async.h"
#include "guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

static HTAB *calls = NULL;
static int64 made = 0;

static RinqSlot *
slot_of(RinqDatabase *db, const RinqAsyncCall *call)
{
	return &rinq_channel_of(db)->slots[call->index];
}

/*
 * The call of this id, or NULL.
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

/*
 * Has the call ended?  True also when its answer was dropped.
 */
bool
rinq_async_answered(RinqDatabase *db, const RinqAsyncCall *call)
{
	RinqSlot   *slot = slot_of(db, call);

	return pg_atomic_read_u32(&slot->claim) != call->serial ||
		pg_atomic_read_u32(&slot->state) == RINQ_SLOT_DONE ||
		db->incarnation != slot->incarnation;
}

/*
 * Makes the slot of a call this process's own, to be released like any; false
 * when the peer has taken it back.
 */
bool
rinq_async_take(RinqDatabase *db, RinqAsyncCall *call)
{
	uint32		expected = call->serial;

	return pg_atomic_compare_exchange_u32(&slot_of(db, call)->claim, &expected,
										  RINQ_CLAIMED_BY_OWNER);
}

void
rinq_async_forget(RinqAsyncCall *call)
{
	pfree(call->namespace);
	pfree(call->command);
	hash_search(calls, &call->id, HASH_REMOVE, NULL);
}

/*
 * Makes room for another call: what was dropped already is forgotten, else the
 * oldest answer is dropped.
 */
static void
make_room(RinqDatabase *db)
{
	HASH_SEQ_STATUS seq;
	RinqAsyncCall *call;
	RinqAsyncCall *oldest = NULL;

	if (hash_get_num_entries(calls) < rinq_max_async_calls)
		return;
	hash_seq_init(&seq, calls);
	while ((call = hash_seq_search(&seq)) != NULL)
	{
		if (!rinq_async_answered(db, call))
			continue;
		if (oldest == NULL || call->made < oldest->made)
			oldest = call;
	}
	if (oldest != NULL)
	{
		if (rinq_async_take(db, oldest))
		{
			rinq_call_release(db, oldest->index);
			rinq_count(db, RINQ_RESPONSES_DROPPED);
		}
		rinq_async_forget(oldest);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many asynchronous calls are in flight"),
			 errdetail("The setting \"rinq.max_async_calls\" allows %d for each connection.",
					   rinq_max_async_calls)));
}

/*
 * Makes a call without waiting for it, with a message id that was drawn before,
 * or else one of this process's session.
 */
RinqAsyncCall *
rinq_async_call(RinqDatabase *db, const RinqBytes *fields, int64 deadline,
				const RinqMessageId *id)
{
	RinqAsyncCall *call;
	RinqMessageId key;
	MemoryContext old;
	RinqSlot   *slot;
	char	   *namespace;
	char	   *command;
	uint32		index;

	if (calls == NULL)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = sizeof(RinqMessageId);
		ctl.entrysize = sizeof(RinqAsyncCall);
		ctl.hcxt = TopMemoryContext;
		calls = hash_create("rinq asynchronous calls", 64, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	make_room(db);
	old = MemoryContextSwitchTo(TopMemoryContext);
	namespace = pnstrdup(fields[RINQ_CALL_NAMESPACE].data, fields[RINQ_CALL_NAMESPACE].len);
	command = pnstrdup(fields[RINQ_CALL_COMMAND].data, fields[RINQ_CALL_COMMAND].len);
	MemoryContextSwitchTo(old);
	PG_TRY();
	{
		index = rinq_call_submit(db, fields, deadline, true, id);
	}
	PG_CATCH();
	{
		pfree(namespace);
		pfree(command);
		PG_RE_THROW();
	}
	PG_END_TRY();

	slot = &rinq_channel_of(db)->slots[index];
	rinq_message_id_key(&slot->id, &key);
	call = hash_search(calls, &key, HASH_ENTER, NULL);
	call->index = index;
	call->serial = slot->serial;
	call->made = made++;
	call->namespace = namespace;
	call->command = command;
	return call;
}
