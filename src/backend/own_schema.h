/*-------------------------------------------------------------------------
 *
 * backend/own_schema.h
 *	  Where the extension is: its schemas, and keeping it from being dropped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_SCHEMA_H
#define RINQ_OWN_SCHEMA_H

#include "postgres.h"

/* where the extension's tables are, apart from what users call and read */
#define RINQ_INTERNAL_SCHEMA "rinq_internal"

extern Oid	rinq_extension_schema(void);
extern Oid	rinq_internal_schema(void);
extern void rinq_lock_extension(void);
extern bool rinq_try_lock_extension(void);

#endif							/* RINQ_OWN_SCHEMA_H */
