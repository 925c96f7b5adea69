/*-------------------------------------------------------------------------
 *
 * backend/own_version.c
 *	  Whether the extension's objects in a database are of a version that this
 *	  library works with.
 *
 * A package's upgrade replaces the library, and the server loads it at its next
 * start; the objects of each database stay as they are until an administrator uses
 * ALTER EXTENSION there.  What comes first is not known, and in a server with
 * many databases it is both at the same time.  So a library works with the
 * objects of earlier versions from RINQ_OLDEST_OBJECTS on.  With others it does
 * nothing: functions that need the tables raise an error that says what to do,
 * and the database is suspended, with what waits in its outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "backend/own_version.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "version.h"

/*
 * Find the version of the objects in this database, palloc'd; NULL when the
 * extension is not there.
 */
static char *
objects_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;
	bool		isnull = true;
	Datum		value = (Datum) 0;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("rinq"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);
	if (!isnull)
		version = TextDatumGetCString(value);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/*
 * Compare two versions, number by number, of which a missing one counts as zero.
 */
static int
compare_versions(const char *a, const char *b)
{
	while (*a != '\0' || *b != '\0')
	{
		char	   *end_a;
		char	   *end_b;
		unsigned long number_a = strtoul(a, &end_a, 10);
		unsigned long number_b = strtoul(b, &end_b, 10);

		if (number_a != number_b)
			return number_a < number_b ? -1 : 1;
		if (end_a == a && end_b == b)
			return strcmp(a, b);	/* no numbers */
		a = *end_a == '.' ? end_a + 1 : end_a;
		b = *end_b == '.' ? end_b + 1 : end_b;
	}
	return 0;
}

static RinqOwnVersion
judge_version(const char *version)
{
	if (version == NULL)
		return RINQ_OBJECTS_FIT;
	if (compare_versions(version, RINQ_OLDEST_OBJECTS) < 0)
		return RINQ_OBJECTS_TOO_OLD;
	return compare_versions(version, RINQ_VERSION) > 0 ? RINQ_OBJECTS_TOO_NEW : RINQ_OBJECTS_FIT;
}

/*
 * Find out whether the objects fit.  Where there are none, no error is due
 * because of their version, nor while a script is at work on them.
 */
RinqOwnVersion
rinq_own_version(void)
{
	return creating_extension ? RINQ_OBJECTS_FIT : judge_version(objects_version());
}

/*
 * Say how the versions differ, palloc'd; NULL when the objects fit.
 */
char *
rinq_own_version_problem(void)
{
	char	   *version;
	char	   *problem = NULL;

	if (creating_extension)
		return NULL;
	version = objects_version();
	switch (judge_version(version))
	{
		case RINQ_OBJECTS_FIT:
			break;
		case RINQ_OBJECTS_TOO_OLD:
			problem = psprintf("the extension in this database has version %s, and the library needs " RINQ_OLDEST_OBJECTS " or later",
							   version);
			break;
		case RINQ_OBJECTS_TOO_NEW:
			problem = psprintf("the extension in this database has version %s, and the library that the server has loaded is " RINQ_VERSION,
							   version);
			break;
	}
	return problem;
}

/*
 * Say what to do about it.
 */
const char *
rinq_own_version_hint(RinqOwnVersion version)
{
	return version == RINQ_OBJECTS_TOO_NEW ?
		"Restart the server once the library of that version is installed." :
		"Use ALTER EXTENSION rinq UPDATE.";
}

/*
 * Raise an error unless the objects fit.
 */
void
rinq_check_own_version(void)
{
	char	   *problem = rinq_own_version_problem();

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal("%s", problem),
				 errhint("%s", rinq_own_version_hint(rinq_own_version()))));
}
