/*-------------------------------------------------------------------------
 *
 * config_reader.c
 *	  A short-lived worker that looks into one database: is the extension
 *	  there, which namespaces does it listen to, and which subscriptions has it?
 *
 * The peer and the launcher are connected to no database, so that they are
 * never in the way of DROP DATABASE and its like; this worker reads for them.
 * It is started once per database after server start, and whenever a
 * transaction that changed the answer has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "backend/bus_server.h"
#include "backend/durable_calls.h"
#include "backend/handler_rules.h"
#include "backend/identity.h"
#include "backend/own_relation.h"
#include "backend/own_schema.h"
#include "backend/own_version.h"
#include "backend/prepared.h"
#include "backend/retry_policy.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "ipc/listener_config.h"
#include "ipc/worker.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "protocol/attribute.h"
#include "protocol/payload.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/mailbox_reader.h"

#define LOCK_RETRY 50			/* ms until locks are tried for again */
#define LOCK_PATIENCE 5000		/* ms until another reader has to come */

static RinqWorkerArgs args;
static RinqDatabase *database;
static List *unreadable = NIL;	/* names of tables, each with what is wrong
								 * with it */

/* run after the process has left the database, for those who wait for that */
static void
reader_gone(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (database->oid == args.dboid && database->reader.pid == MyProcPid)
	{
		database->reader.state = RINQ_WORKER_NONE;
		database->reader.procno = RINQ_NO_PROC;
	}
	LWLockRelease(rinq_shared->lock);
	rinq_worker_left(database);
}

/*
 * Announce the reader; false when it is not wanted any more, else *as_of is
 * what its reading is as of.
 */
static bool
announce_reader(uint32 *as_of)
{
	bool		wanted;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	wanted = database->oid == args.dboid &&
		database->reader.state == RINQ_WORKER_STARTING &&
		database->ddl_blocks == 0;
	if (database->oid == args.dboid)
	{
		database->reader.pid = MyProcPid;
		database->reader.procno = RINQ_MY_PROCNO;
		if (wanted)
			database->reader.state = RINQ_WORKER_RUNNING;
	}
	*as_of = database->read_wanted;
	LWLockRelease(rinq_shared->lock);
	return wanted;
}

static char *
text_column(HeapTuple row, TupleDesc desc, int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(row, desc, column);

	return value == NULL ? NULL : MemoryContextStrdup(context, value);
}

/* Find the schema of the extension's tables, NULL when it is not there. */
static char *
extension_schema(void)
{
	if (SPI_execute("SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e"
					" JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) '" RINQ_INTERNAL_SCHEMA "'"
					" JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid"
					" AND c.relname OPERATOR(pg_catalog.=) 'listener' AND c.relkind OPERATOR(pg_catalog.=) 'r'"
					" WHERE e.extname OPERATOR(pg_catalog.=) 'rinq'", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the extension");
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* columns that both tables have */
#define COMMON_COLUMNS "t.namespace, t.handler, t.role, t.owner"

static const RinqRoleReference *
role_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;

	return (RinqRoleReference *) DatumGetPointer(SPI_getbinval(row, desc, column, &isnull));
}

static void
read_common(HeapTuple row, TupleDesc desc, RinqListener *listener, MemoryContext context)
{
	const RinqRoleReference *role = role_column(row, desc, 3);
	const char *name = SPI_getvalue(row, desc, 2);
	const char *problem = rinq_role_obstacle(role);

	memset(listener, 0, sizeof(*listener));
	listener->namespace = text_column(row, desc, 1, context);
	listener->handler = MemoryContextStrdup(context,
											rinq_handler_reference(rinq_handler_by_name(name), name));
	listener->role = role->role;
	listener->owner = role_column(row, desc, 4)->role;
	listener->problem = problem == NULL ? NULL : MemoryContextStrdup(context, problem);
}

static void
run_config_query(const char *text, const char *schema, const char *what)
{
	if (SPI_execute(psprintf(text, quote_identifier(schema)), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the %s", what);
}

/*
 * Tell whether a table is as rinq made it.  Reading it might run other code,
 * and a row that others can write may name any role.
 */
static bool
may_read(const char *name)
{
	Relation	rel = table_open(get_relname_relid(name, rinq_internal_schema()), AccessShareLock);
	char	   *problem = rinq_own_relation_problem(rel, RINQ_OWN_READ);

	table_close(rel, NoLock);
	if (problem != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		unreadable = lappend(unreadable, list_make2(pstrdup(name), pstrdup(problem)));
		MemoryContextSwitchTo(old);
	}
	return problem == NULL;
}

/*
 * Log which tables were not read, and why, unless the reader before has found the
 * same: on a standby, there is one every few seconds.
 */
static void
tell_unreadable(void)
{
	uint32		digest = 0;
	ListCell   *lc;

	foreach(lc, unreadable)
	{
		const char *problem = lsecond(lfirst(lc));

		digest = hash_combine(digest, string_hash(linitial(lfirst(lc)), NAMEDATALEN));
		digest = hash_combine(digest, hash_bytes((const unsigned char *) problem, (int) strlen(problem)));
	}
	if (digest == database->told_unreadable)
		return;
	database->told_unreadable = digest;
	foreach(lc, unreadable)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rinq does not read the table \"%s.%s\", because it is not as rinq made it",
						RINQ_INTERNAL_SCHEMA, (char *) linitial(lfirst(lc))),
				 errdetail_internal("The table cannot be used: %s.", (char *) lsecond(lfirst(lc))),
				 errhint("Remove what was added; rinq_check() lists it.")));
}

/*
 * Tell whether those that wait in the inbox can be asked about now.  Listeners
 * do not wait for that; and a standby has no use for it, since it writes nothing.
 */
static bool
may_read_waiting(void)
{
	Oid			relid = get_relname_relid("inbox_waiting", rinq_internal_schema());

	return !RecoveryInProgress() && OidIsValid(relid) && ConditionalLockRelationOid(relid, AccessShareLock) &&
		may_read("inbox_waiting");
}

/*
 * Read the policy for what has failed; rows that did not come by rinq_listen or
 * rinq_subscribe may have a bad one.
 */
static void
read_retry(HeapTuple row, TupleDesc desc, int column, RinqListener *listener, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);
	char	   *problem;

	if (isnull)
		return;
	problem = rinq_retry_policy_read(DatumGetJsonbP(value), &listener->retry);
	if (problem == NULL)
		return;
	memset(&listener->retry, 0, sizeof(listener->retry));
	listener->problem = MemoryContextStrdup(context, psprintf("its retry policy is invalid: %s", problem));
}

/* Read the path of the value that requests are ordered by. */
static void
read_order_by(HeapTuple row, TupleDesc desc, int column, RinqListener *listener, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);
	StringInfoData path;
	Datum	   *elements;
	bool	   *nulls;
	MemoryContext old;
	int			count;
	int			i;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	old = MemoryContextSwitchTo(context);
	initStringInfo(&path);
	for (i = 0; i < count; i++)
	{
		RinqBytes	element = nulls[i] ? rinq_bytes("", 0) : rinq_text_to_wire(TextDatumGetCString(elements[i]));

		appendBinaryStringInfo(&path, element.data, (int) element.len);
		appendStringInfoChar(&path, '\0');
	}
	listener->order_by = rinq_bytes(path.data, path.len);
	MemoryContextSwitchTo(old);
}

/* Read when the first one that waits is due. */
static void
read_due(HeapTuple row, TupleDesc desc, int column, RinqListener *listener)
{
	bool		isnull;
	Datum		due = SPI_getbinval(row, desc, column, &isnull);

	listener->due = isnull ? 0 : rinq_clock_of_wall(rinq_ms_of_timestamp(DatumGetTimestampTz(due))) + 1;
}

/* when the first one is due of those that wait, or it is looked for, when that cannot be read now */
#define FIRST_DUE(of) "(SELECT w.due FROM %1$s.inbox_waiting w" \
	" WHERE w.waits_for OPERATOR(pg_catalog.=) " of " AND w.database OPERATOR(pg_catalog.=)" \
	" (SELECT d.oid FROM pg_catalog.pg_database d" \
	" WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())" \
	" ORDER BY w.due LIMIT 1)"
#define UNKNOWN_DUE "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.now() END"

#define LISTENER_COLUMNS "SELECT " COMMON_COLUMNS ", COALESCE(t.max_concurrent, 0), t.deduplicate," \
	" COALESCE(t.timeout_ms, 0), t.retry, t.order_by, "
#define FROM_LISTENERS " FROM %1$s.listener t" \
	" WHERE t.on_standby OR NOT pg_catalog.pg_is_in_recovery() ORDER BY t.namespace"

static List *
read_listeners(const char *schema, bool waiting, MemoryContext context)
{
	List	   *listeners = NIL;
	uint64		i;

	run_config_query(waiting ?
					 LISTENER_COLUMNS FIRST_DUE("t.namespace")
					 FROM_LISTENERS : LISTENER_COLUMNS UNKNOWN_DUE FROM_LISTENERS, schema, "listeners");
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		RinqListener *listener = MemoryContextAlloc(context, sizeof(RinqListener));
		MemoryContext old;
		bool		isnull;

		read_common(row, desc, listener, context);
		listener->max_concurrent = DatumGetInt32(SPI_getbinval(row, desc, 5, &isnull));
		listener->deduplicate = DatumGetBool(SPI_getbinval(row, desc, 6, &isnull));
		listener->timeout = DatumGetInt32(SPI_getbinval(row, desc, 7, &isnull));
		read_retry(row, desc, 8, listener, context);
		read_order_by(row, desc, 9, listener, context);
		read_due(row, desc, 10, listener);
		old = MemoryContextSwitchTo(context);
		listeners = lappend(listeners, listener);
		MemoryContextSwitchTo(old);
	}
	return listeners;
}

/* Pack attributes from two arrays, of their keys and values. */
static RinqBytes
pack_attributes(Datum keys, Datum values, MemoryContext context)
{
	StringInfoData list;
	RinqAttribute *attributes;
	Datum	   *key;
	Datum	   *value;
	bool	   *nulls;
	bool	   *value_nulls;
	MemoryContext old;
	int			count;
	int			value_count;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(keys), TEXTOID, -1, false, TYPALIGN_INT, &key, &nulls,
					  &count);
	deconstruct_array(DatumGetArrayTypeP(values), TEXTOID, -1, false, TYPALIGN_INT, &value,
					  &value_nulls, &value_count);
	attributes = palloc0(Max(count, 1) * sizeof(RinqAttribute));
	for (i = 0; i < count; i++)
	{
		attributes[i].key = rinq_text_to_wire(TextDatumGetCString(key[i]));
		attributes[i].value = value_nulls[i] ? rinq_bytes("", 0) :
			rinq_text_to_wire(TextDatumGetCString(value[i]));
	}
	old = MemoryContextSwitchTo(context);
	initStringInfo(&list);
	rinq_attributes_pack(&list, attributes, count);
	MemoryContextSwitchTo(old);
	return rinq_bytes(list.data, list.len);
}

/*
 * Read the attributes of a subscription; rows that did not come by
 * rinq_subscribe may have what cannot be sent.
 */
static void
read_subscription_attributes(HeapTuple row, TupleDesc desc, RinqDurableSubscription *durable, MemoryContext context)
{
	MemoryContext current = CurrentMemoryContext;
	bool		isnull;

	PG_TRY();
	{
		durable->attributes = pack_attributes(SPI_getbinval(row, desc, 6, &isnull),
											  SPI_getbinval(row, desc, 7, &isnull), context);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_CHARACTER_NOT_IN_REPERTOIRE &&
			geterrcode() != ERRCODE_UNTRANSLATABLE_CHARACTER)
			PG_RE_THROW();

		/*
		 * converting text leaves nothing behind that an abort would have to
		 * undo
		 */
		MemoryContextSwitchTo(current);
		FlushErrorState();
		durable->listener.problem = MemoryContextStrdup(context, "its attributes have no form in UTF-8");
	}
	PG_END_TRY();
}

#define SUBSCRIPTION_COLUMNS "SELECT " COMMON_COLUMNS ", t.name," \
	" ARRAY(SELECT a.key FROM pg_catalog.jsonb_each_text(s.attributes) a ORDER BY a.key)," \
	" ARRAY(SELECT a.value FROM pg_catalog.jsonb_each_text(s.attributes) a ORDER BY a.key)," \
	" s.size, t.retry, "
#define FROM_SUBSCRIPTIONS " FROM %1$s.subscription t" \
	" CROSS JOIN LATERAL (SELECT z.size, CASE WHEN z.size OPERATOR(pg_catalog.>) " \
	CppAsString2(RINQ_MAX_SUBSCRIPTION_SIZE) " THEN '{}'::pg_catalog.jsonb" \
	" ELSE t.attributes END AS attributes" \
	" FROM (SELECT pg_catalog.octet_length(t.attributes::pg_catalog.text) AS size) z) s" \
	" ORDER BY t.name"

static List *
read_subscriptions(const char *schema, bool waiting, MemoryContext context)
{
	List	   *subscriptions = NIL;
	uint64		i;

	run_config_query(waiting ?
					 SUBSCRIPTION_COLUMNS FIRST_DUE("(' ' OPERATOR(pg_catalog.||) t.name)") FROM_SUBSCRIPTIONS :
					 SUBSCRIPTION_COLUMNS UNKNOWN_DUE FROM_SUBSCRIPTIONS, schema, "subscriptions");
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		RinqDurableSubscription *durable = MemoryContextAlloc(context, sizeof(RinqDurableSubscription));
		MemoryContext old;
		bool		isnull;

		read_common(row, desc, &durable->listener, context);
		durable->name = text_column(row, desc, 5, context);
		durable->attributes = rinq_bytes(NULL, 0);
		read_retry(row, desc, 9, &durable->listener, context);
		read_due(row, desc, 10, &durable->listener);
		if (DatumGetInt32(SPI_getbinval(row, desc, 8, &isnull)) > RINQ_MAX_SUBSCRIPTION_SIZE)
			durable->listener.problem = MemoryContextStrdup(context, "its attributes are too large");
		else
			read_subscription_attributes(row, desc, durable, context);
		old = MemoryContextSwitchTo(context);
		subscriptions = lappend(subscriptions, durable);
		MemoryContextSwitchTo(old);
	}
	return subscriptions;
}

static void
read_server(RinqServerConfig *server, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	rinq_bus_server_read(server);
	MemoryContextSwitchTo(old);
}

/* say in the log that a database has become suspended */
static void
tell_suspended(const RinqIdentities *identities)
{
	if (identities->suspended == RINQ_NOT_SUSPENDED ||
		identities->suspended == RINQ_SUSPENDED_UNDECIDED ||
		identities->suspended == database->identities.suspended)
		return;
	ereport(LOG,
			(errmsg("rinq suspends database \"%s\": %s",
					get_database_name(MyDatabaseId), rinq_identity_reason(identities)),
			 errhint("%s", rinq_identity_hint(identities))));
}

/*
 * Find out whether the database is a copy of another one, unless its objects are
 * not to be read at all.
 */
static void
read_identity_or_version(RinqIdentities *identities)
{
	switch (rinq_own_version())
	{
		case RINQ_OBJECTS_FIT:
			rinq_prepared_watch(database);
			rinq_identity_read(database, rinq_internal_schema(), identities);
			break;
		case RINQ_OBJECTS_TOO_OLD:
			identities->suspended = RINQ_SUSPENDED_OLD_OBJECTS;
			break;
		case RINQ_OBJECTS_TOO_NEW:
			identities->suspended = RINQ_SUSPENDED_NEW_OBJECTS;
			break;
	}
	tell_suspended(identities);
}

/*
 * Lock what is read, without waiting: what waits for this process may have what
 * it would wait for.  False when a command has any of it; all is released with
 * the transaction.  Identities and listeners may be written, too.
 */
static bool
try_lock_own_tables(void)
{
	static const char *const names[] = {"manifest", "listener", "subscription", "identity", RINQ_CHOSEN_TABLE, "mailbox",
	RINQ_DURABLE_CALL_TABLE, "durable_source"};
	Oid			schema;
	int			i;

	if (!rinq_try_lock_extension())
		return false;
	schema = rinq_internal_schema();
	for (i = 0; OidIsValid(schema) && i < lengthof(names); i++)
	{
		Oid			relid = get_relname_relid(names[i], schema);

		if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
	}
	return true;
}

/*
 * Begin the transaction in which all is read.  False when commands have had the
 * tables all the time, upon which the launcher starts another reader, later.
 */
static bool
begin_reading(void)
{
	static uint32 wait_event = 0;
	int64		deadline = rinq_clock_ms() + LOCK_PATIENCE;

	for (;;)
	{
		StartTransactionCommand();
		if (try_lock_own_tables())
			return true;
		CommitTransactionCommand();
		if (rinq_clock_ms() >= deadline)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_RETRY,
						 RINQ_WAIT_EVENT(wait_event, "RinqReaderRetry"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Read all that there is to find, in one transaction; false when that cannot be done now. */
static bool
read_database(RinqReading *reading, MemoryContext context)
{
	RinqConfig	config;
	char	   *schema;

	memset(&config, 0, sizeof(config));
	if (!begin_reading())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	schema = extension_schema();
	if (schema != NULL)
	{
		reading->presence = RINQ_PRESENT;
		read_identity_or_version(&reading->identities);
		if (reading->identities.suspended == RINQ_NOT_SUSPENDED)
		{
			bool		waiting = may_read_waiting();

			if (may_read("listener"))
				config.listeners = read_listeners(schema, waiting, context);
			if (!RecoveryInProgress() && may_read("subscription"))
				config.durable = read_subscriptions(schema, waiting, context);
			read_server(&config.server, context);
			if (!RecoveryInProgress() && may_read("mailbox") && may_read(RINQ_DURABLE_CALL_TABLE))
				rinq_mailbox_read(&config);
		}
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	tell_unreadable();
	if (reading->presence == RINQ_PRESENT && reading->identities.suspended == RINQ_NOT_SUSPENDED)
		reading->config = rinq_config_pack(&config);
	return true;
}

void
rinq_reader_main(Datum arg)
{
	RinqReading reading = {RINQ_ABSENT, InvalidDsaPointer};
	MemoryContext context;

	database = rinq_worker_attach(&args);
	on_shmem_exit(reader_gone, (Datum) 0);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();	/* SIGINT, too: lock_timeout sends it */

	if (!announce_reader(&reading.as_of))
		proc_exit(0);

	rinq_worker_connect_to_own_tables(&args);
	context = AllocSetContextCreate(TopMemoryContext, "rinq listeners",
									ALLOCSET_DEFAULT_SIZES);

	/*
	 * Rows and indexes may still be waited for.  This is much less than
	 * deadlock_timeout, which counts from when a user's command began to
	 * wait: the reader, which comes again, gives way and not the command.
	 */
	SetConfigOption("lock_timeout", "100ms", PGC_SUSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_RUNNING, "rinq: reading listeners");

	if (read_database(&reading, context))
		rinq_config_publish(database, args.dboid, &reading);
	proc_exit(0);
}
