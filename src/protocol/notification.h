/*-------------------------------------------------------------------------
 *
 * protocol/notification.h
 *	  A notification as a row of type rinq_notification.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_NOTIFICATION_H
#define RINQ_NOTIFICATION_H

#include "postgres.h"

#include "protocol/kinds.h"

#define RINQ_NOTIFICATION_COLUMNS 11

/* of these, what goes on to NOTIFY: not which attempt it is, since there is but one */
#define RINQ_FORWARDED_COLUMNS 9

/* types of the columns, InvalidOid for one of the extension's own */
extern const Oid rinq_notification_types[RINQ_NOTIFICATION_COLUMNS];

extern void rinq_notification_row(const RinqFields *fields, Datum *values, bool *nulls);

#endif							/* RINQ_NOTIFICATION_H */
