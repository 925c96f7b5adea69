/*-------------------------------------------------------------------------
 *
 * time_limit.h
 *	  How long the handler of a request may take.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_TIME_LIMIT_H
#define RINQ_TIME_LIMIT_H

#include "postgres.h"

#include "ipc/slots.h"

extern void rinq_limit_init(void);
extern void rinq_limit_begin(const RinqSlot *slot);
extern void rinq_limit_end(void);
extern bool rinq_limit_passed(void);
extern bool rinq_limit_is_overrun(void);
extern int64 rinq_limit_moment(const RinqSlot *slot);
extern void rinq_limit_arm(RinqSlot *slot);
extern void rinq_limit_disarm(void);

/* what a caller is told, as long as the limit holds */
extern const char *rinq_limit_text(void);

#endif							/* RINQ_TIME_LIMIT_H */
