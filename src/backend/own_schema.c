/*-------------------------------------------------------------------------
 *
 * backend/own_schema.c
 *	  Where the extension is: its schemas, what belongs to it, and keeping it from being
 *	  dropped.
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
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* the schema of the tables, as it was found, until a schema changes */
static Oid	internal_schema = InvalidOid;

/* the extension that it belongs to */
static Oid	own_extension = InvalidOid;

/*
 * Look up the extension in this database; false, with nothing found, when it is
 * not there.  Its version is palloc'd.
 */
bool
rinq_find_extension(RinqExtension * found)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	memset(found, 0, sizeof(*found));
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("rinq"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		Datum		version = heap_getattr(tuple, Anum_pg_extension_extversion,
										   RelationGetDescr(rel), &isnull);

		found->oid = form->oid;
		found->schema = form->extnamespace;
		found->owner = form->extowner;
		found->version = isnull ? NULL : TextDatumGetCString(version);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return OidIsValid(found->oid);
}

/*
 * Return the schema that the extension lives in; InvalidOid when it is not there.
 */
Oid
rinq_extension_schema(void)
{
	RinqExtension extension;

	(void) rinq_find_extension(&extension);
	return extension.schema;
}

/*
 * Return who owns the extension; InvalidOid when it is not there.
 */
Oid
rinq_extension_owner(void)
{
	RinqExtension extension;

	(void) rinq_find_extension(&extension);
	return extension.owner;
}

/*
 * Tell whether an object of a catalog is the extension's.
 */
bool
rinq_is_extension_object(Oid classId, Oid objectId)
{
	Oid			extension = getExtensionOfObject(classId, objectId);

	return OidIsValid(extension) && extension == get_extension_oid("rinq", true);
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
 * Do the same for as long as it takes to read a table; return what is to be
 * unlocked, InvalidOid for nothing.
 */
Oid
rinq_lock_extension_briefly(void)
{
	Oid			extension;

	if (!OidIsValid(rinq_internal_schema()))
		return InvalidOid;
	extension = own_extension;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return extension;
}

void
rinq_unlock_extension(Oid extension)
{
	if (OidIsValid(extension))
		UnlockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
}

/*
 * Try to keep the extension so without waiting: false when it is being dropped.
 */
bool
rinq_try_lock_extension(void)
{
	return lock_extension(false);
}
