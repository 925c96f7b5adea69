/*-------------------------------------------------------------------------
 *
 * backend/own_schema.h
 *	  Where the extension is: its schemas, what belongs to it, and keeping it from being
 *	  dropped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_SCHEMA_H
#define RINQ_OWN_SCHEMA_H

#include "postgres.h"

/* where the extension's tables are, apart from what users call and read */
#define RINQ_INTERNAL_SCHEMA "rinq_internal"

/* the extension, as the database knows it */
typedef struct RinqExtension
{
	Oid			oid;
	Oid			schema;
	Oid			owner;
	char	   *version;		/* of its objects; NULL when it is not there */
} RinqExtension;

extern bool rinq_find_extension(RinqExtension * found);
extern Oid	rinq_extension_schema(void);
extern Oid	rinq_extension_owner(void);
extern bool rinq_is_extension_object(Oid classId, Oid objectId);
extern Oid	rinq_internal_schema(void);
extern void rinq_lock_extension(void);
extern Oid	rinq_lock_extension_briefly(void);
extern void rinq_unlock_extension(Oid extension);
extern bool rinq_try_lock_extension(void);

#endif							/* RINQ_OWN_SCHEMA_H */
