/*-------------------------------------------------------------------------
 *
 * receive.c
 *	  Sessions that listen to notifications.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/parallel.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "sql/arguments.h"
#include "sql/listen.h"
#include "sql/session_ref.h"

PG_FUNCTION_INFO_V1(rinq_session_listen);
PG_FUNCTION_INFO_V1(rinq_session_unlisten);

/*
 * rinq_session_listen(session text, namespace text, handler regprocedure,
 * channel text) returns void
 *
 * Has notifications to a session, in a namespace, handled by a function as the
 * current role, or forwarded to a channel of LISTEN and NOTIFY, or, with
 * neither, buffered for rinq_notifications.  They come from when it returns.
 */
Datum
rinq_session_listen(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_argument(fcinfo, 0, &session);
	memset(&input, 0, sizeof(input));
	input.namespace = rinq_namespace_argument(fcinfo, 1);
	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("handler and channel cannot be used together")));
	if (!PG_ARGISNULL(2))
		rinq_handler_input(PG_GETARG_OID(2), RINQ_WORK_NOTIFICATION, &input);
	else if (!PG_ARGISNULL(3))
	{
		input.channel = rinq_text_argument(fcinfo, 3, "channel");
		if (input.channel[0] == '\0' || strlen(input.channel) >= NAMEDATALEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid channel \"%s\"", input.channel),
					 errdetail("The name of a channel has 1 to %d bytes.", NAMEDATALEN - 1)));
		rinq_check_handler_role(GetUserId());
		if (RecoveryInProgress())
			ereport(ERROR,
					(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
					 errmsg("cannot forward notifications to a channel during recovery"),
					 errdetail("NOTIFY is not available on a standby."),
					 errhint("Give a handler, or fetch them with rinq_notifications.")));
	}
	rinq_operate(RINQ_OP_LISTEN, &session, &input, &result);
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
	RinqSessionRef session;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_argument(fcinfo, 0, &session);
	memset(&input, 0, sizeof(input));
	input.namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_operate(RINQ_OP_UNLISTEN, &session, &input, &result);
	PG_RETURN_BOOL(rinq_get_flag(&result.fields, RINQ_OP_RESULT_LISTENED));
}
