/*-------------------------------------------------------------------------
 *
 * record.h
 *	  What is written down about requests: attempts, those given up, those
 *	  that must not be handled twice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_RECORD_H
#define RINQ_RECORD_H

#include "postgres.h"

#include "bytes.h"
#include "channel.h"

extern int	rinq_record_attempt(const RinqBytes *fields);
extern void rinq_record_dead(const RinqBytes *fields, int attempts, const char *error);
extern bool rinq_record_was_handled(const RinqBytes *fields, RinqBytes *payload);
extern void rinq_record_handled(const RinqBytes *fields, RinqBytes payload);
extern bool rinq_record_purge_due(RinqDatabase *db);
extern void rinq_record_purge(void);

#endif							/* RINQ_RECORD_H */
