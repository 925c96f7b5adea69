/*-------------------------------------------------------------------------
 *
 * backend/bus_access.c
 *	  Who may use the bus of this database.
 *
 * Where a foreign server says where the broker is (backend/bus_server.c), the
 * privilege USAGE on it decides which roles may use the bus at all, beside the
 * privileges on functions.  A database without such a server asks for nothing.
 *
 * Remember what was found: a process asks before each call.  The catalogs'
 * invalidation messages end that, and those for the table of the server that
 * was chosen, which a trigger on it sends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/bus_access.h"
#include "backend/bus_server.h"
#include "backend/own_schema.h"
#include "backend/row_access.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define MAX_LOOK_UPS 10			/* of catalogs that change meanwhile */

/* what was found, while "valid" */
typedef struct BusAccess
{
	bool		valid;
	Oid			table;			/* of the server that was chosen */
	List	   *meant;			/* OIDs of servers, in TopMemoryContext */
	bool		refused;		/* to all but superusers: no server is meant */
	Oid			allowed;		/* a role that may use the bus */
} BusAccess;

static BusAccess bus_access;
static uint64 bus_invalidations = 0;

static void
forget_access(void)
{
	bus_access.valid = false;
	bus_access.allowed = InvalidOid;
	bus_invalidations++;
}

static void
bus_catalog_changed(Datum arg, int cache, uint32 hash)
{
	forget_access();
}

static void
bus_relation_changed(Datum arg, Oid relid)
{
	if (relid == bus_access.table || !OidIsValid(relid))
		forget_access();
}

static void
watch_bus_catalogs(void)
{
	static const int caches[] = {FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, AUTHOID, AUTHMEMROLEMEM,
	DATABASEOID};				/* whose owner is a member of a role */
	static bool watching = false;
	int			i;

	if (watching)
		return;
	for (i = 0; i < (int) lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], bus_catalog_changed, (Datum) 0);
	CacheRegisterRelcacheCallback(bus_relation_changed, (Datum) 0);
	watching = true;
}

/* Look up once which servers are meant. */
static void
look_up_servers(void)
{
	RinqBusServer found;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rinq servers",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	uint64		seen = bus_invalidations;

	bus_access.table = get_relname_relid(RINQ_CHOSEN_TABLE, rinq_internal_schema());
	rinq_bus_server_find(&found);
	MemoryContextSwitchTo(TopMemoryContext);
	list_free(bus_access.meant);
	bus_access.meant = NIL;
	bus_access.meant = list_copy(found.meant);
	MemoryContextSwitchTo(old);
	bus_access.refused = found.problem != NULL && found.meant == NIL;
	MemoryContextDelete(context);
	bus_access.valid = seen == bus_invalidations;
}

/*
 * Find out which servers are meant, unless that is remembered.
 */
static void
find_meant_servers(void)
{
	int			tries;

	watch_bus_catalogs();
	for (tries = 0; !bus_access.valid && tries < MAX_LOOK_UPS; tries++)
		look_up_servers();
}

/* Tell whether a role has USAGE on the server of a row. */
static bool
has_usage(HeapTuple tuple, Oid role)
{
	static const RinqAclColumn where = {FOREIGNSERVEROID, Anum_pg_foreign_server_srvacl, OBJECT_FOREIGN_SERVER};

	return rinq_row_allows(&where, tuple, ((Form_pg_foreign_server) GETSTRUCT(tuple))->srvowner, role, ACL_USAGE);
}

/*
 * Find a server whose USAGE a role lacks; InvalidOid when there is none.  One
 * that others have dropped in between is no reason for an error, as it would be
 * for PostgreSQL's own function: it may have been replaced.
 */
static Oid
server_refused(Oid role, bool *gone)
{
	ListCell   *lc;

	*gone = false;
	if (superuser_arg(role))
		return InvalidOid;
	foreach(lc, bus_access.meant)
	{
		HeapTuple	tuple = SearchSysCache1(FOREIGNSERVEROID, ObjectIdGetDatum(lfirst_oid(lc)));
		bool		allowed;

		*gone = !HeapTupleIsValid(tuple);
		if (*gone)
			return lfirst_oid(lc);
		allowed = has_usage(tuple, role);
		ReleaseSysCache(tuple);
		if (!allowed)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/*
 * Tell whether a role may use the bus.  When it is not clear which of several
 * servers is meant, it has to be allowed to use all of them.
 */
static bool
may_use_bus(Oid role, Oid *server)
{
	uint64		seen = 0;
	bool		gone = true;
	int			tries;

	*server = InvalidOid;
	if (bus_access.valid && bus_access.allowed == role)
		return true;
	for (tries = 0; gone && tries < MAX_LOOK_UPS; tries++)
	{
		find_meant_servers();
		seen = bus_invalidations;
		if (bus_access.refused && !superuser_arg(role))
		{
			*server = InvalidOid;
			return false;
		}
		*server = server_refused(role, &gone);
		if (gone)
			forget_access();
	}
	if (OidIsValid(*server))
		return false;
	if (seen == bus_invalidations)
		bus_access.allowed = role;
	return true;
}

static const char *
server_name_of(Oid server)
{
	ForeignServer *found = GetForeignServerExtended(server, FSV_MISSING_OK);

	return found == NULL ? "" : found->servername;
}

/*
 * Say why a role may not use the bus, palloc'd; NULL when it may.
 */
char *
rinq_bus_obstacle(Oid role)
{
	Oid			server;

	if (may_use_bus(role, &server))
		return NULL;
	if (!OidIsValid(server))
		return pstrdup("the server that rinq_use_server() has chosen is not there");
	return psprintf("its role may not use server \"%s\"", server_name_of(server));
}

/*
 * Raise an error unless a role may use the bus.
 */
void
rinq_check_bus_access(Oid role)
{
	Oid			server;

	if (may_use_bus(role, &server))
		return;
	if (!OidIsValid(server))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the bus of this database"),
				 errdetail("It is not known which foreign server the role \"%s\" would need the privilege USAGE on.",
						   GetUserNameFromId(role, false)),
				 errhint("Look at rinq_peer.last_error, and use rinq_use_server().")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for foreign server %s", server_name_of(server)),
			 errdetail("The server says where the broker of this database is, and the role \"%s\" may not use it.",
					   GetUserNameFromId(role, false)),
			 errhint("Use GRANT USAGE ON FOREIGN SERVER %s TO %s.", quote_identifier(server_name_of(server)),
					 quote_identifier(GetUserNameFromId(role, false)))));
}
