/*-------------------------------------------------------------------------
 *
 * backend/bus_server.c
 *	  Which foreign server says where the broker of the database is.
 *
 * It is the only one of the extension's wrapper, or the one that
 * rinq_use_server() has chosen.  Having the database server open connections
 * is a privilege: servers of roles that are neither superusers nor the
 * extension's owner do not count, as if they were not there.
 *
 * When it is not clear which server is meant, none is used, and the settings
 * are not used either: a database that was given a broker of its own must not
 * be found on another one.
 *
 * Read the catalogs without SQL: any role's process does so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/tableam.h"
#include "backend/bus_server.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/server_options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "executor/tuptable.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/*
 * Find the extension's foreign-data wrapper; InvalidOid when it is not there.
 * It is known by being the extension's, not by its name: a superuser who renames
 * it must not have the servers forgotten, and with them who may use the bus.
 */
Oid
rinq_wrapper(void)
{
	Oid			wrapper = InvalidOid;
	Relation	rel = table_open(ForeignDataWrapperRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (!OidIsValid(wrapper) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			oid = ((Form_pg_foreign_data_wrapper) GETSTRUCT(tuple))->oid;

		if (rinq_is_extension_object(ForeignDataWrapperRelationId, oid))
			wrapper = oid;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return wrapper;
}

/*
 * Tell whether servers of a role count.
 */
bool
rinq_server_counts(Oid owner)
{
	return superuser_arg(owner) || owner == rinq_extension_owner();
}

/* Make a server of its row, palloc'd. */
static RinqServer *
server_of_tuple(HeapTuple tuple, TupleDesc desc)
{
	Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);
	RinqServer *server = palloc0(sizeof(RinqServer));
	bool		isnull;
	Datum		options = heap_getattr(tuple, Anum_pg_foreign_server_srvoptions, desc, &isnull);

	server->oid = form->oid;
	server->owner = form->srvowner;
	server->name = pstrdup(NameStr(form->srvname));
	server->options = isnull ? NIL : untransformRelOptions(options);
	return server;
}

static int
compare_server_names(const ListCell *one, const ListCell *other)
{
	return strcmp(((const RinqServer *) lfirst(one))->name, ((const RinqServer *) lfirst(other))->name);
}

/* List the servers of the wrapper by name, those that do not count included. */
static List *
list_servers(void)
{
	Oid			wrapper = rinq_wrapper();
	List	   *servers = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(wrapper))
		return NIL;
	rel = table_open(ForeignServerRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (((Form_pg_foreign_server) GETSTRUCT(tuple))->srvfdw == wrapper)
			servers = lappend(servers, server_of_tuple(tuple, RelationGetDescr(rel)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(servers, compare_server_names);
	return servers;
}

static RinqServer *
server_in_list(List *servers, const char *name)
{
	ListCell   *lc;

	foreach(lc, servers)
	{
		RinqServer *server = lfirst(lc);

		if (strcmp(server->name, name) == 0)
			return server;
	}
	return NULL;
}

/*
 * Find a server of the wrapper; NULL when there is none of this name.
 */
RinqServer *
rinq_server_by_name(const char *name)
{
	return server_in_list(list_servers(), name);
}

/*
 * Tell whether the table is as rinq made it, as far as a scan is concerned, which
 * runs no code of others.  The shape that a table has to have is in another one,
 * which a process that has a lock on this one had better not wait for.
 */
static bool
is_chosen_table(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relowner == rinq_extension_owner() &&
		RelationGetDescr(rel)->natts == 1 &&
		TupleDescAttr(RelationGetDescr(rel), 0)->atttypid == TEXTOID;
}

/* List the names in the table of the server that was chosen, each once. */
static List *
scan_chosen(Relation rel)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = rinq_register_newest_snapshot(rel);
	TableScanDesc scan = rinq_begin_scan(rel, snapshot);
	List	   *names = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, 1, &isnull);
		char	   *name;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (isnull)
			continue;
		name = TextDatumGetCString(value);
		foreach(lc, names)
		{
			if (strcmp(lfirst(lc), name) == 0)
				break;
		}
		if (lc == NULL)
			names = lappend(names, name);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return names;
}

/*
 * Read which server was chosen; several when tables were restored over each
 * other.  A table that is not as rinq made it is a problem.
 */
static List *
read_chosen(char **problem)
{
	Oid			extension = rinq_lock_extension_briefly();
	Oid			relid;
	Relation	rel;
	List	   *names = NIL;

	relid = get_relname_relid(RINQ_CHOSEN_TABLE, rinq_internal_schema());
	rel = OidIsValid(relid) ? table_open(relid, AccessShareLock) : NULL;
	if (rel != NULL)
	{
		if (is_chosen_table(rel))
			names = scan_chosen(rel);
		else
			*problem = psprintf("the table \"%s.%s\" is not as rinq made it",
								RINQ_INTERNAL_SCHEMA, RINQ_CHOSEN_TABLE);
		table_close(rel, AccessShareLock);
	}
	rinq_unlock_extension(extension);
	return names;
}

/* Say why a server that was chosen cannot be used; NULL when it can. */
static char *
chosen_problem(const char *name, const RinqServer *server)
{
	char	   *owner;

	if (server == NULL)
		return psprintf("there is no server \"%s\" any more, which rinq_use_server() has chosen", name);
	if (rinq_server_counts(server->owner))
		return NULL;
	owner = GetUserNameFromId(server->owner, true);
	return psprintf("server \"%s\" belongs to role \"%s\", which is neither a superuser nor the owner of the extension",
					name, owner == NULL ? "" : owner);
}

/* Use the server that was chosen. */
static void
use_chosen(RinqBusServer *found, List *servers, const char *name)
{
	RinqServer *server = server_in_list(servers, name);

	found->problem = chosen_problem(name, server);
	if (server != NULL)
		found->meant = list_make1_oid(server->oid);
	if (found->problem == NULL)
		found->server = server;
}

/* Use the only server that counts. */
static void
use_only_server(RinqBusServer *found, List *servers)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, servers)
	{
		RinqServer *server = lfirst(lc);

		if (!rinq_server_counts(server->owner))
			continue;
		appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", server->name);
		found->meant = lappend_oid(found->meant, server->oid);
		found->server = server;
	}
	if (list_length(found->meant) > 1)
	{
		found->server = NULL;
		found->problem = psprintf("there are the servers %s, and rinq_use_server() has chosen none of them",
								  names.data);
	}
	pfree(names.data);
}

/*
 * Find the server of this database, in the current memory context.
 */
void
rinq_bus_server_find(RinqBusServer *found)
{
	List	   *servers = list_servers();
	List	   *chosen;

	memset(found, 0, sizeof(*found));
	chosen = read_chosen(&found->problem);
	if (found->problem != NULL)
		return;
	if (list_length(chosen) > 1)
		found->problem = pstrdup("rinq_use_server() has chosen several servers");
	else if (chosen != NIL)
		use_chosen(found, servers, linitial(chosen));
	else
		use_only_server(found, servers);
}

/* Read the options of a mapping; false when there is none. */
static bool
mapping_options(Oid user, Oid server, List **options)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
										ObjectIdGetDatum(server));
	Datum		value;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return false;
	value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(value);
	ReleaseSysCache(tuple);
	return true;
}

/*
 * Return the options of the mapping of the server's owner, else of PUBLIC's:
 * only the owner and superusers can make either of them.
 */
static List *
credentials_of(const RinqServer *server)
{
	List	   *options = NIL;

	if (!mapping_options(server->owner, server->oid, &options))
		(void) mapping_options(InvalidOid, server->oid, &options);
	return options;
}

/*
 * Read what the peer has to know of the server, in the current memory context.
 */
void
rinq_bus_server_read(RinqServerConfig *config)
{
	RinqBusServer found;
	char	   *problem;

	memset(config, 0, sizeof(*config));
	rinq_bus_server_find(&found);
	config->problem = found.problem;
	if (found.server == NULL)
		return;
	config->name = found.server->name;
	config->options = rinq_server_options(found.server->options, credentials_of(found.server),
										  superuser_arg(found.server->owner), &problem);
	if (problem != NULL)
		config->problem = psprintf("server \"%s\" cannot be used: %s", config->name, problem);
}
