/*-------------------------------------------------------------------------
 *
 * check.h
 *	  The few words that the unit tests are written in.
 *
 * A failed check prints one line and the test goes on; the last line of every
 * program counts them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_TEST_CHECK_H
#define RINQ_TEST_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int	checks_passed;
static int	checks_failed;

#define CHECK(cond) \
	check_that((cond), #cond, __FILE__, __LINE__)
#define CHECK_INT(actual, expected) \
	check_int((long long) (actual), (long long) (expected), #actual, __FILE__, __LINE__)
#define CHECK_STR(actual, expected) \
	check_str((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_BYTES(actual, expected) \
	check_bytes((actual).data, (actual).len, (expected), #actual, __FILE__, __LINE__)
#define CHECK_CONTAINS(text, part) \
	check_contains((text), (part), #text, __FILE__, __LINE__)

static inline bool
check_that(bool ok, const char *what, const char *file, int line)
{
	if (ok)
		checks_passed++;
	else
	{
		checks_failed++;
		printf("%s:%d: not true: %s\n", file, line, what);
	}
	return ok;
}

static inline bool
check_int(long long actual, long long expected, const char *what,
		  const char *file, int line)
{
	if (actual == expected)
	{
		checks_passed++;
		return true;
	}
	checks_failed++;
	printf("%s:%d: %s is %lld, expected %lld\n", file, line, what, actual, expected);
	return false;
}

static inline bool
check_str(const char *actual, const char *expected, const char *what,
		  const char *file, int line)
{
	if (strcmp(actual, expected) == 0)
	{
		checks_passed++;
		return true;
	}
	checks_failed++;
	printf("%s:%d: %s is \"%s\", expected \"%s\"\n", file, line, what, actual, expected);
	return false;
}

/* expected NULL means absent */
static inline bool
check_bytes(const char *data, size_t len, const char *expected, const char *what,
			const char *file, int line)
{
	bool		ok = expected == NULL ? data == NULL :
		data != NULL && len == strlen(expected) && memcmp(data, expected, len) == 0;

	if (ok)
		checks_passed++;
	else
	{
		checks_failed++;
		printf("%s:%d: %s is %s\"%.*s\", expected \"%s\"\n", file, line, what,
			   data == NULL ? "absent " : "", (int) len, data != NULL ? data : "",
			   expected != NULL ? expected : "(absent)");
	}
	return ok;
}

static inline bool
check_contains(const char *text, const char *part, const char *what,
			   const char *file, int line)
{
	if (strstr(text, part) != NULL)
	{
		checks_passed++;
		return true;
	}
	checks_failed++;
	printf("%s:%d: %s is \"%s\", without \"%s\"\n", file, line, what, text, part);
	return false;
}

static inline int
check_summary(void)
{
	printf("%d passed, %d failed\n", checks_passed, checks_failed);
	return checks_failed > 0;
}

#endif							/* RINQ_TEST_CHECK_H */
