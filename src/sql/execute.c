/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  rinq_execute: having a command executed when the transaction commits; and
 *	  what there is to know and do about messages that wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/calls.h"
#include "backend/commit_queue.h"
#include "backend/outbox.h"
#include "backend/own_schema.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guc.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_execute);
PG_FUNCTION_INFO_V1(rinq_execute_raw);
PG_FUNCTION_INFO_V1(rinq_outbox_rescan);
PG_FUNCTION_INFO_V1(rinq_outbox_peer_status);

enum
{
	ARG_NAMESPACE,
	ARG_COMMAND,
	ARG_PAYLOAD,
	ARG_TIMEOUT,
	ARG_DURABLE,
	ARG_SESSION
};

/*
 * Return the database's entry, which is all that durable messages need; others
 * need the peer.  Raises an error when too many durable messages wait.
 */
static RinqDatabase *
require_database(bool durable)
{
	RinqDatabase *db;

	rinq_require_preloaded();
	if (!durable)
		return rinq_require_peer();

	/*
	 * said here, since a standby's databases are not served, which is another
	 * error
	 */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot send durable messages during recovery"),
				 errdetail("They are written into the outbox of the primary server."),
				 errhint("Execute the command on the primary, or with durable => false.")));
	db = rinq_require_database();
	if ((int64) pg_atomic_read_u64(&db->outbox_depth) + rinq_transaction_durable() >= rinq_max_outbox)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many durable messages wait to be sent"),
				 errdetail("The setting \"rinq.max_outbox\" allows %d.", rinq_max_outbox),
				 errhint("Look at the view rinq_outbox_status.")));
	return db;
}

static Datum
execute_command(FunctionCallInfo fcinfo, RinqPayloadForm form)
{
	bool		durable = PG_ARGISNULL(ARG_DURABLE) || PG_GETARG_BOOL(ARG_DURABLE);
	char	   *namespace;
	char	   *command;
	RinqDatabase *db;
	RinqFields	fields;
	RinqOutbound message;
	char		id[RINQ_MESSAGE_ID_SIZE];

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, ARG_NAMESPACE);
	command = rinq_text_argument(fcinfo, ARG_COMMAND, "command");
	db = require_database(durable);
	rinq_fields_init(&fields, RINQ_KIND_SEND);
	rinq_put_bytes(&fields, RINQ_SEND_NAMESPACE, rinq_bytes_str(namespace));
	rinq_put_bytes(&fields, RINQ_SEND_COMMAND, rinq_command_bytes(command));
	rinq_put_bytes(&fields, RINQ_SEND_PAYLOAD, rinq_payload_argument(fcinfo, ARG_PAYLOAD, form));
	rinq_send_inherited(&fields);

	memset(&message, 0, sizeof(message));
	message.durable = durable;
	if (!PG_ARGISNULL(ARG_TIMEOUT))
		message.deadline = rinq_wall_ms() + rinq_interval_ms(PG_GETARG_INTERVAL_P(ARG_TIMEOUT));
	rinq_send_allocate_id_argument(fcinfo, ARG_SESSION, db, &message.item.id);
	if (durable)
		rinq_outbox_insert(db, rinq_internal_schema(), &message, &fields);
	rinq_send_at_commit(db, &message, &fields);

	rinq_message_id_format(&message.item.id, id, sizeof(id));
	PG_RETURN_DATUM(CStringGetTextDatum(id));
}

/*
 * rinq_execute(namespace text, command text, payload jsonb, timeout interval,
 * durable boolean, session text) returns rinq_message_id
 *
 * Has a command executed by whichever peer listens to the namespace, when and
 * if the transaction commits; no process waits for it.
 */
Datum
rinq_execute(PG_FUNCTION_ARGS)
{
	return execute_command(fcinfo, RINQ_PAYLOAD_JSONB);
}

/*
 * rinq_execute_raw(namespace text, command text, payload bytea, timeout
 * interval, durable boolean, session text) returns rinq_message_id
 *
 * The same with CBOR, which is passed on untouched.
 */
Datum
rinq_execute_raw(PG_FUNCTION_ARGS)
{
	return execute_command(fcinfo, RINQ_PAYLOAD_RAW);
}

/*
 * outbox_rescan() returns trigger
 *
 * On the tables of the outbox, for rows that are written by hand: has them
 * found.
 */
Datum
rinq_outbox_rescan(PG_FUNCTION_ARGS)
{
	RinqDatabase *db;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox_rescan must be called as a trigger")));
	rinq_refuse_parallel(fcinfo);
	db = rinq_preloaded() ? rinq_my_database() : NULL;
	if (db != NULL)
		rinq_send_scan_at_commit(db);
	return PointerGetDatum(NULL);
}

/*
 * rinq_outbox_peer_status() returns (direct boolean, in_flight bigint,
 * retrying bigint, attempts integer, last_error text, waits_for text)
 *
 * What the peer knows of durable messages; the view rinq_outbox_status adds
 * what the tables say.
 */
Datum
rinq_outbox_peer_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false, false, false, false, false, false};
	RinqOutboxStatus status;
	RinqDatabase *db;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	rinq_require_preloaded();
	memset(&status, 0, sizeof(status));
	db = rinq_my_database();
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		status = db->status.outbox;
		SpinLockRelease(&db->mutex);
	}
	values[0] = BoolGetDatum(status.direct);
	values[1] = Int64GetDatum(status.in_flight);
	values[2] = Int64GetDatum(status.retrying);
	values[3] = Int32GetDatum(status.attempts);
	nulls[4] = status.last_error[0] == '\0';
	values[4] = CStringGetTextDatum(status.last_error);
	nulls[5] = status.waits_for[0] == '\0';
	values[5] = CStringGetTextDatum(status.waits_for);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
