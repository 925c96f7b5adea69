/*-------------------------------------------------------------------------
 *
 * backend/own_version.h
 *	  Whether the extension's objects in a database are of a version that this
 *	  library works with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_VERSION_H
#define RINQ_OWN_VERSION_H

#include "postgres.h"

typedef enum RinqOwnVersion
{
	RINQ_OBJECTS_FIT,
	RINQ_OBJECTS_TOO_OLD,		/* ALTER EXTENSION is to come */
	RINQ_OBJECTS_TOO_NEW		/* the server has to load the new library */
} RinqOwnVersion;

extern RinqOwnVersion rinq_own_version(void);
extern char *rinq_own_version_problem(void);
extern const char *rinq_own_version_hint(RinqOwnVersion version);
extern void rinq_check_own_version(void);

#endif							/* RINQ_OWN_VERSION_H */
