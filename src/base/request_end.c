/*-------------------------------------------------------------------------
 *
 * request_end.c
 *	  What a process forgets at the end of each request.
 *
 * Each file that keeps something for its process says here how to forget it,
 * so that no file has to know them all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/request_end.h"

/* files that keep something for the process, each once */
#define MAX_FORGETTING 8

static RinqForget forgetting[MAX_FORGETTING];
static int	num_forgetting = 0;

/*
 * Register a function that forgets what a file keeps for this process; it is
 * called at the end of each request of an executor, and never elsewhere.  To
 * be called before the first such thing is kept; again does no harm.
 */
void
rinq_at_request_end(RinqForget forget)
{
	int			i;

	Assert(forget != NULL);
	for (i = 0; i < num_forgetting; i++)
	{
		if (forgetting[i] == forget)
			return;
	}
	if (num_forgetting == MAX_FORGETTING)
		elog(ERROR, "too many callbacks for the end of a request");
	forgetting[num_forgetting++] = forget;
}

/*
 * Forget what files have kept for the request just handled, or for the attempt
 * at it that is to be repeated.
 */
void
rinq_request_ended(void)
{
	int			i;

	for (i = 0; i < num_forgetting; i++)
		forgetting[i] ();
}
