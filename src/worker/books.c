/*-------------------------------------------------------------------------
 *
 * books.c
 *	  What all files share that write down something about requests: the
 *	  transaction in which that is done, and by what a request is known.
 *
 * A request is not known by its id alone, which any peer on the network can
 * write on a message: a digest of what it asks for is part of each key.  So
 * only a message that is the same one in all that matters is taken for a
 * repetition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "backend/commit_queue.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "protocol/payload.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "worker/books.h"
#include "worker/cleanup.h"

static void
digest_update(pg_cryptohash_ctx *context, const void *data, size_t len)
{
	if (pg_cryptohash_update(context, data, len) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
}

static void
digest_update_field(pg_cryptohash_ctx *context, const RinqFields *fields, int field)
{
	RinqBytes	part = rinq_get_bytes(fields, field);
	uint64		len = part.len;

	digest_update(context, &len, sizeof(len));
	if (len > 0)
		digest_update(context, part.data, len);
}

/*
 * Compute the digest of what a request asks for, and whether its response is
 * wanted; or of what a notification says, and which subscription it is for.
 */
Datum
rinq_request_digest(const RinqSlot *slot, const RinqFields *fields)
{
	const RinqCommonFields *common = rinq_common_fields_of(fields);
	bool		is_notification = fields->kind == RINQ_KIND_NOTIFICATION;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8		what = is_notification ? 2 : slot->wants_response ? 1 : 0;
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(context) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
	digest_update(context, &what, sizeof(what));
	digest_update_field(context, fields, common->namespace);
	digest_update_field(context, fields, common->subject);
	digest_update_field(context, fields, common->payload);
	if (is_notification)
		digest_update_field(context, fields, RINQ_NOTIFICATION_SUBSCRIPTION);
	if (pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
	pg_cryptohash_free(context);
	return PointerGetDatum(rinq_bytes_to_bytea(rinq_bytes((const char *) digest, sizeof(digest))));
}

/* Set something until the transaction ends. */
static void
set_for_transaction(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Do some bookkeeping in a transaction of its own; when it fails, that is
 * logged, and the result is false.
 */
bool
rinq_keep_books(void (*work) (void *arg), void *arg, bool durably, const char *lock_timeout,
				MemoryContext context)
{
	volatile bool done = false;

	/* what this transaction takes for the time */
	SetCurrentStatementStartTimestamp();
	PG_TRY();
	{
		StartTransactionCommand();

		/* whatever the role has set for its own transactions */
		XactReadOnly = false;
		XactIsoLevel = XACT_READ_COMMITTED;
		set_for_transaction("lock_timeout", lock_timeout);

		/* a removal that a standby does not have yet is no reason to wait */
		if (!durably && synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
			set_for_transaction("synchronous_commit", "local");
		PushActiveSnapshot(GetTransactionSnapshot());
		work(arg);
		PopActiveSnapshot();

		/*
		 * the server may end in the attempt that is counted, or the request
		 * be acknowledged
		 */
		if (durably)
			rinq_commit_durably();
		CommitTransactionCommand();
		done = true;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		rinq_end_failed_transaction(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}
