/*-------------------------------------------------------------------------
 *
 * protocol/notification.h
 *	  A notification on its way from the peer to SQL: packed, and as a row of
 *	  type rinq_notification.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_NOTIFICATION_H
#define RINQ_NOTIFICATION_H

#include "postgres.h"

#include "base/bytes.h"
#include "lib/stringinfo.h"

/* texts are in UTF-8, as on the wire */
typedef enum RinqNotificationField
{
	RINQ_NOTIFICATION_ID,
	RINQ_NOTIFICATION_SOURCE,
	RINQ_NOTIFICATION_TARGET,
	RINQ_NOTIFICATION_NAMESPACE,
	RINQ_NOTIFICATION_TYPE,
	RINQ_NOTIFICATION_PAYLOAD,	/* in CBOR */
	RINQ_NOTIFICATION_CONSTRAINT,	/* in CBOR; absent when it was sent to one
									 * session */
	RINQ_NOTIFICATION_TRACE,
	RINQ_NOTIFICATION_FIELDS
} RinqNotificationField;

#define RINQ_NOTIFICATION_COLUMNS 9

/* in a list of them */
extern Size rinq_notification_packed_size(const RinqBytes *fields);
extern void rinq_notification_pack(char *to, const RinqBytes *fields);
extern bool rinq_notification_unpack(RinqBytes *list, RinqBytes *fields);

/* types of the columns, InvalidOid for one of the extension's own */
extern const Oid rinq_notification_types[RINQ_NOTIFICATION_COLUMNS];

extern void rinq_notification_row(const RinqBytes *fields, Datum *values, bool *nulls);

#endif							/* RINQ_NOTIFICATION_H */
