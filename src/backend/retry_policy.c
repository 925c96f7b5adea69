/*-------------------------------------------------------------------------
 *
 * backend/retry_policy.c
 *	  Reading the jsonb form of a retry policy.
 *
 * It is an object, all of whose keys may be left out.  Check it when a listener
 * is registered, and again when the reader finds it in the table, which a
 * superuser may have written by hand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "backend/retry_policy.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#define MAX_ATTEMPTS 1000000
#define MAX_FACTOR 1000
#define MAX_DELAY INT_MAX		/* ms */

static const RinqRetryPolicy defaults = {
	.attempts = 5,
	.first_delay = 1000,
	.max_delay = 300000,
	.factor = 2,
	.jitter = 0.2,
	.calls = false
};

/* Return a number; NaN for what is none. */
static double
number_value(const JsonbValue *value)
{
	if (value->type != jbvNumeric)
		return (double) NAN;
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											  NumericGetDatum(value->val.numeric)));
}

/*
 * Read an interval; false for a text that is none.  An error in reading a text
 * leaves nothing behind that an abort would have to undo.
 */
static bool
read_interval_text(char *text, Interval **interval)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool good = true;

	PG_TRY();
	{
		*interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
														  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		good = false;
	}
	PG_END_TRY();
	return good;
}

/* Read an interval as ms, from 1 to MAX_DELAY; false when it is none. */
static bool
read_delay(const JsonbValue *value, int32 *ms)
{
	Interval   *interval;
	double		found;

	if (value->type != jbvString ||
		!read_interval_text(pnstrdup(value->val.string.val, value->val.string.len), &interval))
		return false;
	found = (double) interval->time / 1000.0 +
		((double) interval->day + (double) interval->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;
	if (!(found >= 1 && found <= MAX_DELAY))
		return false;
	*ms = (int32) found;
	return true;
}

/* Return the text of a value, for an error message. */
static char *
value_text(JsonbValue *value)
{
	Jsonb	   *json = JsonbValueToJsonb(value);

	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

/* Say what a key wants in place of the value that it has. */
static char *
value_problem(const char *key, const char *wanted, JsonbValue *value)
{
	return psprintf("\"%s\" must be %s, not %s", key, wanted, value_text(value));
}

/* Read the value of one key; return what is wrong with it, NULL for nothing. */
static char *
read_key(const char *key, JsonbValue *value, RinqRetryPolicy *policy)
{
	double		number = number_value(value);

	if (strcmp(key, "attempts") == 0)
	{
		if (!(number >= 1 && number <= MAX_ATTEMPTS && number == floor(number)))
			return value_problem(key, "a whole number from 1 to 1000000", value);
		policy->attempts = (int32) number;
	}
	else if (strcmp(key, "factor") == 0)
	{
		if (!(number >= 1 && number <= MAX_FACTOR))
			return value_problem(key, "a number from 1 to 1000", value);
		policy->factor = number;
	}
	else if (strcmp(key, "jitter") == 0)
	{
		if (!(number >= 0 && number <= 1))
			return value_problem(key, "a number from 0 to 1", value);
		policy->jitter = number;
	}
	else if (strcmp(key, "first_delay") == 0 || strcmp(key, "max_delay") == 0)
	{
		if (!read_delay(value, key[0] == 'f' ? &policy->first_delay : &policy->max_delay))
			return value_problem(key, "the text of an interval from 1 ms to 24 days", value);
	}
	else if (strcmp(key, "calls") == 0)
	{
		if (value->type != jbvBool)
			return value_problem(key, "true or false", value);
		policy->calls = value->val.boolean;
	}
	else
		return psprintf("there is no key \"%s\"", key);
	return NULL;
}

/*
 * Read a policy.  Returns what is wrong with it, palloc'd; NULL for nothing.
 */
char *
rinq_retry_policy_read(const Jsonb *json, RinqRetryPolicy *policy)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;
	char	   *problem;

	*policy = defaults;
	if (!JB_ROOT_IS_OBJECT(json))
		return pstrdup("it must be an object");
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &json->root));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			problem = read_key(key, &value, policy);
			if (problem != NULL)
				return problem;
		}
	}
	if (policy->first_delay > policy->max_delay)
		return pstrdup("\"first_delay\" must not be longer than \"max_delay\"");
	return NULL;
}

/*
 * Raise an error unless it is a policy.
 */
void
rinq_retry_policy_check(const Jsonb *json)
{
	RinqRetryPolicy policy;
	char	   *problem = rinq_retry_policy_read(json, &policy);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid retry policy: %s", problem),
				 errhint("Its keys are attempts, first_delay, factor, max_delay, jitter and calls; all of them may be left out.")));
}
