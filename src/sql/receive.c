/*-------------------------------------------------------------------------
 *
 * receive.c
 *	  Sessions that listen to notifications, and fetching those that were kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "clock.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "notification.h"
#include "payload.h"
#include "request.h"
#include "session.h"
#include "sql/arguments.h"
#include "sql/call.h"
#include "sql/listen.h"
#include "sql/parallel.h"
#include "sql/resultset.h"
#include "sql/target.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_session_listen);
PG_FUNCTION_INFO_V1(rinq_session_unlisten);
PG_FUNCTION_INFO_V1(rinq_notifications);

/*
 * What the peer has handed over for a session and no statement has returned:
 * because it was cancelled, or one of the notifications could not be converted.
 */
typedef struct LeftOver
{
	dlist_node	node;
	RinqSessionId session;
	Oid			role;			/* that got it */
	size_t		len;
	char		packed[FLEXIBLE_ARRAY_MEMBER];
} LeftOver;

static dlist_head left_overs = DLIST_STATIC_INIT(left_overs);

/*
 * rinq_session_listen(session text, namespace text, handler regprocedure,
 * channel text) returns void
 *
 * Has notifications to a session, in a namespace, handled by a function as the
 * current role, or forwarded to a channel of LISTEN and NOTIFY, or, with
 * neither, kept for rinq_notifications.  They come from when it returns.
 */
Datum
rinq_session_listen(PG_FUNCTION_ARGS)
{
	RinqTarget	target;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_argument(fcinfo, 0, &target);
	memset(&input, 0, sizeof(input));
	input.namespace = rinq_namespace_argument(fcinfo, 1);
	input.mode = RINQ_RECEIVE_KEEP;
	input.handler = "";
	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("handler and channel cannot be used together")));
	if (!PG_ARGISNULL(2))
	{
		rinq_handler_input(PG_GETARG_OID(2), RINQ_WORK_NOTIFICATION, &input);
		input.mode = RINQ_RECEIVE_HANDLER;
	}
	else if (!PG_ARGISNULL(3))
	{
		input.handler = rinq_text_argument(fcinfo, 3, "channel");
		if (input.handler[0] == '\0' || strlen(input.handler) >= NAMEDATALEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid channel \"%s\"", input.handler),
					 errdetail("The name of a channel has 1 to %d bytes.", NAMEDATALEN - 1)));
		rinq_check_handler_role(GetUserId());
		input.mode = RINQ_RECEIVE_CHANNEL;
	}
	rinq_operate(RINQ_OP_LISTEN, &target, &input, &result);
	PG_RETURN_VOID();
}

/*
 * rinq_session_unlisten(session text, namespace text) returns boolean
 *
 * Ends that; false when the session did not listen.
 */
Datum
rinq_session_unlisten(PG_FUNCTION_ARGS)
{
	RinqTarget	target;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_argument(fcinfo, 0, &target);
	memset(&input, 0, sizeof(input));
	input.namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_operate(RINQ_OP_UNLISTEN, &target, &input, &result);
	PG_RETURN_BOOL(result.text[0] == 't');
}

static LeftOver *
find_left_over(const RinqSessionId *session)
{
	dlist_iter	iter;

	dlist_foreach(iter, &left_overs)
	{
		LeftOver   *left = dlist_container(LeftOver, node, iter.cur);

		if (rinq_session_id_equal(&left->session, session))
			return left;
	}
	return NULL;
}

static void
forget_left_over(LeftOver *left)
{
	dlist_delete(&left->node);
	pfree(left);
}

/* the request whose statements have fetched is over */
static void
forget_left_overs(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &left_overs)
		forget_left_over(dlist_container(LeftOver, node, iter.cur));
}

/*
 * Keep what the peer has handed over until a statement has returned it; false
 * when there is no memory for that, and nothing is kept.
 */
static bool
add_left_over(const RinqTarget *target, RinqBytes page)
{
	dlist_mutable_iter iter;
	LeftOver   *left;

	/* sessions of an earlier connection to the broker are gone */
	dlist_foreach_modify(iter, &left_overs)
	{
		left = dlist_container(LeftOver, node, iter.cur);
		if (!rinq_peer_id_equal(&left->session.peer, &target->ref.session.peer))
			forget_left_over(left);
	}
	if (page.len == 0)
		return true;
	left = MemoryContextAllocExtended(TopMemoryContext, offsetof(LeftOver, packed) + page.len,
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (left == NULL)
		return false;
	left->session = target->ref.session;
	left->role = GetUserId();
	left->len = page.len;
	memcpy(left->packed, page.data, page.len);
	dlist_push_tail(&left_overs, &left->node);
	return true;
}

/*
 * Wait for the answer to a fetch.  When the deadline passes, the fetch is given
 * up, unless it is answered in this moment: then *released is true, and the
 * slot is not this process's any more.
 */
static void
wait_for_fetch(RinqDatabase *db, uint32 index, RinqAnswer *answer, volatile bool *released)
{
	rinq_call_wait(db, index, answer);
	if (answer->outcome != RINQ_OUTCOME_EXPIRED)
		return;
	*released = rinq_call_abandon(db, index);
	if (!*released)
		rinq_call_answer(db, index, answer);
}

/*
 * End a fetch whose statement has failed: what it was about to get is for the
 * next one, if it was not kept already and there is memory to keep it in.
 * Nothing here raises an error, since one is being raised.
 */
static void
end_failed_fetch(RinqDatabase *db, uint32 index, const RinqTarget *target)
{
	RinqAnswer	answer;

	if (rinq_call_abandon(db, index))
		return;
	rinq_call_answer(db, index, &answer);
	if (answer.outcome == RINQ_OUTCOME_SUCCESS &&
		find_left_over(&target->ref.session) == NULL)
		(void) add_left_over(target, answer.fields[RINQ_ANSWER_PAYLOAD]);
	rinq_call_release(db, index);
}

/* one fetch; the result is what it was refused for, if not RINQ_OUTCOME_SUCCESS */
static RinqOutcome
fetch(RinqDatabase *db, const RinqTarget *target, const RinqOperationInput *input, bool trusted,
	  int64 deadline, char **text)
{
	RinqBytes	fields[RINQ_OP_FIELDS];
	RinqAnswer	answer;
	uint32		index;
	volatile bool released = false;

	rinq_at_request_end(forget_left_overs);
	rinq_operation_fields(input, fields);
	index = rinq_operation_submit(db, RINQ_OP_FETCH, &target->ref, true, GetUserId(), trusted,
								  fields, RINQ_OP_FIELDS, deadline);
	PG_TRY();
	{
		wait_for_fetch(db, index, &answer, &released);
		if (answer.outcome == RINQ_OUTCOME_SUCCESS &&
			!add_left_over(target, answer.fields[RINQ_ANSWER_PAYLOAD]))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory"),
					 errdetail("Notifications of %zu bytes were fetched.",
							   answer.fields[RINQ_ANSWER_PAYLOAD].len)));
		if (answer.outcome >= RINQ_OUTCOME_REFUSED)
			*text = rinq_answer_text(&answer);
		else if (answer.outcome != RINQ_OUTCOME_SUCCESS && answer.outcome != RINQ_OUTCOME_EXPIRED)
			rinq_call_raise(&answer, "_sess", target->text);
	}
	PG_CATCH();
	{
		if (!released)
			end_failed_fetch(db, index, target);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!released)
		rinq_call_release(db, index);
	return answer.outcome;
}

/*
 * Returns what was handed over.  One that cannot be converted is an error, and
 * skipped the next time; those before and behind it are not lost.
 */
static void
return_left_over(RinqResultSet *set, LeftOver *left)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "rinq notification",
											  ALLOCSET_DEFAULT_SIZES);
	RinqBytes	rest = rinq_bytes(left->packed, left->len);
	const char *volatile begin = NULL;
	const char *volatile end = NULL;

	PG_TRY();
	{
		while (rest.len > 0)
		{
			RinqBytes	fields[RINQ_NOTIFICATION_FIELDS];
			Datum		values[RINQ_NOTIFICATION_COLUMNS];
			bool		nulls[RINQ_NOTIFICATION_COLUMNS];
			MemoryContext old = MemoryContextSwitchTo(row);

			begin = rest.data;
			if (!rinq_notification_unpack(&rest, fields))
				elog(ERROR, "malformed notifications");
			end = rest.data;
			rinq_notification_row(fields, values, nulls);
			rinq_resultset_put(set, values, nulls);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row);
		}
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (end > begin && ERRCODE_TO_CATEGORY(code) != ERRCODE_OPERATOR_INTERVENTION &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_INSUFFICIENT_RESOURCES)
		{
			size_t		behind = (size_t) (left->packed + left->len - end);

			memmove(left->packed + (begin - left->packed), end, behind);
			left->len -= (size_t) (end - begin);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextDelete(row);
	forget_left_over(left);
}

/*
 * May the current role get what was left over?  The peer is not asked again,
 * and the role may be another one than when it was.
 */
static void
check_left_over(const LeftOver *left, RinqDatabase *db, const RinqTarget *target)
{
	RinqSessionId own;
	char		role[16];

	if (left->role == GetUserId() ||
		(rinq_session_current(db, rinq_client_number(), &own) &&
		 rinq_session_id_equal(&own, &target->ref.session)))
		return;
	snprintf(role, sizeof(role), "%u", left->role);
	if (!rinq_may_use(RINQ_OP_FETCH, target, role))
		rinq_operation_refused(RINQ_OUTCOME_NOT_OURS, target, NULL, role);
}

/*
 * rinq_notifications(timeout interval, session text) returns setof
 * rinq_notification
 *
 * Notifications that were kept for a session, the connection's own if it is
 * NULL; waits for the next one, at most for the timeout, when there is none.
 * They are forgotten by that, whatever becomes of the transaction.
 */
Datum
rinq_notifications(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqTarget	target;
	RinqOperationInput input;
	RinqDatabase *db;
	LeftOver   *left;
	RinqOutcome outcome;
	Interval   *timeout;
	int64		deadline = rinq_call_deadline(NULL);
	char	   *text = NULL;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null")));
	timeout = PG_GETARG_INTERVAL_P(0);
	memset(&input, 0, sizeof(input));
	if (timeout->time != 0 || timeout->day != 0 || timeout->month != 0)
	{
		int64		now = rinq_clock_ms();

		input.mode = 'w';
		deadline = now + rinq_interval_ms(timeout);
		if (rinq_inherited.deadline != 0)
			deadline = Max(now, Min(deadline, rinq_inherited.deadline));
	}
	rinq_resultset_begin(fcinfo, &set, RINQ_NOTIFICATION_COLUMNS);
	db = rinq_require_connection(rinq_call_deadline(NULL));
	if (PG_ARGISNULL(1))
		rinq_target_own(db, &target);
	else
		rinq_session_argument(fcinfo, 1, &target);
	left = find_left_over(&target.ref.session);
	if (left != NULL && left->len > 0)
	{
		check_left_over(left, db, &target);
		return_left_over(&set, left);
		return (Datum) 0;
	}
	if (left != NULL)
		forget_left_over(left);
	outcome = fetch(db, &target, &input, false, deadline, &text);
	if (outcome == RINQ_OUTCOME_NOT_OURS && rinq_may_use(RINQ_OP_FETCH, &target, text))
		outcome = fetch(db, &target, &input, true, deadline, &text);
	if (outcome == RINQ_OUTCOME_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no notifications are kept for session \"%s\"", target.text),
				 errdetail_internal("%s", text),
				 errhint("Use rinq_session_listen(session, namespace).")));
	if (outcome != RINQ_OUTCOME_SUCCESS && outcome != RINQ_OUTCOME_EXPIRED)
		rinq_operation_refused(outcome, &target, NULL, text);
	left = find_left_over(&target.ref.session);
	if (left != NULL)
		return_left_over(&set, left);
	return (Datum) 0;
}
