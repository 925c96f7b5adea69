/*-------------------------------------------------------------------------
 *
 * status.c
 *	  rinq_peer_status and rinq_version: what there is to know about the peer
 *	  of this database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/identity.h"
#include "base/clock.h"
#include "fmgr.h"
#include "funcapi.h"
#include "ipc/shared.h"
#include "utils/builtins.h"
#include "version.h"

PG_FUNCTION_INFO_V1(rinq_peer_status);
PG_FUNCTION_INFO_V1(rinq_version);

#define STATUS_COLUMNS (8 + RINQ_NUM_COUNTERS + 8)

static const char *
state_name(const RinqStatus *status, bool suspended)
{
	if (suspended && !status->stopping && status->net == RINQ_NET_STOPPED)
		return "suspended";
	if (status->stopping)
		return "stopping";
	switch (status->net)
	{
		case RINQ_NET_STARTING:
			return "starting";
		case RINQ_NET_CONNECTING:
			return "connecting";
		case RINQ_NET_CONNECTED:
			return "connected";
		case RINQ_NET_DISCONNECTED:
			return "disconnected";
		default:
			return "stopped";
	}
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text[0] == '\0';
	values[column] = nulls[column] ? (Datum) 0 : CStringGetTextDatum(text);
}

/* Set microseconds as milliseconds; NULL while no peer runs. */
static void
set_duration(Datum *values, bool *nulls, int column, const pg_atomic_uint64 *us, bool known)
{
	nulls[column] = !known;
	if (known)
		values[column] = Float8GetDatum(pg_atomic_read_u64((pg_atomic_uint64 *) us) / 1000.0);
}

/* Set three columns; NULL without encryption, or without a connection. */
static void
set_encryption(Datum *values, bool *nulls, int column, const RinqEncryption *encryption)
{
	set_text(values, nulls, column, encryption->version);
	set_text(values, nulls, column + 1, encryption->cipher);
	nulls[column + 2] = encryption->certificate_end == 0;
	values[column + 2] = TimestampTzGetDatum(encryption->certificate_end);
}

/*
 * rinq_peer_status() returns record
 *
 * One row about the peer of this database; the view rinq_peer names the
 * columns.  The counters count since the server's start.
 */
Datum
rinq_peer_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
	RinqDatabase *db;
	RinqStatus	status;
	RinqIdentities identities;
	const char *suspended;
	int			pid = 0;
	int			i;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	if (desc->natts != STATUS_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function rinq_peer_status does not fit the loaded version of rinq"),
				 errhint("Use ALTER EXTENSION rinq UPDATE.")));

	rinq_require_preloaded();
	memset(values, 0, sizeof(values));
	memset(nulls, 0, sizeof(nulls));
	memset(&status, 0, sizeof(status));
	memset(&identities, 0, sizeof(identities));
	db = rinq_my_database();
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		status = db->status;
		SpinLockRelease(&db->mutex);
		pid = db->peer.state == RINQ_WORKER_RUNNING ? db->peer.pid : 0;
		LWLockAcquire(rinq_shared->lock, LW_SHARED);
		identities = db->identities;
		LWLockRelease(rinq_shared->lock);
	}
	suspended = rinq_identity_reason(&identities);

	values[0] = Int32GetDatum(pid);
	nulls[0] = pid == 0;
	set_text(values, nulls, 1, status.peer_id);
	values[2] = CStringGetTextDatum(state_name(&status, suspended != NULL));
	set_text(values, nulls, 3, status.broker);
	set_text(values, nulls, 4, status.broker_version);
	values[5] = BoolGetDatum(status.blocked);
	values[6] = TimestampTzGetDatum(status.connected_since);
	nulls[6] = status.net != RINQ_NET_CONNECTED;
	set_text(values, nulls, 7, suspended != NULL ? suspended : status.last_error);
	for (i = 0; i < RINQ_NUM_COUNTERS; i++)
		values[8 + i] = Int64GetDatum(db == NULL ? 0 :
									  (int64) pg_atomic_read_u64(&db->counters[i]));
	set_duration(values, nulls, 8 + RINQ_NUM_COUNTERS, db == NULL ? NULL : &db->longest_turn,
				 pid != 0);
	set_duration(values, nulls, 9 + RINQ_NUM_COUNTERS,
				 db == NULL ? NULL : &db->longest_turn_cpu, pid != 0);
	values[10 + RINQ_NUM_COUNTERS] = TimestampTzGetDatum(status.last_error_at);
	nulls[10 + RINQ_NUM_COUNTERS] = status.last_error[0] == '\0';
	nulls[11 + RINQ_NUM_COUNTERS] = pid == 0 || status.net != RINQ_NET_DISCONNECTED;
	if (!nulls[11 + RINQ_NUM_COUNTERS])
		values[11 + RINQ_NUM_COUNTERS] =
			TimestampTzGetDatum(rinq_timestamp_of_ms(rinq_wall_of_clock(status.next_attempt)));
	set_encryption(values, nulls, 12 + RINQ_NUM_COUNTERS, &status.encryption);
	set_text(values, nulls, 15 + RINQ_NUM_COUNTERS, status.server);

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/*
 * rinq_version() returns text
 */
Datum
rinq_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text("rinq " RINQ_VERSION ", protocol " RINQ_PROTOCOL_VERSION));
}
