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

#include "backend/own_schema.h"
#include "backend/own_version.h"
#include "commands/extension.h"
#include "version.h"

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
	RinqExtension extension;

	if (creating_extension)
		return RINQ_OBJECTS_FIT;
	(void) rinq_find_extension(&extension);
	return judge_version(extension.version);
}

/*
 * Say how the versions differ, palloc'd; NULL when the objects fit.
 */
char *
rinq_own_version_problem(void)
{
	RinqExtension extension;
	char	   *problem = NULL;

	if (creating_extension)
		return NULL;
	(void) rinq_find_extension(&extension);
	switch (judge_version(extension.version))
	{
		case RINQ_OBJECTS_FIT:
			break;
		case RINQ_OBJECTS_TOO_OLD:
			problem = psprintf("the extension in this database has version %s, and the library needs " RINQ_OLDEST_OBJECTS " or later",
							   extension.version);
			break;
		case RINQ_OBJECTS_TOO_NEW:
			problem = psprintf("the extension in this database has version %s, and the library that the server has loaded is " RINQ_VERSION,
							   extension.version);
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
