/*-------------------------------------------------------------------------
 *
 * worker/database_list.c
 *	  The databases that may be served, as the launcher found them when it
 *	  looked last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/database_list.h"

/*
 * Databases that may be served, as of the last look; and those of them that
 * were found without the extension, and need not be looked into before a
 * transaction there says that it has made one.
 */
static List *served = NIL;
static List *known_absent = NIL;

/*
 * Return the databases that may be served, by what pg_database and the settings
 * say: RinqFoundDatabase *, in a memory context.
 */
List *
rinq_list_databases(MemoryContext context)
{
	List	   *found = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;
		RinqFoundDatabase *entry;

		if (!form->datallowconn || form->datistemplate ||
			form->datconnlimit == DATCONNLIMIT_INVALID_DB ||
			!rinq_database_is_served(NameStr(form->datname)))
			continue;
		old = MemoryContextSwitchTo(context);
		entry = palloc(sizeof(RinqFoundDatabase));
		entry->oid = form->oid;
		entry->name = form->datname;
		found = lappend(found, entry);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return found;
}

static void
remember_oid(List **oids, Oid oid)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	*oids = list_append_unique_oid(*oids, oid);
	MemoryContextSwitchTo(old);
}

/*
 * Remember the databases that were found, and no others.
 */
void
rinq_remember_databases(List *found)
{
	List	   *absent = NIL;
	ListCell   *lc;

	list_free(served);
	served = NIL;
	foreach(lc, found)
	{
		RinqFoundDatabase *entry = lfirst(lc);

		remember_oid(&served, entry->oid);
		if (list_member_oid(known_absent, entry->oid))
			remember_oid(&absent, entry->oid);
	}
	list_free(known_absent);
	known_absent = absent;
}

/*
 * Tell whether a database was found when this was looked at last.
 */
bool
rinq_may_be_served(Oid oid)
{
	return list_member_oid(served, oid);
}

/*
 * Tell whether a database is known to be without the extension.
 */
bool
rinq_known_absent(Oid oid)
{
	return list_member_oid(known_absent, oid);
}

/*
 * Note that a database is without the extension.
 */
void
rinq_remember_absent(Oid oid)
{
	remember_oid(&known_absent, oid);
}

/*
 * Have all databases looked into again that are without the extension.
 */
void
rinq_forget_absent(void)
{
	list_free(known_absent);
	known_absent = NIL;
}
