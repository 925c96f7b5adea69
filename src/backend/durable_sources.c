/*-------------------------------------------------------------------------
 *
 * backend/durable_sources.c
 *	  Sessions of the mailbox: whom durable messages are from that have
 *	  attributes.
 *
 * A session is a row, made with its message, in one transaction, and never
 * changes: it is at revision 1, and all of its attributes are frozen.  Peers
 * that ask about it are answered by this one, from the row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/durable_calls.h"
#include "backend/durable_sources.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "base/clock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "ipc/slots.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#define LONGEST_INTERVAL 3600	/* s between looks at the sessions */

static const char *const insert_source =
"INSERT INTO rinq_internal.durable_source AS s (session, id, role, attributes, created)"
" SELECT $1, m.id OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) $1::pg_catalog.text"
" OPERATOR(pg_catalog.||) '@1#1', $3, $4, pg_catalog.now()"
" FROM rinq_internal.mailbox m WHERE m.database OPERATOR(pg_catalog.=) $2"
" ON CONFLICT (session) DO NOTHING RETURNING s.id";

/* Draw a number for a session. */
static int64
draw_session(void)
{
	uint32		number;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random session")));
	return (int64) (number | RINQ_DURABLE_SOURCE_BIT);
}

/*
 * Return the seconds between looks at the sessions, as long as there are any.
 */
int32
rinq_durable_source_interval(void)
{
	return Min(rinq_source_retention, LONGEST_INTERVAL);
}

/*
 * Make a session with attributes, an object of namespaces that are objects, and
 * return the id of its first message.  Where a number is taken, or there is no
 * mailbox yet, make what is missing and draw another one.
 */
void
rinq_durable_source_make(const Jsonb *attributes, RinqMessageId *id)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[4] = {INT8OID, OIDOID, OIDOID, JSONBOID};
	Datum		values[4];
	RinqOwnTable table;
	char	   *text;
	int			tries;

	values[0] = Int64GetDatum(draw_session());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	values[2] = ObjectIdGetDatum(GetUserId());
	values[3] = JsonbPGetDatum(attributes);
	rinq_own_table_open(&table, rinq_internal_schema(), "durable_source");
	rinq_mailbox_leave_original();
	for (tries = 0; rinq_own_table_execute_kept(&plan, insert_source, 4, types, values, NULL) == 0; tries++)
	{
		if (tries > 10)
			elog(ERROR, "the database has no mailbox");
		rinq_mailbox_make();
		values[0] = Int64GetDatum(draw_session());
	}
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (!rinq_message_id_parse(text, strlen(text), id))
		elog(ERROR, "malformed id of a durable message");
	rinq_own_table_close(&table);
	rinq_durable_call_due_at_commit(rinq_my_database(), rinq_wall_ms() + rinq_durable_source_interval() * INT64CONST(1000));
}
