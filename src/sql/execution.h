/*-------------------------------------------------------------------------
 *
 * execution.h
 *	  What the functions share that have commands executed at commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_EXECUTION_H
#define RINQ_SQL_EXECUTION_H

#include "postgres.h"

#include "backend/outbox_waiting.h"
#include "base/bytes.h"
#include "fmgr.h"
#include "ipc/sendqueue.h"
#include "utils/jsonb.h"

/* the arguments that all of these functions have, in this order */
enum
{
	RINQ_EXECUTE_NAMESPACE,
	RINQ_EXECUTE_COMMAND,
	RINQ_EXECUTE_PAYLOAD,
	RINQ_EXECUTE_TIMEOUT,
	RINQ_EXECUTE_DURABLE,
	RINQ_EXECUTE_SESSION,
	RINQ_EXECUTE_DELIVER_AFTER,
	RINQ_EXECUTE_DELIVER_AT
};

/* a command that is to be executed, once or for several payloads */
typedef struct RinqExecution
{
	FunctionCallInfo fcinfo;
	RinqDatabase *db;
	char	   *namespace;
	char	   *command;
	bool		durable;
	int64		deadline;		/* of the wall clock; 0 is none */
	RinqDelivery delivery;
	const Jsonb *attributes;	/* of a session of its own; NULL: none */
} RinqExecution;

extern void rinq_execution_begin(FunctionCallInfo fcinfo, int key_argument, int ordering_argument,
								 RinqExecution *execution);
extern void rinq_execution_next(RinqExecution *execution);
extern Datum rinq_execution_send(RinqExecution *execution, RinqBytes payload);

#endif							/* RINQ_SQL_EXECUTION_H */
