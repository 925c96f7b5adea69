/*-------------------------------------------------------------------------
 *
 * mailbox_reader.c
 *	  Reading which mailbox a database has, for the reader.
 *
 * A mailbox says which database it was made in.  A copy that was made on the
 * same server has brought that of its original along, and gets one of its own
 * here; one on another server finds out when the broker tells it that the
 * mailbox is in use (peer/topology/mailbox.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/durable_calls.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "worker/mailbox_reader.h"

/* Run a statement on the table of mailboxes, about this database. */
static void
change_mailbox(const char *query)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1];

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	(void) rinq_own_table_write(rinq_internal_schema(), "mailbox", query, 1, types, values, NULL);
}

/* Read the id; false when the database has no mailbox. */
static bool
read_mailbox_id(RinqPeerId *id)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1];
	char	   *text;

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	if (SPI_execute_with_args("SELECT m.id FROM rinq_internal.mailbox m"
							  " WHERE m.database OPERATOR(pg_catalog.=) $1", 1, types, values, NULL, false,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the mailbox");
	if (SPI_processed == 0)
		return false;
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return text != NULL && rinq_peer_id_parse(text, strlen(text), id);
}

/* Tell whether a query finds anything. */
static bool
finds_any(const char *query)
{
	if (SPI_execute(query, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for durable calls");
	return SPI_processed > 0;
}

/*
 * Read the mailbox, and whether anything hangs on it.  In SPI.
 */
void
rinq_mailbox_read(RinqConfig *config)
{
	if (finds_any("SELECT FROM rinq_internal.mailbox m, pg_catalog.pg_database b"
				  " WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
				  " AND m.database OPERATOR(pg_catalog.<>) b.oid"))
		change_mailbox("DELETE FROM %s WHERE database OPERATOR(pg_catalog.<>) $1");
	if (!read_mailbox_id(&config->mailbox))
	{
		change_mailbox("INSERT INTO %s (database) VALUES ($1) ON CONFLICT (database) DO UPDATE SET id = DEFAULT");
		if (!read_mailbox_id(&config->mailbox))
			elog(ERROR, "the database has no mailbox");
	}
	config->mailbox_used = finds_any("SELECT FROM rinq_internal.durable_call") ||
		finds_any("SELECT FROM rinq_internal.durable_source");
}
