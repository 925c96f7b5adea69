/*-------------------------------------------------------------------------
 *
 * backoff_test.c
 *	  Delays between attempts: they double, and keep within their bounds.
 *
 *-------------------------------------------------------------------------
 */
#include <limits.h>

#include "base/backoff.h"
#include "check.h"

static void
test_next(void)
{
	CHECK_INT(rinq_backoff_next(0, 100, 30000), 100);
	CHECK_INT(rinq_backoff_next(20, 100, 30000), 100);
	CHECK_INT(rinq_backoff_next(100, 100, 30000), 200);
	CHECK_INT(rinq_backoff_next(16000, 100, 30000), 30000);
	CHECK_INT(rinq_backoff_next(30000, 100, 30000), 30000);
	CHECK_INT(rinq_backoff_next(7, 7, 7), 7);
	CHECK_INT(rinq_backoff_next(INT_MAX - 1, 1, INT_MAX), INT_MAX);
}

static void
test_after(void)
{
	int			delay = 0;
	int			failures;

	for (failures = 1; failures < 20; failures++)
	{
		delay = rinq_backoff_next(delay, 100, 30000);
		CHECK_INT(rinq_backoff_after(failures, 100, 30000), delay);
	}
	CHECK_INT(rinq_backoff_after(INT_MAX, 1000, 60000), 60000);
	CHECK_INT(rinq_backoff_after(INT_MAX, 1, INT_MAX), INT_MAX);
	CHECK_INT(rinq_backoff_after(5, 3600000, 3600000), 3600000);
}

int
main(void)
{
	test_next();
	test_after();
	return check_summary();
}
