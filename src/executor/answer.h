/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  How the result of a handler, or the error that ended it, becomes the answer
 *	  in a request's slot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ANSWER_H
#define RINQ_ANSWER_H

#include "postgres.h"

#include "channel.h"

extern void rinq_answer_plainly(RinqSlot *slot, const char *ascii);
extern void rinq_answer(RinqSlot *slot, RinqOutcome outcome, const char *type, const char *text,
						RinqBytes payload);
extern bool rinq_answer_is_failure(ErrorData *error);
extern void rinq_answer_error(RinqSlot *slot, ErrorData *error, MemoryContext context);

#endif							/* RINQ_ANSWER_H */
