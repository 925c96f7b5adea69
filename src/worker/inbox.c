/*-------------------------------------------------------------------------
 *
 * inbox.c
 *	  What is written down about requests: how often one was attempted that
 *	  the broker delivers again, which ones were given up, and which ones were
 *	  handled and must not be handled twice.
 *
 * Attempts are committed before the attempt, or they would be forgotten with
 * what they count; that a request was handled belongs into the handler's own
 * transaction.
 *
 * A request is not known by its id alone, which any peer on the network can
 * write on a message: a digest of what it asks for is part of each key.  So
 * only a message that is the same one in all that matters is taken for a
 * repetition.
 *
 * What is deleted again, and when, is purge.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "backend/commit_queue.h"
#include "backend/handler_rules.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/request_context.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "guc.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/cleanup.h"
#include "worker/inbox.h"
#include "worker/response.h"

#define LOCK_TIMEOUT "5s"		/* of what is written down before an attempt */

static void
digest_update(pg_cryptohash_ctx *context, const void *data, size_t len)
{
	if (pg_cryptohash_update(context, data, len) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
}

/*
 * Compute the digest of what a request asks for, and whether its response is
 * wanted.
 */
static Datum
digest_datum(const RinqSlot *slot, const RinqFields *fields)
{
	static const int parts[] = {
		RINQ_REQUEST_NAMESPACE, RINQ_REQUEST_COMMAND, RINQ_REQUEST_PAYLOAD
	};
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8		wanted = slot->wants_response ? 1 : 0;
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	int			i;

	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(context) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
	digest_update(context, &wanted, sizeof(wanted));
	for (i = 0; i < (int) lengthof(parts); i++)
	{
		RinqBytes	part = rinq_get_bytes(fields, parts[i]);
		uint64		len = part.len;

		digest_update(context, &len, sizeof(len));
		if (len > 0)
			digest_update(context, part.data, len);
	}
	if (pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
	{
		pg_cryptohash_free(context);
		elog(ERROR, "could not compute a digest of a request");
	}
	pg_cryptohash_free(context);
	return PointerGetDatum(rinq_bytes_to_bytea(rinq_bytes((const char *) digest, sizeof(digest))));
}

/* Return an integer of the first row that a statement has returned. */
static int
first_integer(void)
{
	bool		isnull;

	Assert(SPI_processed > 0);
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Count an attempt at a request that was delivered before, if there may be
 * another one: the first attempt was not counted, and so this is the second at
 * least.  Returns false when there may not, and how many there were.
 */
static bool
record_attempt(const RinqSlot *slot, const RinqFields *fields, int *attempts)
{
	RinqOwnTable table;
	Oid			types[3] = {TEXTOID, BYTEAOID, INT4OID};
	Datum		values[3];
	bool		counted;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_attempt");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = digest_datum(slot, fields);
	values[2] = Int32GetDatum(rinq_max_attempts);
	counted = rinq_own_table_execute(psprintf("INSERT INTO %s AS a (id, digest, attempts, first, last)"
											  " VALUES ($1, $2, CASE WHEN $3 OPERATOR(pg_catalog.<) 2 THEN 1 ELSE 2 END,"
											  " pg_catalog.now(), pg_catalog.now())"
											  " ON CONFLICT (id, digest) DO UPDATE SET"
											  " attempts = a.attempts OPERATOR(pg_catalog.+) 1, last = excluded.last"
											  " WHERE a.attempts OPERATOR(pg_catalog.<) $3"
											  " RETURNING attempts", table.name),
									 3, types, values, NULL) > 0;
	if (!counted &&
		rinq_own_table_execute(psprintf("SELECT attempts FROM %s WHERE id OPERATOR(pg_catalog.=) $1"
										" AND digest OPERATOR(pg_catalog.=) $2", table.name),
							   2, types, values, NULL) == 0)
		elog(ERROR, "the attempts at a request are not counted any more");
	*attempts = first_integer();
	rinq_own_table_close(&table);
	return counted && rinq_max_attempts > 1;
}

/*
 * Set a request aside, for an administrator to look at.
 */
static void
record_dead(const RinqSlot *slot, const RinqFields *fields, int attempts, const char *error)
{
	RinqBytes	handler = rinq_get_bytes(fields, RINQ_REQUEST_HANDLER);
	RinqOwnTable table;
	Oid			types[10] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, TEXTOID, TEXTOID,
		INT4OID, TEXTOID, BYTEAOID
	};
	Datum		values[10];
	char		nulls[10];

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_dead_letter");
	memset(nulls, ' ', sizeof(nulls));
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_SOURCE));
	values[2] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_NAMESPACE));
	values[3] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_COMMAND));
	values[4] = PointerGetDatum(rinq_bytes_to_bytea(rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD)));
	if (rinq_get_bytes(fields, RINQ_REQUEST_PAYLOAD).len == 0)
		nulls[4] = 'n';
	values[5] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_TRACE));
	values[6] = CStringGetTextDatum(rinq_handler_name(pnstrdup(handler.data, handler.len)));
	values[7] = Int32GetDatum(attempts);
	values[8] = CStringGetTextDatum(error);
	values[9] = digest_datum(slot, fields);
	(void) rinq_own_table_execute(psprintf("INSERT INTO %s (id, source, namespace, command,"
										   " payload, trace_id, handler, attempts, error, digest, recorded)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
										   " pg_catalog.now()) ON CONFLICT (id, digest) DO NOTHING",
										   table.name),
								  10, types, values, nulls);
	rinq_own_table_close(&table);
}

/*
 * Return the response in the row that a statement has returned, in the memory
 * of a context.
 */
static RinqBytes
found_response(const RinqSlot *slot, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	bool		dropped = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
													 2, &isnull));
	MemoryContext old;
	bytea	   *found;

	if (dropped && slot->wants_response)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the request was handled before, and its response is not kept any more")));
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return rinq_bytes("", 0);
	old = MemoryContextSwitchTo(context);
	found = DatumGetByteaPCopy(value);
	MemoryContextSwitchTo(old);
	return rinq_bytes(VARDATA(found), VARSIZE(found) - VARHDRSZ);
}

/*
 * Find out whether this request was handled before: then *payload is what it
 * was answered; if not, it is noted as handled, if the transaction commits.  A
 * transaction that is handling the same request is waited for.
 */
bool
rinq_inbox_was_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes *payload)
{
	RinqOwnTable table;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[3] = {TEXTOID, BYTEAOID, TEXTOID};
	Datum		values[3];
	bool		handled;

	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = digest_datum(slot, fields);
	values[2] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_NAMESPACE));
	for (;;)
	{
		handled = rinq_own_table_execute(psprintf("INSERT INTO %s (id, digest, namespace, handled)"
												  " VALUES ($1, $2, $3, pg_catalog.now())"
												  " ON CONFLICT (id, digest) DO NOTHING", table.name),
										 3, types, values, NULL) == 0;
		if (!handled)
			break;
		if (rinq_own_table_execute(psprintf("SELECT payload, is_payload_dropped FROM %s"
											" WHERE id OPERATOR(pg_catalog.=) $1"
											" AND digest OPERATOR(pg_catalog.=) $2", table.name),
								   2, types, values, NULL) == 0)
			continue;			/* deleted in this moment, by a purge */
		*payload = found_response(slot, context);
		break;
	}
	rinq_own_table_close(&table);
	return handled;
}

/*
 * Note the response to a request, if it may ever be asked for again.
 */
void
rinq_inbox_handled(const RinqSlot *slot, const RinqFields *fields, RinqBytes payload)
{
	RinqOwnTable table;
	Oid			types[3] = {TEXTOID, BYTEAOID, BYTEAOID};
	Datum		values[3];

	if (payload.len == 0 || !slot->wants_response)
		return;					/* nil, as the row says already */
	rinq_own_table_open(&table, rinq_internal_schema(), "inbox_handled");
	values[0] = rinq_text_datum(rinq_get_bytes(fields, RINQ_REQUEST_ID));
	values[1] = digest_datum(slot, fields);
	values[2] = PointerGetDatum(rinq_bytes_to_bytea(payload));
	(void) rinq_own_table_execute(psprintf("UPDATE %s SET payload = $3"
										   " WHERE id OPERATOR(pg_catalog.=) $1"
										   " AND digest OPERATOR(pg_catalog.=) $2", table.name),
								  3, types, values, NULL);
	rinq_own_table_close(&table);
}

/*
 * Do some bookkeeping in a transaction of its own; when it fails, that is
 * logged, and the request goes on without it.
 */
void
rinq_keep_books(void (*work) (void *arg), void *arg, bool durably, const char *lock_timeout,
				MemoryContext context)
{
	PG_TRY();
	{
		StartTransactionCommand();

		/* whatever the role has set for its own transactions */
		XactReadOnly = false;
		XactIsoLevel = XACT_READ_COMMITTED;
		(void) set_config_option("lock_timeout", lock_timeout, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
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
}

typedef struct Attempt
{
	const RinqSlot *slot;
	const RinqFields *fields;
	bool		may_go_on;
	int			attempts;		/* this attempt included, if it may go on */
	char		error[64];
} Attempt;

static void
count_attempt(void *arg)
{
	Attempt    *attempt = arg;

	attempt->may_go_on = record_attempt(attempt->slot, attempt->fields, &attempt->attempts);
}

static void
set_request_aside(void *arg)
{
	Attempt    *attempt = arg;

	record_dead(attempt->slot, attempt->fields, attempt->attempts, attempt->error);
}

/*
 * Count an attempt at a request that the broker has delivered before: it may
 * have ended its executor, or the whole server, each time.  After some attempts
 * it is answered with an error, and set aside; then the result is true.
 */
bool
rinq_inbox_give_up(RinqSlot *slot, const RinqFields *fields, MemoryContext context)
{
	Attempt		attempt;

	/* a standby counts nothing; the peer waits longer between its attempts */
	if (!slot->redelivered || rinq_max_attempts == 0 || RecoveryInProgress())
		return false;
	attempt.slot = slot;
	attempt.fields = fields;
	attempt.may_go_on = true;	/* also when it cannot be counted */
	rinq_keep_books(count_attempt, &attempt, true, LOCK_TIMEOUT, context);
	if (attempt.may_go_on)
		return false;
	snprintf(attempt.error, sizeof(attempt.error), "the request was given up after %d attempts",
			 attempt.attempts);
	ereport(LOG,
			(errmsg("rinq gives up a request after %d attempts", attempt.attempts),
			 errhint("Look at the view rinq_inbox_dead_letter.")));
	rinq_keep_books(set_request_aside, &attempt, true, LOCK_TIMEOUT, context);
	rinq_result_plainly(slot, attempt.error);
	return true;
}
