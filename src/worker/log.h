/*-------------------------------------------------------------------------
 *
 * log.h
 *	  What the log says about requests that have failed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_LOG_H
#define RINQ_LOG_H

#include "postgres.h"

#include "ipc/slots.h"

extern void rinq_log_limit(const ErrorData *error);
extern void rinq_log_failed_request(RinqDatabase *db, const RinqSlot *slot, ErrorData *error);

#endif							/* RINQ_LOG_H */
