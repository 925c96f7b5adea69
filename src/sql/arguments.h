/*-------------------------------------------------------------------------
 *
 * arguments.h
 *	  Arguments that several SQL functions share, with their checks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ARGUMENTS_H
#define RINQ_ARGUMENTS_H

#include "postgres.h"

#include "base/bytes.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "protocol/constraint.h"
#include "utils/jsonb.h"

/* bytes that command names and failure types may have, all in one header */
#define RINQ_MAX_NAME_LEN 16384

/* bytes of a notification's type, which travels in a property */
#define RINQ_MAX_TYPE_LEN 255

/* bytes that a failure's message may have, in a header too */
#define RINQ_MAX_MESSAGE_LEN 65536

/* ten years, for which a message, or an attempt, may be delayed */
#define RINQ_MAX_DELAY_DAYS 3653

extern char *rinq_text_argument(FunctionCallInfo fcinfo, int n, const char *name);
extern void rinq_check_namespace(const char *name);
extern char *rinq_namespace_argument(FunctionCallInfo fcinfo, int n);
extern RinqBytes rinq_limited_text(const char *text, size_t limit, const char *what);
extern RinqBytes rinq_command_bytes(const char *command);
extern RinqConstraint *rinq_constraint_argument(const char *text);

/* the form that SQL has payloads in */
typedef enum RinqPayloadForm
{
	RINQ_PAYLOAD_JSONB,
	RINQ_PAYLOAD_RAW
} RinqPayloadForm;

extern RinqBytes rinq_payload_argument(FunctionCallInfo fcinfo, int n, RinqPayloadForm form);
extern Datum rinq_payload_result(RinqBytes body, RinqPayloadForm form, bool *isnull);
extern RinqBytes rinq_attribute_text(const char *text, const char *what);
extern RinqBytes rinq_attribute_value(const JsonbValue *value);
extern int64 rinq_interval_ms(const Interval *interval);
extern int64 rinq_positive_interval_ms(const Interval *interval, const char *what);
extern int64 rinq_delay_ms(const Interval *delay, const char *what);

#endif							/* RINQ_ARGUMENTS_H */
