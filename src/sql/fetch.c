/*-------------------------------------------------------------------------
 *
 * fetch.c
 *	  rinq_notifications: fetching notifications that were buffered for a
 *	  session.
 *
 * The peer is asked for one at a time, when the statement wants it: what the
 * statement does not ask for stays with the peer, for the next fetch.  For
 * that, PostgreSQL has to read the function row by row, which it does not do
 * with functions in FROM, but with functions in the list of a SELECT; so the
 * install script wraps it in a query that PostgreSQL inlines.
 *
 * What a statement has read is kept here until it has ended.  When it fails,
 * the next one gets it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/own_schema.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "base/request_end.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "ipc/session_ids.h"
#include "lib/ilist.h"
#include "nodes/execnodes.h"
#include "protocol/notification.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/call_outcome.h"
#include "sql/session_ref.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rinq_notifications);

enum
{
	ARG_TIMEOUT,
	ARG_SESSION,
	ARG_MAX_ROWS
};

/* what a statement reads that does not say how many rows it wants */
#define PAGE_ROWS 1000
#define PAGE_BYTES (256 * 1024)

/* a statement that reads notifications */
typedef struct Reader
{
	MemoryContextCallback end;
	RinqSessionRef session;
	RinqOperationInput input;	/* of the next fetch */
	int64		deadline;		/* of the first one */
	int			rows;
	size_t		bytes;
	int			max_rows;		/* 0 when the statement does not say */
} Reader;

/*
 * A notification that the peer has handed over: a statement reads it now, or it
 * was read in vain, because the statement failed or was cancelled.
 */
typedef struct Fetched
{
	dlist_node	node;
	RinqSessionId session;
	Oid			role;			/* that got it */
	Reader	   *reader;			/* NULL: it is for the next statement */
	size_t		len;
	char		packed[FLEXIBLE_ARRAY_MEMBER];
} Fetched;

static dlist_head fetched = DLIST_STATIC_INIT(fetched);

static void
forget_fetched(Fetched *one)
{
	dlist_delete(&one->node);
	pfree(one);
}

/* Forget what was fetched by the statements of a request that is over. */
static void
forget_all_fetched(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &fetched)
		forget_fetched(dlist_container(Fetched, node, iter.cur));
}

/*
 * Keep what the peer has handed over, which may be nothing; false when there is
 * no memory for that.
 */
static bool
add_fetched(const RinqSessionRef *session, RinqBytes packed)
{
	dlist_mutable_iter iter;
	Fetched    *one;

	/* sessions of an earlier connection to the broker are gone */
	dlist_foreach_modify(iter, &fetched)
	{
		one = dlist_container(Fetched, node, iter.cur);
		if (one->reader == NULL &&
			!rinq_peer_id_equal(&one->session.peer, &session->ref.session.peer))
			forget_fetched(one);
	}
	if (packed.len == 0)
		return true;
	one = MemoryContextAllocExtended(TopMemoryContext, offsetof(Fetched, packed) + packed.len,
									 MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (one == NULL)
		return false;
	one->session = session->ref.session;
	one->role = GetUserId();
	one->reader = NULL;
	one->len = packed.len;
	memcpy(one->packed, packed.data, packed.len);
	dlist_push_tail(&fetched, &one->node);
	return true;
}

/*
 * Find the next notification that no statement reads; NULL when there is none.
 */
static Fetched *
find_fetched(const RinqSessionId *session)
{
	dlist_iter	iter;

	dlist_foreach(iter, &fetched)
	{
		Fetched    *one = dlist_container(Fetched, node, iter.cur);

		if (one->reader == NULL && rinq_session_id_equal(&one->session, session))
			return one;
	}
	return NULL;
}

/* Forget what a statement has read that has ended well. */
static void
reader_has_ended(Datum arg)
{
	Reader	   *reader = (Reader *) DatumGetPointer(arg);
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &fetched)
	{
		Fetched    *one = dlist_container(Fetched, node, iter.cur);

		if (one->reader == reader)
			forget_fetched(one);
	}
}

/*
 * Let go of what a statement has read and not forgotten, in vain, since its
 * memory goes.
 */
static void
reader_is_gone(void *arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &fetched)
	{
		Fetched    *one = dlist_container(Fetched, node, iter.cur);

		if (one->reader == arg)
			one->reader = NULL;
	}
}

/* ---------------- asking the peer ---------------- */

/*
 * Wait for the result of a fetch.  When the deadline passes, the fetch is
 * given up, unless it is answered in this moment: then *released is true, and
 * the slot is not this process's any more.
 */
static void
wait_for_fetch(RinqDatabase *db, uint32 index, RinqResult *result, volatile bool *released)
{
	rinq_call_wait(db, index, result);
	if (result->outcome != RINQ_OUTCOME_EXPIRED)
		return;
	*released = rinq_call_abandon(db, index);
	if (!*released)
		rinq_call_read_result(db, index, result);
}

/*
 * End a fetch whose statement has failed: what it was about to get is for the
 * next one, if it was not kept already and there is memory to keep it in.
 * Nothing here raises an error, since one is being raised.
 */
static void
end_failed_fetch(RinqDatabase *db, uint32 index, const RinqSessionRef *session)
{
	RinqResult	result;

	if (rinq_call_abandon(db, index))
		return;
	rinq_call_read_result(db, index, &result);
	if (result.outcome == RINQ_OUTCOME_SUCCESS &&
		find_fetched(&session->ref.session) == NULL)
		(void) add_fetched(session, rinq_get_bytes(&result.fields, RINQ_OP_RESULT_NOTIFICATION));
	rinq_call_release(db, index);
}

/*
 * Fetch one notification; the result is what the fetch was refused for, if not
 * RINQ_OUTCOME_SUCCESS.
 */
static RinqOutcome
fetch_notification(RinqDatabase *db, const Reader *reader, bool privilege_checked, int64 deadline,
				   RinqFields *refused)
{
	const RinqSessionRef *session = &reader->session;
	RinqFields	fields;
	RinqResult	result;
	uint32		index;
	volatile bool released = false;

	rinq_at_request_end(forget_all_fetched);
	rinq_operation_fields(&reader->input, &fields);
	index = rinq_operation_submit(db, RINQ_OP_FETCH, &session->ref, true, GetUserId(), privilege_checked,
								  &fields, deadline);
	PG_TRY();
	{
		wait_for_fetch(db, index, &result, &released);
		if (result.outcome == RINQ_OUTCOME_SUCCESS &&
			!add_fetched(session, rinq_get_bytes(&result.fields, RINQ_OP_RESULT_NOTIFICATION)))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory"),
					 errdetail("A notification of %zu bytes was fetched.",
							   rinq_get_bytes(&result.fields, RINQ_OP_RESULT_NOTIFICATION).len)));
		if (result.outcome >= RINQ_OUTCOME_REFUSED)
		{
			*refused = result.fields;
			(void) rinq_fields_copy(refused);
		}
		else if (result.outcome != RINQ_OUTCOME_SUCCESS && result.outcome != RINQ_OUTCOME_EXPIRED)
			rinq_call_raise(&result, "_sess", session->text);
	}
	PG_CATCH();
	{
		if (!released)
			end_failed_fetch(db, index, session);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!released)
		rinq_call_release(db, index);
	return result.outcome;
}

/* fetch the next one, as the peer's own roles allow */
static void
fetch_next(Reader *reader)
{
	RinqSessionRef *session = &reader->session;
	int64		deadline = reader->rows == 0 ? reader->deadline : rinq_call_deadline(NULL);
	RinqDatabase *db = rinq_require_connection(rinq_call_deadline(NULL));
	RinqFields	result;
	RinqOutcome outcome;

	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	outcome = fetch_notification(db, reader, false, deadline, &result);
	if (outcome == RINQ_OUTCOME_NOT_OURS &&
		rinq_may_use(RINQ_OP_FETCH, session, rinq_get_oid(&result, RINQ_OP_RESULT_OWNER)))
		outcome = fetch_notification(db, reader, true, deadline, &result);
	if (outcome == RINQ_OUTCOME_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no notifications are buffered for session \"%s\"", session->text),
				 errdetail_internal("%s", rinq_message_from_wire(rinq_get_bytes(&result, RINQ_OP_RESULT_TEXT))),
				 errhint("Use rinq_session_listen(session, namespace).")));
	if (outcome != RINQ_OUTCOME_SUCCESS && outcome != RINQ_OUTCOME_EXPIRED)
		rinq_operation_refused(outcome, session, NULL, &result);
}

/*
 * Check whether the current role may get what was read in vain.  The peer is
 * not asked again, and the role may be another one than when it was.
 */
static void
check_fetched(const Fetched *one, const RinqSessionRef *session)
{
	RinqDatabase *db = rinq_my_database();
	RinqSessionId own;
	RinqFields	result;

	if (one->role == GetUserId() ||
		(db != NULL && rinq_session_current(db, rinq_client_number(), &own) &&
		 rinq_session_id_equal(&own, &session->ref.session)))
		return;
	if (rinq_may_use(RINQ_OP_FETCH, session, one->role))
		return;
	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_oid(&result, RINQ_OP_RESULT_OWNER, one->role);
	rinq_operation_refused(RINQ_OUTCOME_NOT_OURS, session, NULL, &result);
}

/* ---------------- rows ---------------- */

/* Make a notification a row; one that cannot be converted is an error. */
static Datum
row_of(Fetched *one, TupleDesc desc)
{
	RinqBytes	rest = rinq_bytes(one->packed, one->len);
	RinqFields	fields;
	Datum		values[RINQ_NOTIFICATION_COLUMNS];
	bool		nulls[RINQ_NOTIFICATION_COLUMNS];
	Datum		row = (Datum) 0;

	PG_TRY();
	{
		if (!rinq_fields_read(&fields, RINQ_KIND_NOTIFICATION, &rest) || rest.len > 0)
			elog(ERROR, "malformed notification");
		rinq_notification_row(&fields, values, nulls);
		row = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (category != ERRCODE_OPERATOR_INTERVENTION &&
			category != ERRCODE_INSUFFICIENT_RESOURCES)
			forget_fetched(one);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return row;
}

/* Return the next notification for a statement; NULL when it gets no more. */
static Fetched *
next_fetched(Reader *reader)
{
	const RinqSessionId *session = &reader->session.ref.session;
	Fetched    *one;

	if (reader->max_rows > 0 ? reader->rows >= reader->max_rows :
		(reader->rows >= PAGE_ROWS || reader->bytes >= PAGE_BYTES))
		return NULL;
	one = find_fetched(session);
	if (one == NULL)
	{
		fetch_next(reader);
		one = find_fetched(session);
	}
	else
		check_fetched(one, &reader->session);
	reader->input.wait = false; /* only the first one is waited for */
	if (one == NULL)
		return NULL;
	reader->rows++;
	reader->bytes += one->len;
	return one;
}

/* ---------------- arguments ---------------- */

/*
 * Check the privilege to execute rinq_notifications, in whose place this
 * function is put: a role that has it may execute this one.
 */
static void
check_privilege(FunctionCallInfo fcinfo)
{
	Oid			types[] = {INTERVALOID, TEXTOID, INT4OID};
	Oid			func = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
									   CStringGetDatum("rinq_notifications"),
									   PointerGetDatum(buildoidvector(types, lengthof(types))),
									   ObjectIdGetDatum(rinq_extension_schema()));

	if (!OidIsValid(func) || !rinq_can_execute(func, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, "rinq_notifications");
}

static void
read_timeout(Reader *reader, const Interval *timeout)
{
	int64		now = rinq_clock_ms();

	reader->deadline = rinq_call_deadline(NULL);
	if (timeout->time == 0 && timeout->day == 0 && timeout->month == 0)
		return;
	reader->input.wait = true;
	reader->deadline = now + rinq_interval_ms(timeout);
	if (rinq_inherited.deadline != 0)
		reader->deadline = Max(now, Min(reader->deadline, rinq_inherited.deadline));
}

static Reader *
new_reader(FunctionCallInfo fcinfo)
{
	ExprContext *expression = ((ReturnSetInfo *) fcinfo->resultinfo)->econtext;
	MemoryContext old = MemoryContextSwitchTo(expression->ecxt_per_query_memory);
	Reader	   *reader = palloc0(sizeof(Reader));

	if (PG_ARGISNULL(ARG_TIMEOUT))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null")));
	read_timeout(reader, PG_GETARG_INTERVAL_P(ARG_TIMEOUT));
	if (!PG_ARGISNULL(ARG_MAX_ROWS))
		reader->max_rows = PG_GETARG_INT32(ARG_MAX_ROWS);
	if (!PG_ARGISNULL(ARG_MAX_ROWS) && reader->max_rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must be positive")));
	if (PG_ARGISNULL(ARG_SESSION))
		rinq_session_ref_own(rinq_require_connection(rinq_call_deadline(NULL)), &reader->session);
	else
		rinq_session_argument(fcinfo, ARG_SESSION, &reader->session);
	reader->end.func = reader_is_gone;
	reader->end.arg = reader;
	MemoryContextRegisterResetCallback(expression->ecxt_per_query_memory, &reader->end);
	RegisterExprContextCallback(expression, reader_has_ended, PointerGetDatum(reader));
	MemoryContextSwitchTo(old);
	return reader;
}

/*
 * rinq_notifications(timeout interval, session text, max_rows integer) returns
 * setof rinq_notification
 *
 * Notifications that were buffered for a session, the connection's own if it
 * is NULL; waits for the next one, at most for the timeout, when there is
 * none.  Those that a statement has read are forgotten when it has ended,
 * whatever becomes of the transaction.
 */
Datum
rinq_notifications(PG_FUNCTION_ARGS)
{
	FuncCallContext *calls;
	Reader	   *reader;
	Fetched    *one;
	Datum		row;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc	desc;

		rinq_refuse_parallel(fcinfo);
		check_privilege(fcinfo);
		rinq_require_preloaded();
		calls = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(calls->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
			desc->natts != RINQ_NOTIFICATION_COLUMNS)
			elog(ERROR, "return type must be a row type");
		calls->tuple_desc = BlessTupleDesc(desc);
		MemoryContextSwitchTo(old);
		calls->user_fctx = new_reader(fcinfo);
	}
	calls = SRF_PERCALL_SETUP();
	reader = calls->user_fctx;
	one = next_fetched(reader);
	if (one == NULL)
		SRF_RETURN_DONE(calls);
	row = row_of(one, calls->tuple_desc);
	one->reader = reader;
	SRF_RETURN_NEXT(calls, row);
}
