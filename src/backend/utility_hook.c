/*-------------------------------------------------------------------------
 *
 * utility_hook.c
 *	  Keeping out of the way of commands on databases, and noticing commands
 *	  on the extension.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME and SET TABLESPACE, and CREATE
 * DATABASE ... TEMPLATE need a database that no process is connected to.
 * Before such a command runs, the executors and the reader of that database
 * are sent away, and none is started until the transaction ends.  Peers and
 * launcher are connected to no database and need not leave.
 *
 * What a transaction did to the extension or its listeners takes effect at
 * its commit; all that happens then is counting and waking.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include <signal.h>

#include "access/xact.h"
#include "backend/commit_queue.h"
#include "backend/handler_rules.h"
#include "backend/outbox.h"
#include "backend/own_access.h"
#include "backend/own_ddl.h"
#include "backend/own_dropped.h"
#include "backend/own_schema.h"
#include "backend/prepared.h"
#include "backend/registration.h"
#include "backend/request_context.h"
#include "backend/server_ddl.h"
#include "backend/utility_hook.h"
#include "base/clock.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "ipc/shared.h"
#include "ipc/slots.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#define LEAVE_TIMEOUT 4000		/* ms; PostgreSQL itself waits 5 s after that */
#define LEAVE_RECHECK 50		/* ms */
#define MAX_BLOCKED 16			/* databases that one transaction empties */

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* what the current transaction has to do when it ends */
static bool reread_at_commit = false;
static bool adopt_at_commit = false;
static bool inbox_at_commit = false;
static bool rescan_at_end = false;
static Oid	blocked_databases[MAX_BLOCKED];
static int	num_blocked = 0;
static bool callback_registered = false;

/* a database was changed, by whichever process, since this was false */
static bool databases_changed = false;

/*
 * Ask all processes in the database to leave.  The lock is held, and that of
 * the executors while they are signalled: none of them can end before it has
 * taken these, and so no other process can have its number.
 */
static void
send_away(RinqDatabase *db)
{
	RinqSlots  *slots = rinq_slots_of(db);
	int			i;

	Assert(LWLockHeldByMeInMode(rinq_shared->lock, LW_EXCLUSIVE));
	if (db->reader.state == RINQ_WORKER_RUNNING && db->reader.pid != 0)
		kill(db->reader.pid, SIGTERM);
	if (db->outbox.state == RINQ_WORKER_RUNNING && db->outbox.pid != 0)
		kill(db->outbox.pid, SIGTERM);
	LWLockAcquire(slots->request_lock, LW_EXCLUSIVE);
	for (i = 0; i < RINQ_MAX_EXECUTORS; i++)
	{
		RinqExecutorSlot *executor = &db->executors[i];

		if (executor->state == RINQ_EXECUTOR_FREE)
			continue;
		executor->leave = true;
		pg_atomic_write_u32(&executor->end_now, 1);
		if (executor->state == RINQ_EXECUTOR_IDLE)
			rinq_wake_proc(executor->procno);
		else if (executor->pid != 0)
			kill(executor->pid, SIGTERM);
	}
	LWLockRelease(slots->request_lock);
}

/*
 * Empty a database of our processes, and keep it so until the end of the
 * transaction.  After a while the command is left to find out for itself.
 */
static void
block_database(Oid dboid)
{
	static uint32 wait_event = 0;
	RinqDatabase *db;
	int64		deadline = rinq_clock_ms() + LEAVE_TIMEOUT;

	if (!OidIsValid(dboid) || num_blocked == MAX_BLOCKED)
		return;
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	db = rinq_find_database(dboid);
	if (db != NULL)
	{
		db->ddl_blocks++;
		blocked_databases[num_blocked++] = dboid;
		send_away(db);
	}
	LWLockRelease(rinq_shared->lock);
	if (db == NULL)
		return;

	while (db->oid == dboid && !rinq_database_is_left(db) && rinq_clock_ms() < deadline)
		(void) ConditionVariableTimedSleep(&db->changed, LEAVE_RECHECK,
										   RINQ_WAIT_EVENT(wait_event, "RinqDatabaseLeave"));
	ConditionVariableCancelSleep();
}

static void
unblock_database(Oid dboid)
{
	RinqDatabase *db;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	db = rinq_find_database(dboid);
	if (db != NULL && db->ddl_blocks > 0)
		db->ddl_blocks--;
	LWLockRelease(rinq_shared->lock);
	if (db != NULL)
		rinq_wake_peer(db);
}

/* Have this database looked into again; nothing here can fail. */
static void
request_reading(void)
{
	RinqDatabase *db;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	db = rinq_claim_database(MyDatabaseId);
	if (db == NULL)
		rinq_shared->rescan = rinq_shared->recheck = true;
	else
	{
		if (db->presence == RINQ_ABSENT)
			db->presence = RINQ_UNKNOWN;
		if (NameStr(db->name)[0] == '\0')
			rinq_shared->rescan = true; /* which fills the name in */
		db->read_wanted++;
		if (adopt_at_commit)
			db->adopted = true;
	}
	LWLockRelease(rinq_shared->lock);
}

/*
 * Have the listeners of this database read again now, and its outbox.
 */
void
rinq_utility_hook_reread_now(void)
{
	RinqDatabase *db;

	request_reading();
	rinq_wake_launcher();
	db = rinq_my_database();
	if (db != NULL)
		rinq_sendqueue_want_scan(db);
}

static void
utility_hook_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (inbox_at_commit)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed when rinq tries something again")));
			if (reread_at_commit)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed rinq's listeners or servers")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			if (event == XACT_EVENT_COMMIT && reread_at_commit)
				request_reading();
			while (num_blocked > 0)
				unblock_database(blocked_databases[--num_blocked]);
			if (rescan_at_end)
				rinq_shared->rescan = true;
			if (reread_at_commit || rescan_at_end)
				rinq_wake_launcher();
			rinq_own_forget_dropped();
			reread_at_commit = false;
			adopt_at_commit = false;
			inbox_at_commit = false;
			rescan_at_end = false;
			break;
		default:
			break;
	}
}

static void
register_callback(void)
{
	if (!callback_registered)
		RegisterXactCallback(utility_hook_xact_callback, NULL);
	callback_registered = true;
}

void
rinq_utility_hook_reread_at_commit(void)
{
	if (!rinq_preloaded())
		return;
	register_callback();
	reread_at_commit = true;
}

/*
 * Tell whether the current transaction has changed listeners or the extension, so
 * that the peer hears of it at its commit.
 */
bool
rinq_utility_hook_rereads_at_commit(void)
{
	return reread_at_commit;
}

/*
 * Have the reader find out, when the transaction commits, when the next of what
 * waits in the inbox is due.
 */
void
rinq_utility_hook_inbox_at_commit(void)
{
	rinq_utility_hook_reread_at_commit();
	inbox_at_commit = reread_at_commit;
}

/*
 * End the suspension of the database, whatever it was suspended for, when the
 * transaction commits.
 */
void
rinq_utility_hook_adopt_at_commit(void)
{
	rinq_utility_hook_reread_at_commit();
	adopt_at_commit = true;
}

/* have the extension's own tables read again when the transaction commits */
static void
read_own_tables_again(void)
{
	RinqDatabase *db;

	if (creating_extension || !rinq_preloaded())
		return;
	rinq_utility_hook_reread_at_commit();
	db = rinq_my_database();
	if (db != NULL)
		rinq_send_scan_at_commit(db);
}

static bool
is_own_extension(Oid extension)
{
	char	   *name = get_extension_name(extension);

	return name != NULL && strcmp(name, "rinq") == 0;
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);

	rinq_own_access_created(access, classId, objectId);
	if (rinq_own_ddl_noticed(access, classId, objectId))
		read_own_tables_again();
	if (rinq_server_ddl_noticed(access, classId, objectId))
		rinq_utility_hook_reread_at_commit();
	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		rinq_own_table_dropped(objectId))
		register_callback();
	if (classId == ExtensionRelationId && subId == 0 && is_own_extension(objectId))
	{
		/* its version is changed before the scripts are run that do so */
		if (access == OAT_POST_ALTER)
			read_own_tables_again();
		if (access == OAT_DROP)
		{
			rinq_own_extension_dropped();
			rinq_utility_hook_reread_at_commit();
		}
	}
}

/*
 * Find the template that CREATE DATABASE will copy, if this user may copy it.
 */
static Oid
template_of(CreatedbStmt *stmt)
{
	const char *name = "template1";
	ListCell   *lc;
	Oid			dboid;
	HeapTuple	tuple;
	bool		allowed;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			name = defGetString(option);
	}
	dboid = get_database_oid(name, true);
	if (!OidIsValid(dboid) || OidIsValid(get_database_oid(stmt->dbname, true)))
		return InvalidOid;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	allowed = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return allowed || rinq_is_database_owner(dboid, GetUserId()) ? dboid : InvalidOid;
}

static bool
moves_tablespace(AlterDatabaseStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
			return true;
	}
	return false;
}

static Oid
owned_database(const char *name)
{
	Oid			dboid = get_database_oid(name, true);

	if (dboid == MyDatabaseId ||
		(OidIsValid(dboid) && !rinq_is_database_owner(dboid, GetUserId())))
		return InvalidOid;
	return dboid;
}

/*
 * Find the database that a command needs empty, InvalidOid for none.  A
 * command that is going to fail for lack of privilege, or because it is not at
 * top level, must not disturb any process.
 */
static Oid
database_to_empty(Node *command, bool top_level)
{
	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			PreventInTransactionBlock(top_level, "DROP DATABASE");
			return owned_database(((DropdbStmt *) command)->dbname);
		case T_CreatedbStmt:
			PreventInTransactionBlock(top_level, "CREATE DATABASE");
			return template_of((CreatedbStmt *) command);
		case T_AlterDatabaseStmt:
			if (!moves_tablespace((AlterDatabaseStmt *) command))
				return InvalidOid;
			PreventInTransactionBlock(top_level, "ALTER DATABASE SET TABLESPACE");
			return owned_database(((AlterDatabaseStmt *) command)->dbname);
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType != OBJECT_DATABASE)
				return InvalidOid;
			if (OidIsValid(get_database_oid(((RenameStmt *) command)->newname, true)))
				return InvalidOid;
			return owned_database(((RenameStmt *) command)->subname);
		default:
			return InvalidOid;
	}
}

static bool
changes_databases(Node *command)
{
	return IsA(command, DropdbStmt) || IsA(command, CreatedbStmt) ||
		IsA(command, AlterDatabaseStmt) ||
		(IsA(command, RenameStmt) && ((RenameStmt *) command)->renameType == OBJECT_DATABASE);
}

/*
 * Tell whether a command may change what functions are called, their schema or
 * the type that they take.
 */
static bool
renames_functions(Node *command)
{
	ObjectType	type;

	if (IsA(command, RenameStmt))
		type = ((RenameStmt *) command)->renameType;
	else if (IsA(command, AlterObjectSchemaStmt))
		type = ((AlterObjectSchemaStmt *) command)->objectType;
	else
		return false;
	return type == OBJECT_SCHEMA || type == OBJECT_FUNCTION || type == OBJECT_ROUTINE ||
		type == OBJECT_TYPE || type == OBJECT_EXTENSION;
}

/* List the handlers that a command may rename, none of which is being registered. */
static List *
handlers_to_rename(Node *command)
{
	if (!OidIsValid(rinq_internal_schema()))
		return NIL;
	if (IsA(command, RenameStmt))
		rinq_registration_wait(((RenameStmt *) command)->renameType, ((RenameStmt *) command)->object);
	else
		rinq_registration_wait(((AlterObjectSchemaStmt *) command)->objectType,
							   ((AlterObjectSchemaStmt *) command)->object);
	return rinq_registration_handlers();
}

/* Refuse to rename the schema by whose name the tables are found. */
static void
refuse_to_rename_own_schema(Node *command)
{
	if (IsA(command, RenameStmt) && ((RenameStmt *) command)->renameType == OBJECT_SCHEMA &&
		strcmp(((RenameStmt *) command)->subname, RINQ_INTERNAL_SCHEMA) == 0 &&
		OidIsValid(rinq_internal_schema()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schema \"%s\" cannot be renamed", RINQ_INTERNAL_SCHEMA),
				 errdetail("The tables of extension \"rinq\" are found by this name."),
				 errhint("The schema that the extension was created in can be renamed.")));
}

/* Tell whether a command takes privileges from roles whose listeners may not run any more then. */
static bool
drops_registered(Node *command)
{
	ListCell   *lc;

	if (!IsA(command, DropOwnedStmt) || !OidIsValid(rinq_internal_schema()))
		return false;
	foreach(lc, roleSpecsToIds(((DropOwnedStmt *) command)->roles))
	{
		if (rinq_registration_has(lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* REASSIGN OWNED BY does not change as whom anything runs, which is to be known */
static void
tell_about_reassigning(ReassignOwnedStmt *command)
{
	List	   *roles = roleSpecsToIds(command->roles);
	ListCell   *lc;

	foreach(lc, roles)
	{
		if (!rinq_registration_has(lfirst_oid(lc)))
			continue;
		ereport(NOTICE,
				(errmsg("role \"%s\" still has listeners or subscriptions of rinq",
						GetUserNameFromId(lfirst_oid(lc), false)),
				 errhint("Use rinq_listener_reassign() to have them run as another role.")));
	}
}

static void
database_catalog_changed(Datum arg, int cache, uint32 hash)
{
	databases_changed = true;
}

/* Begin to watch which catalogs the transaction has changed that is about to be committed. */
static void
prepared_commits(void)
{
	AcceptInvalidationMessages();
	databases_changed = false;
}

/*
 * Have found what a transaction has done that was prepared: databases that it has
 * changed, durable messages and calls.
 */
static void
prepared_committed(void)
{
	RinqDatabase *db = rinq_my_database();

	AcceptInvalidationMessages();
	if (databases_changed)
	{
		rinq_shared->rescan = true;
		rinq_wake_launcher();
	}
	if (db != NULL && db->presence == RINQ_PRESENT)
		rinq_prepared_committed(db);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *command = pstmt->utilityStmt;
	bool		committing = IsA(command, TransactionStmt) &&
		((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED;
	bool		renaming = renames_functions(command);
	bool		dropping = drops_registered(command);
	List	   *handlers = NIL;

	if (changes_databases(command) && IsTransactionState())
	{
		Oid			dboid = database_to_empty(command, context == PROCESS_UTILITY_TOPLEVEL);

		register_callback();
		rescan_at_end = true;
		block_database(dboid);
	}
	if (renaming)
	{
		refuse_to_rename_own_schema(command);
		handlers = handlers_to_rename(command);
	}
	rinq_own_access_check(command);
	if (committing)
		prepared_commits();
	if (prev_process_utility)
		prev_process_utility(pstmt, query_string, read_only_tree, context, params,
							 env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query_string, read_only_tree, context, params,
								env, dest, qc);
	if (handlers != NIL)
		rinq_registration_rename(handlers);
	if (dropping)
		rinq_utility_hook_reread_at_commit();
	if (IsA(command, ReassignOwnedStmt))
		tell_about_reassigning((ReassignOwnedStmt *) command);
	if (rinq_server_ddl_done(command))
		rinq_utility_hook_reread_at_commit();
	if (committing)
		prepared_committed();
	else if (rinq_own_ddl_done(command))
		read_own_tables_again();
}

/*
 * Install the hooks; called while the server loads the library.
 */
void
rinq_utility_hook_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	CacheRegisterSyscacheCallback(DATABASEOID, database_catalog_changed, (Datum) 0);
}
