/*-------------------------------------------------------------------------
 *
 * request_end.h
 *	  What a process forgets when a request ends that it has handled.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_REQUEST_END_H
#define RINQ_BASE_REQUEST_END_H

#include "postgres.h"

typedef void (*RinqForget) (void);

extern void rinq_at_request_end(RinqForget forget);
extern void rinq_request_ended(void);

#endif							/* RINQ_BASE_REQUEST_END_H */
