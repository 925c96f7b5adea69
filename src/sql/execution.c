/*-------------------------------------------------------------------------
 *
 * execution.c
 *	  What the functions share that have commands executed at commit: their
 *	  arguments, and what becomes of a message.
 *
 * A message without a word on when it is to be sent goes into the outbox, or
 * into memory, and to the peer at commit.  One that is delayed or ordered waits
 * in a table of its own (backend/outbox_waiting.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/xlog.h"
#include "backend/bus_access.h"
#include "backend/calls.h"
#include "backend/commit_queue.h"
#include "backend/durable_sources.h"
#include "backend/outbox.h"
#include "backend/own_schema.h"
#include "base/clock.h"
#include "guc.h"
#include "sql/arguments.h"
#include "sql/execution.h"
#include "sql/send.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/*
 * Return the database's entry, which is all that durable messages need; others
 * need the peer.  Raises an error when too many durable messages wait.
 */
RinqDatabase *
rinq_send_require_database(bool durable)
{
	RinqDatabase *db;

	rinq_require_preloaded();
	rinq_check_bus_access(GetUserId());
	if (!durable)
		return rinq_require_peer();

	/*
	 * said before asking for the peer, whose absence from a standby is
	 * another error
	 */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot send durable messages during recovery"),
				 errdetail("They are written into the outbox of the primary server."),
				 errhint("Execute the command on the primary, or with durable => false.")));
	db = rinq_require_database();
	if ((int64) pg_atomic_read_u64(&db->outbox_depth) + (int64) pg_atomic_read_u64(&db->outbox_waiting) +
		rinq_transaction_durable() >= rinq_max_outbox)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many durable messages wait to be sent"),
				 errdetail("The setting \"rinq.max_outbox\" allows %d.", rinq_max_outbox),
				 errhint("Look at the view rinq_outbox_status.")));
	return db;
}

/*
 * Prepare for the same command with another payload.
 */
void
rinq_execution_next(RinqExecution *execution)
{
	execution->db = rinq_send_require_database(execution->durable);
}

/* ---------------- when it is sent ---------------- */

/* Return a key or an ordering, NULL for none. */
static char *
key_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	char	   *value;

	if (n < 0 || PG_ARGISNULL(n))
		return NULL;
	value = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	(void) rinq_limited_text(value, RINQ_MAX_KEY_LEN, what);
	return value;
}

/*
 * Return the end of a delay; before or after all times where it is so long that
 * there is no such timestamp.
 */
static TimestampTz
end_of_delay(TimestampTz now, const Interval *delay)
{
	double		days = (double) delay->month * DAYS_PER_MONTH + (double) delay->day +
		(double) delay->time / (double) USECS_PER_DAY;

	if (days < -2 * RINQ_MAX_DELAY_DAYS)
		return DT_NOBEGIN;
	if (days > 2 * RINQ_MAX_DELAY_DAYS)
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
												   IntervalPGetDatum(delay)));
}

/*
 * Return when a message is to be sent that has an argument for that; what has
 * passed by then is sent at once.
 */
static TimestampTz
due_argument(FunctionCallInfo fcinfo, TimestampTz now)
{
	TimestampTz due;

	if (!PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AT))
		due = PG_GETARG_TIMESTAMPTZ(RINQ_EXECUTE_DELIVER_AT);
	else
		due = end_of_delay(now, PG_GETARG_INTERVAL_P(RINQ_EXECUTE_DELIVER_AFTER));
	if (due <= now)
		return DT_NOBEGIN;
	if (TIMESTAMP_NOT_FINITE(due) || due - now > RINQ_MAX_DELAY_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message would be sent too late"),
				 errdetail("It may be delayed by up to %d days.", RINQ_MAX_DELAY_DAYS)));
	return due;
}

/* Raise an error for what does not go together. */
static void
check_delivery(FunctionCallInfo fcinfo, const RinqExecution *execution, bool delayed)
{
	if (!PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AFTER) && !PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AT))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("deliver_after and deliver_at cannot both be given")));
	if (!execution->durable && (delayed || execution->delivery.key != NULL || execution->delivery.ordering != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message from memory cannot be delayed, ordered, or have a key"),
				 errhint("Leave out \"durable => false\".")));
}

static void
read_delivery(FunctionCallInfo fcinfo, int key, int ordering, RinqExecution *execution)
{
	bool		delayed = !PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AFTER) || !PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AT);

	execution->delivery.due = DT_NOBEGIN;
	execution->delivery.key = key_argument(fcinfo, key, "key");
	execution->delivery.ordering = key_argument(fcinfo, ordering, "ordering");
	check_delivery(fcinfo, execution, delayed);
	execution->delivery.after = !PG_ARGISNULL(RINQ_EXECUTE_DELIVER_AFTER);
	if (delayed)
		execution->delivery.due = due_argument(fcinfo, GetCurrentTimestamp());
}

/* Return the deadline of a message: from when it is to be sent. */
static int64
sending_deadline(FunctionCallInfo fcinfo, const RinqExecution *execution)
{
	int64		from = rinq_wall_ms();

	if (PG_ARGISNULL(RINQ_EXECUTE_TIMEOUT))
		return 0;
	if (execution->delivery.due != DT_NOBEGIN)
		from = rinq_ms_of_timestamp(execution->delivery.due);
	return from + rinq_interval_ms(PG_GETARG_INTERVAL_P(RINQ_EXECUTE_TIMEOUT));
}

/*
 * Read the arguments of a function; "key_argument" and "ordering_argument" are
 * the numbers of two of them, -1 for one that it does not have.
 */
void
rinq_execution_begin(FunctionCallInfo fcinfo, int key_argument, int ordering_argument,
					 RinqExecution *execution)
{
	execution->fcinfo = fcinfo;
	execution->attributes = NULL;
	execution->durable = PG_ARGISNULL(RINQ_EXECUTE_DURABLE) || PG_GETARG_BOOL(RINQ_EXECUTE_DURABLE);
	execution->namespace = rinq_namespace_argument(fcinfo, RINQ_EXECUTE_NAMESPACE);
	execution->command = rinq_text_argument(fcinfo, RINQ_EXECUTE_COMMAND, "command");
	read_delivery(fcinfo, key_argument, ordering_argument, execution);
	execution->deadline = sending_deadline(fcinfo, execution);

	/* what is wrong with the arguments is so with a peer, too */
	execution->db = rinq_send_require_database(execution->durable);
}

/* ---------------- sending ---------------- */

static Datum
message_id_datum(const RinqMessageId *id)
{
	char		text[RINQ_MESSAGE_ID_SIZE];

	rinq_message_id_format(id, text, sizeof(text));
	return CStringGetTextDatum(text);
}

/*
 * Have a command executed with a payload when the transaction commits.  Returns
 * the message's id, or that of the message that had its key before.
 */
Datum
rinq_execution_send(RinqExecution *execution, RinqBytes payload)
{
	const RinqDelivery *delivery = &execution->delivery;
	RinqDatabase *db = execution->db;
	RinqFields	fields;
	RinqOutbound message;
	char	   *used_by;

	rinq_fields_init(&fields, RINQ_KIND_SEND);
	rinq_put_bytes(&fields, RINQ_SEND_NAMESPACE, rinq_bytes_str(execution->namespace));
	rinq_put_bytes(&fields, RINQ_SEND_COMMAND, rinq_command_bytes(execution->command));
	rinq_put_bytes(&fields, RINQ_SEND_PAYLOAD, payload);
	rinq_send_inherited(&fields);

	memset(&message, 0, sizeof(message));
	message.durable = execution->durable;
	message.deadline = execution->deadline;
	if (execution->attributes != NULL)
		rinq_durable_source_make(execution->attributes, &message.item.id);
	else
		rinq_send_allocate_id_argument(execution->fcinfo, RINQ_EXECUTE_SESSION, db, &message.item.id);
	if (delivery->key != NULL &&
		!rinq_outbox_use_key(db, rinq_internal_schema(), execution->namespace, delivery, &message.item.id, &used_by))
		return CStringGetTextDatum(used_by);
	if (delivery->due != DT_NOBEGIN || delivery->ordering != NULL)
		rinq_outbox_wait(db, rinq_internal_schema(), &message, &fields, delivery);
	else
	{
		if (execution->durable)
			rinq_outbox_insert(db, rinq_internal_schema(), &message, &fields);
		rinq_send_at_commit(db, &message, &fields);
	}
	return message_id_datum(&message.item.id);
}
