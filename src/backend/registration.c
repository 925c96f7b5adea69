/*-------------------------------------------------------------------------
 *
 * backend/registration.c
 *	  What ties listeners and subscriptions to their roles and functions.
 *
 * Grant each role that has a listener or subscription a privilege that is good
 * for nothing else: PostgreSQL then refuses to drop the role, as it does for
 * one that owns anything, dumps the grant, and takes it away with DROP OWNED
 * BY, after which the listeners do not run any more.
 *
 * Functions are stored by name, so that they can be created anew and dumped.
 * When a function, its schema or the extension's is renamed, so are they, in
 * the same transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "backend/handler_rules.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/registration.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define MAX_REMOVALS 10

static const char *const table_names[] = {"listener", "subscription"};

/* a handler before a command that renames */
typedef struct NamedHandler
{
	Oid			func;
	char	   *name;
} NamedHandler;

typedef List *(*AddValue) (List *list, Datum value);

/*
 * Scan a column of a table, whatever snapshot the transaction has.  No code of
 * others can run; a table that cannot even be read has no values.
 */
static List *
add_column(List *list, const char *table, const char *column, AddValue add)
{
	Oid			relid = get_relname_relid(table, rinq_internal_schema());
	Relation	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	AttrNumber	number;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	TableScanDesc scan;

	if (rel == NULL || rinq_own_relation_problem(rel, RINQ_OWN_READ) != NULL)
	{
		if (rel != NULL)
			relation_close(rel, AccessShareLock);
		return list;
	}
	number = get_attnum(relid, column);
	slot = table_slot_create(rel, NULL);
	snapshot = rinq_register_newest_snapshot(rel);
	scan = rinq_begin_scan(rel, snapshot);
	Assert(number != InvalidAttrNumber);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, number, &isnull);

		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			list = add(list, value);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(rel, AccessShareLock);
	return list;
}

static List *
add_role(List *roles, Datum value)
{
	return list_append_unique_oid(roles, ((RinqRoleReference *) DatumGetPointer(value))->role);
}

static List *
add_handler(List *handlers, Datum value)
{
	NamedHandler *handler = palloc(sizeof(NamedHandler));

	handler->name = TextDatumGetCString(value);
	handler->func = rinq_handler_by_name(handler->name);
	return lappend(handlers, handler);
}

/* List the roles that have anything, as far as they exist. */
static List *
roles_in_use(void)
{
	List	   *roles = NIL;
	List	   *existing = NIL;
	ListCell   *lc;
	int			i;

	for (i = 0; i < (int) lengthof(table_names); i++)
		roles = add_column(roles, table_names[i], "role", add_role);
	foreach(lc, roles)
	{
		if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(lfirst_oid(lc))))
			existing = lappend_oid(existing, lfirst_oid(lc));
	}
	return existing;
}

/* List the roles that hold the privilege, the function's owner included. */
static List *
roles_granted(Oid func, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(func));
	List	   *roles = NIL;
	bool		isnull;
	Datum		value;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", func);
	*owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	roles = list_make1_oid(*owner);
	value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	if (!isnull)
	{
		Acl		   *acl = DatumGetAclPCopy(value);
		int			i;

		for (i = 0; i < ACL_NUM(acl); i++)
		{
			/* what was granted to PUBLIC is not ours */
			if (ACL_DAT(acl)[i].ai_grantee != ACL_ID_PUBLIC)
				roles = list_append_unique_oid(roles, ACL_DAT(acl)[i].ai_grantee);
		}
	}
	ReleaseSysCache(tuple);
	return roles;
}

/* Make a role what a statement names it by. */
static RoleSpec *
role_spec(Oid role)
{
	RoleSpec   *spec = makeNode(RoleSpec);

	spec->roletype = ROLESPEC_CSTRING;
	spec->rolename = GetUserNameFromId(role, false);
	spec->location = -1;
	return spec;
}

/* GRANT or REVOKE, without what would run as a command of the user's own */
static void
grant_registration(List *roles, bool is_grant)
{
	GrantStmt  *statement = makeNode(GrantStmt);
	ObjectWithArgs *function = makeNode(ObjectWithArgs);
	AccessPriv *privilege = makeNode(AccessPriv);
	ListCell   *lc;

	if (roles == NIL)
		return;
	function->objname = list_make2(makeString(pstrdup(RINQ_INTERNAL_SCHEMA)),
								   makeString(pstrdup(RINQ_REGISTRATION_FUNCTION)));
	privilege->priv_name = pstrdup("execute");
	statement->is_grant = is_grant;
	statement->targtype = ACL_TARGET_OBJECT;
	statement->objtype = OBJECT_FUNCTION;
	statement->objects = list_make1(function);
	statement->privileges = list_make1(privilege);
	statement->behavior = DROP_RESTRICT;
	foreach(lc, roles)
	{
		if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(lfirst_oid(lc))))
			statement->grantees = lappend(statement->grantees, role_spec(lfirst_oid(lc)));
	}
	if (statement->grantees == NIL)
		return;
	ExecuteGrantStmt(statement);
	CommandCounterIncrement();
}

/*
 * Lock the tables against all who change them; true when no other is changing
 * them.
 */
static bool
lock_alone(Oid func)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ProcedureRelationId, func, 0);
	return LockAcquire(&tag, ShareRowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Keep a role from being dropped, which gets a listener or subscription.
 *
 * Who does so holds a lock until the end of the transaction that does not get
 * in the way of others who do; one more is waited for when the role has nothing
 * yet.
 */
void
rinq_registration_add(Oid role)
{
	Oid			func = rinq_registration_function();

	if (!OidIsValid(func) || !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return;
	LockDatabaseObject(ProcedureRelationId, func, 0, RowExclusiveLock);
	if (rinq_is_registered_role(role))
		return;
	LockDatabaseObject(ProcedureRelationId, func, 0, ShareUpdateExclusiveLock);
	if (!rinq_is_registered_role(role))
		grant_registration(list_make1_oid(role), true);
}

/*
 * List the roles that have been granted the privilege and have nothing any
 * more.
 */
static List *
roles_done(Oid func)
{
	Oid			owner;
	List	   *granted = roles_granted(func, &owner);

	return list_difference_oid(list_delete_oid(granted, owner), roles_in_use());
}

/*
 * Let go of roles that have no listener or subscription any more, after these
 * were changed.  Only a transaction that is alone does so, since another's row
 * may come to need the privilege; otherwise the next one does.
 */
void
rinq_registration_tidy(void)
{
	Oid			func = rinq_registration_function();

	if (!OidIsValid(func))
		return;					/* the extension is being made */
	CommandCounterIncrement();
	if (roles_done(func) != NIL && lock_alone(func))
		grant_registration(roles_done(func), false);
}

/*
 * Check whether a role has listeners or subscriptions in this database.
 */
bool
rinq_registration_has(Oid role)
{
	return OidIsValid(rinq_internal_schema()) && list_member_oid(roles_in_use(), role);
}

/* what is under a key, and may be removed by the current role or not */
#define OF_KEY " FROM %%s WHERE %s OPERATOR(pg_catalog.=) $1"
#define MAY_REMOVE "(rinq_internal.role_oid(role) OPERATOR(pg_catalog.=) $2 OR $3)"

static bool
run_for_key(const char *table, const char *command, const char *key_column, const char *key)
{
	Oid			types[3] = {TEXTOID, OIDOID, BOOLOID};
	Datum		values[3];

	values[0] = CStringGetTextDatum(key);
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = BoolGetDatum(superuser());
	return rinq_own_table_write(rinq_internal_schema(), table, psprintf(command, key_column),
								3, types, values, NULL) > 0;
}

/*
 * Remove what the current role has under a key.  What is replaced in the same
 * moment, and so neither what there was nor another's, is looked for again.
 */
RinqRemoval
rinq_registration_remove(const char *table, const char *key_column, const char *key)
{
	int			tries;

	for (tries = 0; tries < MAX_REMOVALS; tries++)
	{
		if (run_for_key(table, "DELETE" OF_KEY " AND " MAY_REMOVE, key_column, key))
			return RINQ_REMOVAL_DONE;
		if (run_for_key(table, "SELECT" OF_KEY " AND " MAY_REMOVE, key_column, key))
			continue;
		return run_for_key(table, "SELECT" OF_KEY " AND NOT " MAY_REMOVE, key_column, key) ?
			RINQ_REMOVAL_REFUSED : RINQ_REMOVAL_NONE;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("%s \"%s\" is replaced again and again", table, key)));
}

/*
 * Keep a function from being dropped, renamed, or given to another owner until
 * the end of the transaction, which is about to register it by its name.  The
 * extension is locked before, as DROP EXTENSION ... CASCADE does.
 */
void
rinq_registration_lock(Oid func)
{
	rinq_lock_extension();
	LockDatabaseObject(ProcedureRelationId, func, 0, AccessShareLock);
}

/*
 * Wait for those who are registering the function of a command, which PostgreSQL
 * would lock only after the handlers were listed.
 */
void
rinq_registration_wait(ObjectType type, Node *function)
{
	Relation	rel;

	if (type != OBJECT_FUNCTION && type != OBJECT_ROUTINE)
		return;
	rinq_lock_extension();
	(void) get_object_address(type, function, &rel, AccessExclusiveLock, true);
}

/*
 * Return the handlers that exist, in the current memory context.
 */
List *
rinq_registration_handlers(void)
{
	List	   *handlers = NIL;
	int			i;

	if (!OidIsValid(rinq_internal_schema()))
		return NIL;
	for (i = 0; i < (int) lengthof(table_names); i++)
		handlers = add_column(handlers, table_names[i], "handler", add_handler);
	return handlers;
}

static void
rename_handler(const char *from, const char *to)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	int			i;

	values[0] = CStringGetTextDatum(from);
	values[1] = CStringGetTextDatum(to);
	for (i = 0; i < (int) lengthof(table_names); i++)
		(void) rinq_own_table_write(rinq_internal_schema(), table_names[i],
									"UPDATE %s SET handler = $2 WHERE handler OPERATOR(pg_catalog.=) $1",
									2, types, values, NULL);
}

/*
 * Write down what handlers are called after a command that may have renamed
 * them, or what their names are made of.
 */
void
rinq_registration_rename(List *handlers)
{
	ListCell   *lc;

	CommandCounterIncrement();
	foreach(lc, handlers)
	{
		const NamedHandler *handler = lfirst(lc);
		char	   *name;

		if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(handler->func)))
			continue;
		name = format_procedure_qualified(handler->func);
		if (strcmp(name, handler->name) != 0)
			rename_handler(handler->name, name);
	}
}
