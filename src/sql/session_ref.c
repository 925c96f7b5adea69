/*-------------------------------------------------------------------------
 *
 * session_ref.c
 *	  Operations on sessions as SQL functions ask for them: on a session, or on
 *	  a session at one revision.
 *
 * At a revision, an operation is tried once; on a session, it is tried again
 * at a newer revision until it is done or the time is over.  Here it is decided
 * who may use a session of this peer, and what each refusal becomes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/request_context.h"
#include "base/clock.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "protocol/packed.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/call_outcome.h"
#include "sql/session_ref.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/*
 * Parse a session, or a session at a revision, as it is written.
 */
void
rinq_session_ref_parse(const char *text, RinqSessionRef *session)
{
	memset(session, 0, sizeof(*session));
	session->text = text;
	if (rinq_ref_parse(text, strlen(text), &session->ref))
		return;
	session->current = true;
	if (!rinq_session_id_parse(text, strlen(text), &session->ref.session))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid session \"%s\"", text),
				 errdetail("A session is written like 58AEE146-191C.45, and at a revision like 58AEE146-191C.45@3.")));
}

/*
 * Return an argument that is a session, or a session at a revision.
 */
void
rinq_session_ref_argument(FunctionCallInfo fcinfo, int n, RinqSessionRef *session)
{
	rinq_session_ref_parse(rinq_text_argument(fcinfo, n, "session"), session);
}

/*
 * Return an argument that is a session without a revision.
 */
void
rinq_session_argument(FunctionCallInfo fcinfo, int n, RinqSessionRef *session)
{
	rinq_session_ref_argument(fcinfo, n, session);
	if (!session->current)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is a revision of a session", session->text),
				 errhint("Give the part before the \"@\".")));
}

/* Return a text of a result, empty when it is absent. */
static char *
operation_text(const RinqFields *result, int field)
{
	RinqBytes	text = rinq_get_bytes(result, field);

	return text.data == NULL ? pstrdup("") : rinq_message_from_wire(text);
}

/*
 * Raise what refuses an operation, with what came as its result.
 */
void
rinq_operation_refused(RinqOutcome outcome, const RinqSessionRef *session, const char *namespace,
					   const RinqFields *result)
{
	const char *key = operation_text(result, RINQ_OP_RESULT_KEY);
	Oid			owner = rinq_get_oid(result, RINQ_OP_RESULT_OWNER);
	const char *owner_name;

	switch (outcome)
	{
		case RINQ_OUTCOME_NOT_FOUND:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_NOT_FOUND),
					 errmsg("session \"%s\" not found", session->text),
					 errhint("It was destroyed, or its peer has ended, or has connected anew since.")));
			break;
		case RINQ_OUTCOME_STALE:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_STALE),
					 errmsg("session \"%s\" has changed since", session->text),
					 namespace != NULL ? errdetail("The change was to be made in namespace \"%s\".", namespace) : 0,
					 errhint("Try again at the revision that rinq_session_revision returns.")));
			break;
		case RINQ_OUTCOME_STALE_FETCH:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_STALE_FETCH),
					 key[0] != '\0' ?
					 errmsg("attribute \"%s\" of session \"%s\" has changed since", key, session->text) :
					 errmsg("attributes of session \"%s\" have changed since", session->text),
					 errdetail("The namespace is \"%s\".", namespace),
					 errhint("Try again at the revision that rinq_session_revision returns.")));
			break;
		case RINQ_OUTCOME_FROZEN:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_FROZEN),
					 key[0] != '\0' ?
					 errmsg("attribute \"%s\" of session \"%s\" is frozen", key, session->text) :
					 errmsg("an attribute of session \"%s\" is frozen", session->text),
					 errdetail("The namespace is \"%s\".", namespace)));
			break;
		case RINQ_OUTCOME_NOT_OURS:
			owner_name = GetUserNameFromId(owner, true);
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for session \"%s\"", session->text),
					 errdetail("It belongs to role \"%s\".",
							   owner_name != NULL ? owner_name : psprintf("%u", owner))));
			break;
		case RINQ_OUTCOME_EXPIRED:
			ereport(ERROR,
					(errcode(ERRCODE_RINQ_TIMEOUT),
					 errmsg("operation on session \"%s\" timed out", session->text),
					 errdetail("Whether it was carried out is not known.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("operation on session \"%s\" was refused", session->text),
					 errdetail_internal("%s", operation_text(result, RINQ_OP_RESULT_TEXT))));
			break;
	}
}

/*
 * Return the connection's own session, which is made if need be.
 */
void
rinq_session_ref_own(RinqDatabase *db, RinqSessionRef *session)
{
	char		text[RINQ_SESSION_ID_SIZE];

	memset(session, 0, sizeof(*session));
	session->current = true;
	if (!rinq_session_current(db, rinq_client_number(), &session->ref.session))
		rinq_raise_not_connected("");
	rinq_session_id_format(&session->ref.session, text, sizeof(text));
	session->text = pstrdup(text);
}

/* Tell whether a handler asks about the session whose request it handles. */
static bool
is_source(const RinqSessionRef *session)
{
	RinqRef		source;

	return rinq_inherited.source.data != NULL &&
		rinq_ref_parse(rinq_inherited.source.data, rinq_inherited.source.len, &source) &&
		rinq_session_id_equal(&source.session, &session->ref.session);
}

/*
 * Tell whether other peers could ask for an operation as well, having got a
 * request.
 */
static bool
is_for_peers(RinqOperation op)
{
	return op == RINQ_OP_REVISION || op == RINQ_OP_GET || op == RINQ_OP_UPDATE ||
		op == RINQ_OP_CLEAR || op == RINQ_OP_DESTROY;
}

/*
 * Tell whether the current role may do this with a session that belongs to
 * another one, which is given by its OID. A handler may work on the session
 * whose request it handles, but neither get what is sent to it, nor send in
 * its name.
 */
bool
rinq_may_use(RinqOperation op, const RinqSessionRef *session, Oid owner)
{
	return (is_for_peers(op) && is_source(session)) || superuser() ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner));
}

/*
 * Attempt an operation once; what is refused for being stale is left to the
 * caller.
 */
static RinqOutcome
attempt_operation(RinqDatabase *db, RinqOperation op, const RinqSessionRef *session, bool privilege_checked,
				  const RinqFields *fields, int64 deadline, RinqOperationResult *result)
{
	uint32		index = rinq_operation_submit(db, op, &session->ref, session->current, GetUserId(),
											  privilege_checked, fields, deadline);
	volatile RinqOutcome outcome = RINQ_OUTCOME_NONE;

	PG_TRY();
	{
		RinqResult	response;

		rinq_call_wait(db, index, &response);
		outcome = response.outcome;
		if (outcome == RINQ_OUTCOME_SUCCESS || outcome >= RINQ_OUTCOME_REFUSED ||
			outcome == RINQ_OUTCOME_EXPIRED)
		{
			result->fields = response.fields;
			(void) rinq_fields_copy(&result->fields);
		}
		else
			rinq_call_raise(&response, "_sess", session->text);
	}
	PG_CATCH();
	{
		rinq_call_release(db, index);
		PG_RE_THROW();
	}
	PG_END_TRY();
	rinq_call_release(db, index);
	return outcome;
}

/*
 * Return the fields of an operation on a session.  They point into the input.
 */
void
rinq_operation_fields(const RinqOperationInput *input, RinqFields *fields)
{
	StringInfoData list;

	rinq_fields_init(fields, RINQ_KIND_OPERATION);
	rinq_put_bytes(fields, RINQ_OP_TRACE, rinq_current_trace());
	rinq_put_bytes(fields, RINQ_OP_SPAN, rinq_inherited.span_context);
	rinq_put_bytes(fields, RINQ_OP_TRACEPARENT, rinq_inherited.traceparent);
	rinq_put_bytes(fields, RINQ_OP_TRACESTATE, rinq_inherited.tracestate);
	if (input == NULL)
		return;
	if (input->namespace != NULL)
		rinq_put_bytes(fields, RINQ_OP_NAMESPACE, rinq_bytes_str(input->namespace));
	if (input->handler != NULL)
		rinq_put_bytes(fields, RINQ_OP_HANDLER, rinq_bytes_str(input->handler));
	rinq_put_oid(fields, RINQ_OP_HANDLER_OWNER, input->handler_owner);
	if (input->channel != NULL)
		rinq_put_bytes(fields, RINQ_OP_CHANNEL, rinq_bytes_str(input->channel));
	rinq_put_flag(fields, RINQ_OP_WAIT, input->wait);
	rinq_put_uint32(fields, RINQ_OP_AFTER, input->after);
	if (input->count > RINQ_MAX_ATTRIBUTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%d attributes are too many for one operation", input->count),
				 errdetail("There can be %d.", RINQ_MAX_ATTRIBUTES)));
	initStringInfo(&list);
	rinq_attributes_pack(&list, input->attributes, input->count);
	rinq_put_bytes(fields, RINQ_OP_ATTRIBUTES, rinq_bytes(list.data, list.len));
}

/* Attempt an operation once, as the peer's own roles allow. */
static RinqOutcome
attempt_allowed(RinqOperation op, const RinqSessionRef *session, const RinqOperationInput *input,
				int64 deadline, RinqOperationResult *result)
{
	RinqDatabase *db = rinq_require_connection(deadline);
	RinqFields	fields;
	RinqOutcome outcome;

	rinq_operation_fields(input, &fields);
	outcome = attempt_operation(db, op, session, false, &fields, deadline, result);
	if (outcome == RINQ_OUTCOME_NOT_OURS &&
		rinq_may_use(op, session, rinq_get_oid(&result->fields, RINQ_OP_RESULT_OWNER)))
		outcome = attempt_operation(db, op, session, true, &fields, deadline, result);
	return outcome;
}

/*
 * Do an operation once, and raise what refuses it; but an attribute whose
 * value at the revision is not known any more is no error: then the result is
 * false.
 */
bool
rinq_operate_unless_stale(RinqOperation op, const RinqSessionRef *session,
						  const RinqOperationInput *input, RinqOperationResult *result)
{
	RinqOutcome outcome = attempt_allowed(op, session, input, rinq_call_deadline(NULL), result);

	if (outcome == RINQ_OUTCOME_STALE_FETCH)
		return false;
	if (outcome != RINQ_OUTCOME_SUCCESS)
		rinq_operation_refused(outcome, session, input == NULL ? NULL : input->namespace, &result->fields);
	return true;
}

/*
 * Do an operation once, and raise what refuses it, a value that is not known
 * any more, too.
 */
void
rinq_operate(RinqOperation op, const RinqSessionRef *session, const RinqOperationInput *input,
			 RinqOperationResult *result)
{
	if (!rinq_operate_unless_stale(op, session, input, result))
		rinq_operation_refused(RINQ_OUTCOME_STALE_FETCH, session,
							   input == NULL ? NULL : input->namespace, &result->fields);
}

static bool
is_own_session(const RinqSessionRef *session)
{
	RinqDatabase *db = rinq_my_database();
	bool		own;

	if (db == NULL)
		return false;
	SpinLockAcquire(&db->mutex);
	own = db->identity != 0 && db->identity_id.clock == session->ref.session.peer.clock &&
		db->identity_id.rand == session->ref.session.peer.rand;
	SpinLockRelease(&db->mutex);
	return own;
}

/*
 * Do an operation that changes a session.  When no revision was given, it is
 * done at the current one, which another peer's session has to be asked for,
 * and may have left by then.
 */
void
rinq_change_session(RinqOperation op, const RinqSessionRef *session, const RinqOperationInput *input,
					RinqOperationResult *result)
{
	int64		deadline = rinq_call_deadline(NULL);
	RinqOutcome outcome;

	rinq_require_preloaded();
	if (!session->current || is_own_session(session))
	{
		rinq_operate(op, session, input, result);
		return;
	}
	do
	{
		RinqSessionRef at = *session;

		CHECK_FOR_INTERRUPTS();
		outcome = attempt_allowed(RINQ_OP_REVISION, session, NULL, deadline, result);
		if (outcome != RINQ_OUTCOME_SUCCESS)
			break;
		at.current = false;
		if (!rinq_get_ref(&result->fields, RINQ_OP_RESULT_REF, &at.ref))
			elog(ERROR, "missing revision of a session");
		outcome = attempt_allowed(op, &at, input, deadline, result);
	} while (outcome == RINQ_OUTCOME_STALE && rinq_clock_ms() < deadline);
	if (outcome != RINQ_OUTCOME_SUCCESS)
		rinq_operation_refused(outcome, session, input == NULL ? NULL : input->namespace, &result->fields);
}

/*
 * Return the session at the revision that an operation has left it at, as a text.
 */
Datum
rinq_operation_ref_datum(const RinqOperationResult *result)
{
	RinqRef		ref;
	char		text[RINQ_REF_SIZE];

	if (!rinq_get_ref(&result->fields, RINQ_OP_RESULT_REF, &ref))
		elog(ERROR, "missing revision of a session");
	rinq_ref_format(&ref, text, sizeof(text));
	return CStringGetTextDatum(text);
}

/*
 * Allocate an id for the session argument of a function that sends: false when
 * it is NULL or the connection's own session, and then the message is numbered
 * as usual; else *id is that of the session's next message, and *uncorrelated
 * whether the session has a handler for responses.
 */
bool
rinq_allocate_id_argument(FunctionCallInfo fcinfo, int n, RinqMessageId *id, bool *uncorrelated)
{
	RinqSessionRef session;
	RinqOperationResult result;
	RinqSessionId own;
	RinqDatabase *db;

	*uncorrelated = false;
	if (PG_ARGISNULL(n))
		return false;
	rinq_session_argument(fcinfo, n, &session);
	rinq_require_preloaded();
	db = rinq_my_database();
	if (db != NULL && rinq_session_current(db, rinq_client_number(), &own) &&
		rinq_session_id_equal(&own, &session.ref.session))
		return false;
	rinq_operate(RINQ_OP_ALLOCATE_ID, &session, NULL, &result);
	if (!rinq_get_message_id(&result.fields, RINQ_OP_RESULT_ID, id))
		elog(ERROR, "missing id of a message");
	*uncorrelated = rinq_get_flag(&result.fields, RINQ_OP_RESULT_UNCORRELATED);
	return true;
}
