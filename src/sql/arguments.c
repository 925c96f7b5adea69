/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Arguments that several SQL functions share, with their checks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "base/ident.h"
#include "guc.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/*
 * Return a text argument that must not be NULL.
 */
char *
rinq_text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/*
 * Raise an error unless it is a namespace that applications may use.
 */
void
rinq_check_namespace(const char *name)
{
	size_t		len = strlen(name);

	if (!rinq_namespace_valid(name, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid namespace \"%s\"", name),
				 errdetail("A namespace has 1 to %d letters, digits, and characters of \"_.:-\".",
						   RINQ_NAMESPACE_MAXLEN)));
	if (rinq_namespace_reserved(name, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("namespace \"%s\" is reserved", name),
				 errdetail("Namespaces that begin with \"_\" belong to Rinq itself.")));
}

/*
 * Return a namespace that applications may use.
 */
char *
rinq_namespace_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *name = rinq_text_argument(fcinfo, n, "namespace");

	rinq_check_namespace(name);
	return name;
}

/*
 * Return a text as it is sent, in UTF-8, which may have at most "limit" bytes;
 * "what" it is, is for the error message.
 */
RinqBytes
rinq_limited_text(const char *text, size_t limit, const char *what)
{
	RinqBytes	bytes = rinq_text_to_wire(text);

	if (bytes.len > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of %zu bytes is too long", what, bytes.len),
				 errdetail("It may have up to %zu bytes in UTF-8.", limit)));
	return bytes;
}

/*
 * Return the name of a command as it is sent.
 */
RinqBytes
rinq_command_bytes(const char *command)
{
	return rinq_limited_text(command, RINQ_MAX_NAME_LEN, "command name");
}

/*
 * Convert a timeout to milliseconds, at most about 24 days.  A month counts as
 * 30 days, as elsewhere when an interval becomes a number.
 */
int64
rinq_interval_ms(const Interval *interval)
{
	return rinq_positive_interval_ms(interval, "timeout");
}

/* Return an interval as milliseconds, however many. */
static double
interval_as_ms(const Interval *interval)
{
	return (double) interval->time / 1000.0 +
		((double) interval->day + (double) interval->month * DAYS_PER_MONTH) *
		(double) SECS_PER_DAY * 1000.0;
}

/*
 * Convert a delay to milliseconds, which is no time at all, or as long as a
 * message may be delayed; "what" it is, is for the error message.
 */
int64
rinq_delay_ms(const Interval *delay, const char *what)
{
	double		ms = interval_as_ms(delay);

	if (delay->time == 0 && delay->day == 0 && delay->month == 0)
		return 0;
	if (ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive", what)));
	if (ms > (double) RINQ_MAX_DELAY_DAYS * SECS_PER_DAY * 1000.0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than %d days", what, RINQ_MAX_DELAY_DAYS)));
	return (int64) Max(1.0, ms);
}

/*
 * Convert any interval that must be positive, as a timeout is; "what" it is, is
 * for the error message.
 */
int64
rinq_positive_interval_ms(const Interval *interval, const char *what)
{
	double		ms = interval_as_ms(interval);

	if (ms <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive", what)));
	return (int64) Max(1.0, Min(ms, (double) INT_MAX));
}

/*
 * Return a payload as the body of a message.
 */
RinqBytes
rinq_payload_argument(FunctionCallInfo fcinfo, int n, RinqPayloadForm form)
{
	if (form == RINQ_PAYLOAD_RAW)
		return rinq_payload_from_raw(PG_ARGISNULL(n) ? NULL : PG_GETARG_BYTEA_PP(n));
	if (PG_ARGISNULL(n))
		return rinq_payload_from_jsonb(NULL);
	return rinq_payload_from_jsonb(PG_GETARG_JSONB_P(n));
}

/*
 * Return a body as the payload that a function returns.
 */
Datum
rinq_payload_result(RinqBytes body, RinqPayloadForm form, bool *isnull)
{
	void	   *payload;

	if (form == RINQ_PAYLOAD_RAW)
		payload = rinq_payload_to_raw(body);
	else
		payload = rinq_payload_to_jsonb(body);
	*isnull = payload == NULL;
	return PointerGetDatum(payload);
}

/*
 * Return a key or value of an attribute as it is stored, and sent.
 */
RinqBytes
rinq_attribute_text(const char *text, const char *what)
{
	RinqBytes	bytes = rinq_text_to_wire(text);

	if (bytes.len > rinq_payload_limit())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of %zu bytes is too long", what, bytes.len),
				 errdetail("The setting \"rinq.max_payload\" allows %zu bytes.",
						   rinq_payload_limit())));
	return bytes;
}

/*
 * Return a member of an object as the value of an attribute: a string as it is,
 * null as none, all else in its text form.
 */
RinqBytes
rinq_attribute_value(const JsonbValue *value)
{
	StringInfoData text;

	switch (value->type)
	{
		case jbvNull:
			return rinq_bytes("", 0);
		case jbvString:
			return rinq_attribute_text(pnstrdup(value->val.string.val, value->val.string.len), "value");
		case jbvBool:
			return rinq_bytes_str(value->val.boolean ? "true" : "false");
		case jbvNumeric:
			return rinq_bytes_str(DatumGetCString(DirectFunctionCall1(numeric_out,
																	  NumericGetDatum(value->val.numeric))));
		default:
			initStringInfo(&text);
			(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
			return rinq_attribute_text(text.data, "value");
	}
}
