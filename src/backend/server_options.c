/*-------------------------------------------------------------------------
 *
 * backend/server_options.c
 *	  Options of foreign servers and user mappings that say where a broker is.
 *
 * Their names and values are those of base/broker.h; here is which of them
 * belongs to what, and who may set it.  Those that name files of the server are
 * for superusers, as they have the server read these.
 *
 * Check them when they are written, and again when they are read: rows of the
 * catalogs may be older than the rules, and who owns a server changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/server_options.h"
#include "base/broker.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#define MAX_DISTANCE 4			/* edits between a misspelt name and the one
								 * meant */

typedef struct KnownOption
{
	const char *name;
	const char *broker_name;	/* in base/broker.h; NULL: the same */
	bool		of_server;
	bool		of_mapping;
	bool		is_file;		/* of the server */
} KnownOption;

/* in the order in which they are listed */
static const KnownOption known_options[] = {
	{"hosts", NULL, true, false, false},
	{"vhost", NULL, true, false, false},
	{"user", NULL, false, true, false},
	{"password", NULL, false, true, false},
	{"passfile", NULL, true, true, true},
	{"password_file", "passfile", true, true, true},
	{"sasl_mechanism", NULL, true, true, false},
	{"load_balance_hosts", NULL, true, false, false},
	{"heartbeat", NULL, true, false, false},
	{"connection_timeout", NULL, true, false, false},
	{"sslmode", NULL, true, false, false},
	{"sslrootcert", NULL, true, false, true},
	{"sslcert", NULL, true, true, true},
	{"sslkey", NULL, true, true, true},
	{"sslcrl", NULL, true, false, true},
	{"ssl_min_protocol_version", NULL, true, false, false}
};

static const KnownOption *
find_known_option(const char *name)
{
	int			i;

	for (i = 0; i < (int) lengthof(known_options); i++)
	{
		if (strcmp(known_options[i].name, name) == 0)
			return &known_options[i];
	}
	return NULL;
}

static bool
belongs_to_catalog(const KnownOption *option, Oid catalog)
{
	return (catalog == ForeignServerRelationId && option->of_server) ||
		(catalog == UserMappingRelationId && option->of_mapping);
}

static const char *
broker_option_name(const KnownOption *option)
{
	return option->broker_name != NULL ? option->broker_name : option->name;
}

/* Tell whether an option has the server read a file; "system" stands for no file. */
static bool
names_file(const KnownOption *option, const char *value)
{
	return option->is_file &&
		!(strcmp(option->name, "sslrootcert") == 0 && strcmp(value, "system") == 0);
}

/* Find the valid option whose name is most like another one; NULL for none. */
static const char *
closest_option(const char *name, Oid catalog)
{
	const char *closest = NULL;
	int			least = MAX_DISTANCE + 1;
	int			i;

	for (i = 0; i < (int) lengthof(known_options) && strlen(name) < NAMEDATALEN; i++)
	{
		const char *known = known_options[i].name;
		int			distance;

		if (!belongs_to_catalog(&known_options[i], catalog))
			continue;
		distance = varstr_levenshtein_less_equal(name, (int) strlen(name), known, (int) strlen(known),
												 1, 1, 1, MAX_DISTANCE, true);
		if (distance < least && distance <= (int) strlen(name) / 2)
		{
			least = distance;
			closest = known;
		}
	}
	return closest;
}

static void
append_valid_options(StringInfo hint, Oid catalog)
{
	int			i;
	const char *separator = "";

	appendStringInfoString(hint, "Valid options in this context are: ");
	for (i = 0; i < (int) lengthof(known_options); i++)
	{
		if (!belongs_to_catalog(&known_options[i], catalog))
			continue;
		appendStringInfo(hint, "%s%s", separator, known_options[i].name);
		separator = ", ";
	}
}

/* Write the hint that goes with an option that is not known here. */
static char *
hint_for_option(const char *name, Oid catalog)
{
	const KnownOption *elsewhere = find_known_option(name);
	const char *closest = closest_option(name, catalog);
	StringInfoData hint;

	if (catalog == ForeignDataWrapperRelationId)
		return pstrdup("There are no valid options in this context; they belong to foreign servers and user mappings.");
	initStringInfo(&hint);
	if (elsewhere != NULL)
		appendStringInfo(&hint, "It is an option of a %s. ",
						 elsewhere->of_server ? "foreign server" : "user mapping");
	else if (closest != NULL)
		appendStringInfo(&hint, "Perhaps you meant the option \"%s\". ", closest);
	append_valid_options(&hint, catalog);
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

/*
 * Convert a value to UTF-8; return NULL when it has no such form, since the
 * error would quote some of it.  Converting text leaves nothing behind that an
 * abort would have to undo.
 */
static const char *
option_to_wire(const char *value)
{
	MemoryContext current = CurrentMemoryContext;
	const char *volatile result = NULL;

	PG_TRY();
	{
		result = pg_server_to_any(value, (int) strlen(value), PG_UTF8);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_CHARACTER_NOT_IN_REPERTOIRE &&
			geterrcode() != ERRCODE_UNTRANSLATABLE_CHARACTER)
			PG_RE_THROW();
		MemoryContextSwitchTo(current);
		FlushErrorState();
	}
	PG_END_TRY();
	return result;
}

static void
check_server_option(RinqBroker *broker, DefElem *element, Oid catalog)
{
	const KnownOption *option = find_known_option(element->defname);
	const char *value = defGetString(element);
	char		problem[1024];

	if (option == NULL || !belongs_to_catalog(option, catalog))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", element->defname),
				 errhint("%s", hint_for_option(element->defname, catalog))));
	if (names_file(option, value) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("It names a file that the server reads, and is for superusers only.")));
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must not be empty", option->name)));
	value = option_to_wire(value);
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("the value of option \"%s\" has no form in UTF-8", option->name)));
	if (!rinq_broker_set_option(broker, broker_option_name(option), value, problem, sizeof(problem)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"%s\"", option->name),
				 errdetail("The value cannot be used: %s.", problem)));
}

/* Refuse options of which one would be without effect. */
static void
refuse_both(List *options, const char *one, const char *other)
{
	bool		has_one = false;
	bool		has_other = false;
	ListCell   *lc;

	foreach(lc, options)
	{
		has_one = has_one || strcmp(((DefElem *) lfirst(lc))->defname, one) == 0;
		has_other = has_other || strcmp(((DefElem *) lfirst(lc))->defname, other) == 0;
	}
	if (has_one && has_other)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options \"%s\" and \"%s\" cannot be used together", one, other)));
}

/*
 * Raise an error unless all options can be set, by the current role, for an
 * object of a catalog.
 */
void
rinq_check_server_options(List *options, Oid catalog)
{
	RinqBroker *broker;
	ListCell   *lc;

	if (catalog == ForeignTableRelationId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign-data wrapper \"rinq\" has no foreign tables"),
				 errhint("Its servers say where the broker of the database is.")));
	broker = palloc(sizeof(RinqBroker));
	rinq_broker_init(broker);
	foreach(lc, options)
		check_server_option(broker, lfirst(lc), catalog);
	rinq_broker_wipe(broker);
	pfree(broker);
	refuse_both(options, "password", "passfile");
	refuse_both(options, "password", "password_file");
	refuse_both(options, "passfile", "password_file");
}

static bool
has_option(List *options, const char *broker_name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		if (strcmp(((RinqServerOption *) lfirst(lc))->name, broker_name) == 0)
			return true;
	}
	return false;
}

/* Tell whether an option is not used, since the mapping says otherwise. */
static bool
is_overridden(const char *name, List *mapping)
{
	return has_option(mapping, name) ||
		(strcmp(name, "passfile") == 0 && has_option(mapping, "password"));
}

/* Say why an option cannot be used; NULL when it can. */
static char *
option_obstacle(const DefElem *element, const char *value, Oid catalog, bool may_read_files)
{
	const KnownOption *known = find_known_option(element->defname);

	if (known == NULL || !belongs_to_catalog(known, catalog))
		return psprintf("the option \"%s\" is not known", element->defname);
	if (names_file(known, value) && !may_read_files)
		return psprintf("the option \"%s\" names a file, and the owner of the server is not a superuser",
						known->name);
	return NULL;
}

/*
 * Add options of an object to a list, but for those that "before" overrides; NIL
 * with a problem when one of them cannot be used.
 */
static List *
add_server_options(List *list, List *elements, Oid catalog, List *before, bool may_read_files,
				   char **problem)
{
	ListCell   *lc;

	foreach(lc, elements)
	{
		DefElem    *element = lfirst(lc);
		char	   *value = defGetString(element);
		const char *converted = option_to_wire(value);
		RinqServerOption *option;

		*problem = option_obstacle(element, value, catalog, may_read_files);
		if (*problem == NULL && converted == NULL)
			*problem = psprintf("the option \"%s\" has no form in UTF-8", element->defname);
		if (*problem != NULL)
			return NIL;
		option = palloc(sizeof(RinqServerOption));
		option->name = broker_option_name(find_known_option(element->defname));
		option->value = converted;
		if (!is_overridden(option->name, before))
			list = lappend(list, option);
	}
	return list;
}

/* Say what is missing or contradicts; NULL when nothing does. */
static char *
options_problem(List *options)
{
	RinqBroker *broker = palloc(sizeof(RinqBroker));
	char		problem[1024] = "";
	bool		ok = true;
	bool		external;
	ListCell   *lc;

	rinq_broker_init(broker);
	foreach(lc, options)
	{
		RinqServerOption *option = lfirst(lc);

		ok = ok && rinq_broker_set_option(broker, option->name, option->value, problem, sizeof(problem));
	}
	ok = ok && rinq_broker_check(broker, problem, sizeof(problem));
	external = broker->sasl_external;
	rinq_broker_wipe(broker);
	pfree(broker);
	if (!ok)
		return pstrdup(problem);
	if (!has_option(options, "hosts"))
		return pstrdup("it has no option \"hosts\"");
	if (external)
		return NULL;
	if (!has_option(options, "user"))
		return pstrdup("there is no user mapping with an option \"user\", for its owner or PUBLIC");
	if (!has_option(options, "password") && !has_option(options, "passfile"))
		return pstrdup("neither \"password\" nor \"passfile\" is given");
	return NULL;
}

/*
 * Put the options of a server and a user mapping together, in UTF-8, of
 * RinqServerOption; the mapping's come first.  NIL with a problem when they
 * cannot be used.
 */
List *
rinq_server_options(List *server, List *mapping, bool may_read_files, char **problem)
{
	List	   *options;

	*problem = NULL;
	options = add_server_options(NIL, mapping, UserMappingRelationId, NIL, may_read_files, problem);
	if (*problem == NULL)
		options = add_server_options(options, server, ForeignServerRelationId, list_copy(options),
									 may_read_files, problem);
	if (*problem == NULL)
		*problem = options_problem(options);
	return *problem == NULL ? options : NIL;
}
