/*-------------------------------------------------------------------------
 *
 * call_outcome.c
 *	  What calls and operations on sessions share: when they have to be over,
 *	  and the error that each outcome other than success becomes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/request_context.h"
#include "base/clock.h"
#include "guc.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/call_outcome.h"

/*
 * Return when the call has to be over: the earliest of its own timeout, or the
 * default one, of rinq.max_timeout, and of the deadline of the request being
 * handled.
 */
int64
rinq_call_deadline(const Interval *timeout)
{
	int64		deadline;
	int64		now = rinq_clock_ms();

	if (timeout == NULL)
		deadline = now + rinq_default_timeout;
	else
		deadline = now + rinq_interval_ms(timeout);
	if (rinq_max_timeout > 0)
		deadline = Min(deadline, now + rinq_max_timeout);
	if (rinq_inherited.deadline != 0)
		deadline = Min(deadline, rinq_inherited.deadline);
	return deadline;
}

/* Return the text of a result, empty when it has none. */
static char *
result_text(const RinqResult *result)
{
	const RinqFields *fields = &result->fields;
	RinqBytes	text = rinq_get_bytes(fields, fields->kind == RINQ_KIND_RESULT ?
									  RINQ_RESULT_TEXT : RINQ_OP_RESULT_TEXT);

	return text.data == NULL ? pstrdup("") : rinq_message_from_wire(text);
}

/*
 * Raise what a result other than success stands for.
 */
void
rinq_call_raise(const RinqResult *result, const char *namespace, const char *command)
{
	char	   *message;

	switch (result->outcome)
	{
		case RINQ_OUTCOME_FAILURE:
			message = result_text(result);
			rinq_failure_raise(rinq_text_from_wire(rinq_get_bytes(&result->fields, RINQ_RESULT_FAILURE_TYPE)),
							   message[0] != '\0' ? message : NULL,
							   rinq_payload_to_jsonb(rinq_get_bytes(&result->fields, RINQ_RESULT_PAYLOAD)),
							   psprintf("%s::%s", namespace, command));
			break;
		case RINQ_OUTCOME_ERROR:
			message = result_text(result);
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_REMOTE_ERROR),
					 errmsg_internal("%s", message[0] != '\0' ? message : "unknown error"),
					 errdetail("The error was raised by the peer that served %s::%s.",
							   namespace, command)));
			break;
		case RINQ_OUTCOME_EXPIRED:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_TIMEOUT),
					 errmsg("call to %s::%s timed out", namespace, command),
					 errdetail("Whether the command was carried out is not known.")));
			break;
		case RINQ_OUTCOME_CONNECTION_LOST:
			message = result_text(result);
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("connection lost during call to %s::%s", namespace, command),
					 errdetail_internal("%s", message[0] != '\0' ? message :
										"The rinq peer of this database has ended."),
					 errhint("Whether the command was carried out is not known.")));
			break;
		case RINQ_OUTCOME_NOT_CONNECTED:
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("the rinq peer has no connection to the broker"),
					 errdetail_internal("%s", result_text(result)),
					 errhint("Look at the view rinq_peer.")));
			break;
		case RINQ_OUTCOME_MALFORMED:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("malformed response to %s::%s", namespace, command),
					 errdetail_internal("The response cannot be used: %s.", result_text(result))));
			break;
		case RINQ_OUTCOME_NO_QUEUE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the queue of namespace \"%s\" cannot be used", namespace),
					 errdetail_internal("%s", result_text(result)),
					 errhint("With 403, grant the permission that the broker's user lacks; with 406, delete the queue or make it anew.")));
			break;
		case RINQ_OUTCOME_NOT_TAKEN:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the broker does not take the request to %s::%s", namespace, command),
					 errdetail_internal("%s", result_text(result))));
			break;
		case RINQ_OUTCOME_TOO_LARGE:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("response to %s::%s exceeds \"rinq.max_payload\"",
							namespace, command),
					 errdetail("At most %zu bytes are allowed, by that setting or as a quarter of \"rinq.payload_memory\".",
							   rinq_payload_limit())));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("call to %s::%s could not be completed", namespace, command),
					 errdetail_internal("%s", result_text(result))));
			break;
	}
}
