/*-------------------------------------------------------------------------
 *
 * invariant.h
 *	  RINQ_ASSERT: PostgreSQL's Assert for plain C.
 *
 * Active where Assert is, when compiled with USE_ASSERT_CHECKING, and in the
 * unit tests.  It ends the process with the words that PostgreSQL has for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_INVARIANT_H
#define RINQ_BASE_INVARIANT_H

#ifdef USE_ASSERT_CHECKING

#include <stdio.h>
#include <stdlib.h>

static inline void
rinq_assertion_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "TRAP: failed RINQ_ASSERT(\"%s\"), File: \"%s\", Line: %d\n", condition, file, line);
	fflush(stderr);
	abort();
}

#define RINQ_ASSERT(condition) \
	((condition) ? (void) 0 : rinq_assertion_failed(#condition, __FILE__, __LINE__))

#else

#define RINQ_ASSERT(condition) ((void) sizeof((condition) ? 1 : 0))

#endif

#endif							/* RINQ_BASE_INVARIANT_H */
