/*-------------------------------------------------------------------------
 *
 * stored.c
 *	  What the view rinq_stored_notifications shows: notifications that were too
 *	  long for NOTIFY.
 *
 * Their table is unlogged.  On a standby it cannot even be named in a query, and
 * so the view reads it by this function, which says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "sql/resultset.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(rinq_list_stored_notifications);

#define STORED_COLUMNS 3

/*
 * rinq_list_stored_notifications() returns setof record
 *
 * Those that were stored for roles whose privileges the current one has.
 */
Datum
rinq_list_stored_notifications(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqOwnTable table;
	Oid			types[] = {OIDOID};
	Datum		role = ObjectIdGetDatum(GetUserId());
	uint64		rows;
	uint64		i;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, STORED_COLUMNS);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stored notifications cannot be read during recovery"),
				 errdetail("They are kept in an unlogged table, which a standby does not have."),
				 errhint("Read them on the primary server.")));
	rinq_own_table_open(&table, rinq_internal_schema(), "stored_notification");
	rows = rinq_own_table_execute(psprintf("SELECT s.number, s.stored, s.notification FROM %s AS s"
										   " WHERE pg_catalog.pg_has_role($1, s.role::pg_catalog.oid, 'USAGE')",
										   table.name), 1, types, &role, NULL);
	for (i = 0; i < rows; i++)
	{
		Datum		values[STORED_COLUMNS];
		bool		nulls[STORED_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		rinq_resultset_put(&set, values, nulls);
	}
	rinq_own_table_close(&table);
	return (Datum) 0;
}
