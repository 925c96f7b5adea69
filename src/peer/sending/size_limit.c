/*-------------------------------------------------------------------------
 *
 * size_limit.c
 *	  How large a message the broker takes.
 *
 * A broker says what its limit is when it refuses a message for its size.  The
 * limit is respected from then on.  Before it is known, a message larger than
 * any that the broker has taken is in doubt.  What is learnt of a broker lasts
 * as long as the connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/sending/publisher_internal.h"
#include "utils/memutils.h"

#define SURE_SIZE (128 * 1024)	/* any broker takes bodies of that size */

static Size broker_limit;		/* largest body that the broker takes; 0 is
								 * unknown */
static Size largest_taken = SURE_SIZE;	/* largest body that it has taken */

/*
 * Forget what was learnt, since the connection is another one.
 */
void
rinq_size_limit_forget(void)
{
	broker_limit = 0;
	largest_taken = SURE_SIZE;
}

/*
 * Note that the broker has taken a body of this size.
 */
void
rinq_size_limit_taken(Size body_len)
{
	largest_taken = Max(largest_taken, body_len);
}

/*
 * Read a size limit out of the broker's words: "message size 2097160 is larger
 * than configured max size 1048576".  0 when they are about something else.
 */
Size
rinq_size_limit_in(const char *text)
{
	const char *at = strstr(text, "message size ");
	unsigned long long limit;

	if (at != NULL)
		at = strstr(at, "max");
	if (at == NULL)
		return 0;
	at += strcspn(at, "0123456789");
	limit = strtoull(at, NULL, 10);
	return limit > 0 && limit < (unsigned long long) MaxAllocHugeSize ? (Size) limit : 0;
}

/*
 * Respect a limit from now on.
 */
void
rinq_size_limit_learn(Size limit)
{
	Assert(limit > 0);
	broker_limit = limit;
}

/*
 * Tell whether a body is known to be too large.
 */
bool
rinq_size_limit_exceeded(Size body_len)
{
	return broker_limit != 0 && body_len > broker_limit;
}

/*
 * Tell whether it is not known if the broker takes bodies of this size.
 */
bool
rinq_size_limit_doubtful(Size body_len)
{
	return broker_limit == 0 && body_len > largest_taken;
}

/*
 * Return the limit; 0 while it is not known.
 */
Size
rinq_size_limit(void)
{
	return broker_limit;
}
