/*-------------------------------------------------------------------------
 *
 * backend/identity.h
 *	  Which database this is, and whether it is a copy of another one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_IDENTITY_H
#define RINQ_IDENTITY_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ipc/shared.h"

/* by the reader, in a transaction: looks, and takes over what no other database owns */
extern void rinq_identity_read(RinqDatabase *db, Oid schema, RinqIdentities *found);

/* make this database one of its own; false when it is that already */
extern bool rinq_identity_renew_if_copied(Oid schema);

/* whether it waits for rinq_adopt as all do on this server; and what was written before is not this server's own */
extern bool rinq_identity_waits(void);
extern TimestampTz rinq_identity_own_since(void);

/* why it is suspended, in a transaction; NULL when it is not */
extern const char *rinq_identity_reason(const RinqIdentities *identities);
extern const char *rinq_identity_hint(const RinqIdentities *identities);

#endif							/* RINQ_IDENTITY_H */
