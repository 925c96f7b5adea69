/*-------------------------------------------------------------------------
 *
 * notify_bridge.c
 *	  Notifications that go on to PostgreSQL's LISTEN and NOTIFY.
 *
 * What is sent is the row as JSON.  NOTIFY carries less than 8,000 bytes: a
 * larger row is stored, in a table that a crash empties, and its number is sent
 * instead of its payload and constraint.  Both happen in one transaction, so
 * that who hears of a number finds its row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/bus_access.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guc.h"
#include "miscadmin.h"
#include "protocol/notification.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"
#include "worker/handler.h"
#include "worker/notify_bridge.h"
#include "worker/purge.h"

#define STORED_TABLE "stored_notification"
#define MAX_NUMBERS 10000		/* that others have taken within this number
								 * of microseconds */

/* bytes that NOTIFY takes (backend/async_calls.c keeps this to itself) */
#define MAX_NOTIFY_LEN (BLCKSZ - NAMEDATALEN - 128 - 1)

/* Return the text of a notification as JSON, but for its last columns. */
static char *
forwarded_json(TupleDesc full, Datum *values, bool *nulls)
{
	TupleDesc	desc = CreateTemplateTupleDesc(RINQ_FORWARDED_COLUMNS);
	AttrNumber	i;

	for (i = 1; i <= RINQ_FORWARDED_COLUMNS; i++)
		TupleDescCopyEntry(desc, i, full, i);
	rinq_finish_tupdesc(desc);
	desc = BlessTupleDesc(desc);
	return TextDatumGetCString(DirectFunctionCall1(row_to_json,
												   HeapTupleGetDatum(heap_form_tuple(desc, values, nulls))));
}

/* Return a notification as a row of its type, and as JSON. */
static Datum
notification_datum(Oid schema, const RinqFields *fields, Oid *type, char **json)
{
	TupleDesc	desc;
	HeapTuple	tuple;
	Datum		values[RINQ_NOTIFICATION_COLUMNS];
	bool		nulls[RINQ_NOTIFICATION_COLUMNS];

	*type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
							CStringGetDatum("rinq_notification"), ObjectIdGetDatum(schema));
	if (!OidIsValid(*type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"%s\" does not exist", "rinq_notification")));
	rinq_notification_row(fields, values, nulls);
	desc = rinq_row_type(*type, rinq_notification_types, RINQ_NOTIFICATION_COLUMNS);
	rinq_handler_entered = true;	/* what fails from here on is logged each
									 * time */
	*json = forwarded_json(desc, values, nulls);
	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

/*
 * Delete some old rows, so that no sender waits for long, but more than are
 * added.
 */
static void
delete_old_rows(const RinqOwnTable *table)
{
	Oid			type = INT4OID;
	Datum		retention = Int32GetDatum(rinq_notification_retention);

	(void) rinq_own_table_execute(psprintf("DELETE FROM %s WHERE number OPERATOR(pg_catalog.=)"
										   " ANY (ARRAY(SELECT o.number FROM (SELECT number, stored FROM %s"
										   " ORDER BY number LIMIT 100 FOR UPDATE SKIP LOCKED) o"
										   " WHERE o.stored OPERATOR(pg_catalog.<) (pg_catalog.now()"
										   " OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1))))",
										   table->name, table->name), 1, &type, &retention, NULL);
}

/*
 * Insert a row; false when there is one of that number, else what is sent is
 * in SPI_tuptable.
 */
static bool
insert_row(const RinqOwnTable *table, int64 number, Oid role, Datum notification, Oid type)
{
	Oid			types[] = {type, OIDOID, INT8OID};
	Datum		values[] = {notification, ObjectIdGetDatum(role), Int64GetDatum(number)};

	return rinq_own_table_execute(psprintf("INSERT INTO %s AS s (number, role, notification)"
										   " VALUES ($3, $2::pg_catalog.regrole, $1)"
										   " ON CONFLICT (number) DO NOTHING RETURNING"
										   " pg_catalog.jsonb_build_object('stored', s.number,"
										   " 'id', (s.notification).id, 'source', (s.notification).source,"
										   " 'target', (s.notification).target,"
										   " 'namespace', (s.notification).namespace,"
										   " 'type', (s.notification).type,"
										   " 'is_multicast', (s.notification).is_multicast,"
										   " 'trace_id', (s.notification).trace_id)::pg_catalog.text",
										   table->name), 3, types, values, NULL) > 0;
}

/*
 * Store a row that is too long.  Returns what is sent in its place.
 *
 * The row's number is the time.  A sequence could be set by any role with
 * pg_write_all_data, and there is no trigger that would refuse it.
 */
static char *
store_notification(Datum notification, Oid type)
{
	RinqOwnTable table;
	MemoryContext context = CurrentMemoryContext;
	Oid			role = GetUserId();
	int64		number = GetCurrentTimestamp();
	int64		limit = number + MAX_NUMBERS;
	char	   *text;

	rinq_own_table_open(&table, rinq_internal_schema(), STORED_TABLE);
	delete_old_rows(&table);
	while (!insert_row(&table, number, role, notification, type))
	{
		if (++number == limit)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("there is no number for a stored notification")));
	}
	text = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	rinq_own_table_close(&table);
	rinq_purge_written();
	return text;
}

/*
 * Send a notification to the channel that is named in place of its handler,
 * when the current transaction commits.
 */
void
rinq_notify_bridge(const RinqFields *fields)
{
	Oid			schema = rinq_extension_schema();
	RinqBytes	channel = rinq_get_bytes(fields, RINQ_NOTIFICATION_CHANNEL);
	Oid			type;
	Datum		row;
	char	   *json;

	/*
	 * as before each run of a handler: a channel is another way to use the
	 * bus
	 */
	rinq_check_bus_access(GetUserId());
	row = notification_datum(schema, fields, &type, &json);
	if (strlen(json) > MAX_NOTIFY_LEN)
		json = store_notification(row, type);
	(void) DirectFunctionCall2(pg_notify,
							   PointerGetDatum(cstring_to_text_with_len(channel.data, (int) channel.len)),
							   CStringGetTextDatum(json));
}
