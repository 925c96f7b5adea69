/*-------------------------------------------------------------------------
 *
 * backend/own_schema.c
 *	  Where the extension is: its schemas, and keeping it from being dropped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "backend/own_schema.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/syscache.h"

/* the schema of the tables, as it was found, until a schema changes */
static Oid	internal_schema = InvalidOid;

/* the extension that it belongs to */
static Oid	own_extension = InvalidOid;

/*
 * Return the schema that the extension lives in; InvalidOid when it is not there.
 */
Oid
rinq_extension_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	Oid			result = InvalidOid;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_extension extension = (Form_pg_extension) GETSTRUCT(tuple);

		if (strcmp(NameStr(extension->extname), "rinq") == 0)
			result = extension->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static void
forget_internal_schema(Datum arg, int cache, uint32 hash)
{
	internal_schema = InvalidOid;
}

/*
 * Find the schema of the extension's tables; InvalidOid when it is not there.
 * A schema of that name that is not the extension's own is not used.
 */
Oid
rinq_internal_schema(void)
{
	static bool registered = false;
	Oid			schema;
	Oid			extension;

	if (OidIsValid(internal_schema))
		return internal_schema;
	if (!registered)
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_internal_schema, (Datum) 0);
	registered = true;
	schema = get_namespace_oid(RINQ_INTERNAL_SCHEMA, true);
	if (!OidIsValid(schema))
		return InvalidOid;
	extension = getExtensionOfObject(NamespaceRelationId, schema);
	if (!OidIsValid(extension) || extension != get_extension_oid("rinq", true))
		return InvalidOid;
	internal_schema = schema;
	own_extension = extension;
	return schema;
}

static bool
lock_extension(bool wait)
{
	LOCKTAG		tag;

	if (!OidIsValid(rinq_internal_schema()))
		return true;
	if (wait)
	{
		LockDatabaseObject(ExtensionRelationId, own_extension, 0, AccessShareLock);
		return true;
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, own_extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

/*
 * Keep the extension from being dropped until the transaction ends.  DROP
 * EXTENSION locks it before its tables: a transaction that has this lock can
 * lock several of them without a deadlock, and one that locks any takes it first.
 */
void
rinq_lock_extension(void)
{
	(void) lock_extension(true);
}

/*
 * Try to do the same without waiting: false when it is being dropped.
 */
bool
rinq_try_lock_extension(void)
{
	return lock_extension(false);
}
