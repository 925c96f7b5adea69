/*-------------------------------------------------------------------------
 *
 * backend/identity.c
 *	  Which database this is, and whether it is a copy of another one.
 *
 * Recognise a copy that is beside its original, so that it does not serve the
 * same namespaces, however it was made.  Each database has an identity, a
 * random number in a table that dumps have, with its origin beside it: the
 * server and the database that hold the identity.  Where the origin is another
 * database than the one the row is read in, the row came with a copy.  The
 * listeners say which identity they were registered under, so that it does not
 * matter in which order a dump is restored.
 *
 * A copy takes the identity over when no other database of this server has it:
 * then it has replaced its original.  Who has which identity is in shared
 * memory, where readers put what they find; a copy is decided about when all
 * databases have been looked into.  What was decided is written into the
 * table, so that it stays.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "backend/identity.h"
#include "backend/own_tables.h"
#include "backend/own_version.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "guc.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_this_database);

#define IDENTITY_TABLE "identity"

/* "18446744073709551615/4294967295" */
#define ORIGIN_LEN 32

/* an identity that came with a copy */
typedef struct Claim
{
	pg_uuid_t	id;
	Oid			database;		/* of its origin */
	bool		exists;			/* on this server */
	bool		is_template;
} Claim;

static void
format_origin(uint64 server, Oid database, char *buf)
{
	snprintf(buf, ORIGIN_LEN, UINT64_FORMAT "/%u", server, database);
}

/*
 * rinq_internal.this_database() returns text
 *
 * This server and database, as an origin of identities.
 */
Datum
rinq_this_database(PG_FUNCTION_ARGS)
{
	char		origin[ORIGIN_LEN];

	format_origin(GetSystemIdentifier(), MyDatabaseId, origin);
	PG_RETURN_TEXT_P(cstring_to_text(origin));
}

static bool
same_id(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t)) == 0;
}

/* find out what has become of a claim's origin */
static void
look_at_origin(Claim *claim, const char *origin)
{
	const char *slash = strchr(origin, '/');
	bool		is_here = slash != NULL &&
		strtoull(origin, NULL, 10) == (unsigned long long) GetSystemIdentifier();
	HeapTuple	tuple;

	claim->database = slash == NULL ? InvalidOid : (Oid) strtoul(slash + 1, NULL, 10);
	claim->exists = claim->is_template = false;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(claim->database));
	if (!HeapTupleIsValid(tuple))
		return;

	/*
	 * an upgrade keeps the number of a database, and makes another server of
	 * it
	 */
	claim->is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	claim->exists = is_here;
	ReleaseSysCache(tuple);
}

/* Tell whether an entry has an identity, and whether it owns that. */
static bool
has_identity(const RinqDatabase *db, const pg_uuid_t *id, bool *owned)
{
	int			i;

	for (i = 0; i < db->identities.count; i++)
	{
		if (same_id(&db->identities.list[i].id, id))
		{
			*owned = db->identities.list[i].owned;
			return true;
		}
	}
	return false;
}

/* Judge whether the identity may be taken over.  The lock is held. */
static RinqSuspension
judge_claim(const Claim *claim, Oid *original)
{
	bool		unknown = !rinq_shared->scanned;
	bool		exists = claim->exists;
	int			i;

	Assert(LWLockHeldByMe(rinq_shared->lock));
	for (i = 0; i < rinq_shared->num_databases; i++)
	{
		const RinqDatabase *db = &rinq_shared->databases[i];
		bool		owned = false;

		if (!OidIsValid(db->oid) || db->oid == MyDatabaseId || db->presence == RINQ_ABSENT)
			continue;
		if (has_identity(db, &claim->id, &owned))
		{
			/*
			 * of two that came here, the one with the original's number is
			 * the original
			 */
			if (!owned && db->oid != claim->database)
				continue;
			*original = db->oid;
			return RINQ_SUSPENDED_COPY;
		}
		if (db->presence == RINQ_UNKNOWN)
			unknown = true;
		else if (db->oid == claim->database)
			exists = false;		/* the number is another database's by now */
	}
	if (exists && !claim->is_template)
	{
		*original = claim->database;
		return RINQ_SUSPENDED_COPY;
	}
	return unknown ? RINQ_SUSPENDED_UNDECIDED : RINQ_NOT_SUSPENDED;
}

/*
 * Decide about all claims at once, and let other readers know before anything
 * is written: of two copies of a database that is gone, one becomes it.
 */
static void
judge_all(RinqDatabase *db, const Claim *claims, int count, RinqIdentities *found)
{
	int			i;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (rinq_start_suspended && !db->adopted)
		found->suspended = RINQ_SUSPENDED_START;
	for (i = 0; i < count && found->suspended == RINQ_NOT_SUSPENDED; i++)
		found->suspended = judge_claim(&claims[i], &found->original);
	for (i = 0; i < found->count && found->suspended == RINQ_NOT_SUSPENDED; i++)
		found->list[i].owned = true;
	if (db->oid == MyDatabaseId)
	{
		db->identities.count = found->count;
		memcpy(db->identities.list, found->list, sizeof(found->list));
	}
	LWLockRelease(rinq_shared->lock);
}

static void
execute_identity_query(Oid schema, const char *table, const char *query, const pg_uuid_t *id)
{
	Oid			types[1] = {UUIDOID};
	Datum		values[1];

	values[0] = UUIDPGetDatum(id);
	(void) rinq_own_table_write(schema, table, query, id == NULL ? 0 : 1, types, values, NULL);
}

/* put one identity in the place of all others */
static void
unify_identity(Oid schema, const pg_uuid_t *id)
{
	execute_identity_query(schema, "listener", "UPDATE %s SET identity = $1"
						   " WHERE identity OPERATOR(pg_catalog.<>) $1", id);
	execute_identity_query(schema, "subscription", "UPDATE %s SET identity = $1"
						   " WHERE identity OPERATOR(pg_catalog.<>) $1", id);
	execute_identity_query(schema, IDENTITY_TABLE, "DELETE FROM %s WHERE id OPERATOR(pg_catalog.<>) $1", id);
}

/* make this database one that is no copy */
static void
renew_identity(Oid schema, pg_uuid_t *id)
{
	*id = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	execute_identity_query(schema, IDENTITY_TABLE, "INSERT INTO %s (id) VALUES ($1)", id);
	unify_identity(schema, id);
}

/* Make the identities of this database its own from now on. */
static void
take_over(Oid schema)
{
	execute_identity_query(schema, IDENTITY_TABLE, "UPDATE %s SET origin = DEFAULT"
						   " WHERE origin OPERATOR(pg_catalog.<>) rinq_internal.this_database()", NULL);
}

/* have listeners come without the identity that they were registered under? */
static bool
has_strays(void)
{
	static const char *const query =
	"SELECT FROM (SELECT identity FROM rinq_internal.listener"
	" UNION ALL SELECT identity FROM rinq_internal.subscription) t"
	" WHERE NOT EXISTS (SELECT FROM rinq_internal.identity i"
	" WHERE i.id OPERATOR(pg_catalog.=) t.identity)";

	if (SPI_execute(query, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the identities of the listeners");
	return SPI_processed > 0;
}

/* Read the identities in the table, those that came with a copy first. */
static int
read_identities(RinqIdentities *found, Claim *claims)
{
	static const char *const query =
	"SELECT id, origin, origin OPERATOR(pg_catalog.=) rinq_internal.this_database()"
	" FROM rinq_internal.identity ORDER BY 3, created, id";
	int			count = 0;
	uint64		i;

	if (SPI_execute(query, true, RINQ_MAX_IDENTITIES) != SPI_OK_SELECT)
		elog(ERROR, "could not read the identities");
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		RinqIdentity *identity = &found->list[found->count++];
		bool		isnull;

		identity->id = *DatumGetUUIDP(SPI_getbinval(row, desc, 1, &isnull));
		identity->owned = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		if (identity->owned)
			continue;
		claims[count].id = identity->id;
		look_at_origin(&claims[count++], SPI_getvalue(row, desc, 2));
	}
	return count;
}

static bool
any_template(const Claim *claims, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		if (claims[i].is_template)
			return true;
	}
	return false;
}

/*
 * Find out whether this database may be a peer.  If it has replaced the one
 * that it is a copy of, it takes the identity over; a template is no original,
 * and what is made of one gets an identity of its own.
 */
void
rinq_identity_read(RinqDatabase *db, Oid schema, RinqIdentities *found)
{
	Claim		claims[RINQ_MAX_IDENTITIES];
	int			count;
	bool		renew;

	memset(found, 0, sizeof(*found));
	count = read_identities(found, claims);
	judge_all(db, claims, count, found);
	renew = found->count == 0 || any_template(claims, count);
	if (found->suspended == RINQ_NOT_SUSPENDED && !renew && has_strays())
		found->suspended = RINQ_SUSPENDED_PARTIAL;
	if (found->suspended != RINQ_NOT_SUSPENDED || RecoveryInProgress())
		return;					/* a standby writes nothing, and has the
								 * primary's origin */
	if (renew)
	{
		renew_identity(schema, &found->list[0].id);
		found->list[0].owned = true;
		found->count = 1;
	}
	else if (count > 0)
		take_over(schema);
	else if (found->count > 1)
		unify_identity(schema, &found->list[0].id);
}

/*
 * Give this database an identity of its own if it came with another one's.
 * Returns false when it has not.
 */
bool
rinq_identity_renew_if_copied(Oid schema)
{
	RinqIdentities found;
	Claim		claims[RINQ_MAX_IDENTITIES];
	RinqOwnTable table;
	pg_uuid_t	id;
	bool		copied;

	memset(&found, 0, sizeof(found));
	rinq_own_table_open(&table, schema, IDENTITY_TABLE);
	copied = read_identities(&found, claims) > 0 || has_strays();
	rinq_own_table_close(&table);
	if (copied)
		renew_identity(schema, &id);
	return copied;
}

/*
 * Tell whether all databases of this server wait to be adopted, and this one was
 * not.
 */
bool
rinq_identity_waits(void)
{
	RinqDatabase *db;

	if (!rinq_start_suspended)
		return false;
	db = rinq_my_database();
	return db == NULL || !db->adopted;
}

/*
 * Return when this server began to write: since its start, or since the last
 * transaction that it has replayed as a standby.
 */
TimestampTz
rinq_identity_own_since(void)
{
	return Max(PgStartTime, GetLatestXTime());
}

/*
 * Say why a database is suspended; NULL when it is not.
 */
const char *
rinq_identity_reason(const RinqIdentities *identities)
{
	char	   *original = NULL;

	switch (identities->suspended)
	{
		case RINQ_NOT_SUSPENDED:
			break;
		case RINQ_SUSPENDED_COPY:
			original = get_database_name(identities->original);
			return original == NULL ? "it is a copy of a database that is being dropped" :
				psprintf("it is a copy of database \"%s\"", original);
		case RINQ_SUSPENDED_PARTIAL:
			return "it has listeners or subscriptions of another database, which is not known";
		case RINQ_SUSPENDED_UNDECIDED:
			return "other databases are looked into first, since it is a copy";
		case RINQ_SUSPENDED_START:
			return "\"rinq.start_suspended\" is on";
		case RINQ_SUSPENDED_OLD_OBJECTS:
			return "the extension there is older than the library works with";
		case RINQ_SUSPENDED_NEW_OBJECTS:
			return "the extension there is newer than the library that the server has loaded";
	}
	return NULL;
}

/*
 * Say what to do about a suspended database.
 */
const char *
rinq_identity_hint(const RinqIdentities *identities)
{
	switch (identities->suspended)
	{
		case RINQ_SUSPENDED_OLD_OBJECTS:
			return rinq_own_version_hint(RINQ_OBJECTS_TOO_OLD);
		case RINQ_SUSPENDED_NEW_OBJECTS:
			return rinq_own_version_hint(RINQ_OBJECTS_TOO_NEW);
		default:
			return "Use rinq_adopt() there to have it served.";
	}
}
