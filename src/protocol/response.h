/*-------------------------------------------------------------------------
 *
 * protocol/response.h
 *	  A response, or what else has become of a call, as a row of the type
 *	  rinq_response.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PROTOCOL_RESPONSE_H
#define RINQ_PROTOCOL_RESPONSE_H

#include "postgres.h"

#include "protocol/kinds.h"

/* names of outcomes: of any call, and of durable ones */
#define RINQ_RESPONSE_IS_SUCCESS "success"
#define RINQ_RESPONSE_IS_FAILURE "failure"
#define RINQ_RESPONSE_IS_ERROR "error"

/* columns of rinq_response; the install script defines it to match */
enum
{
	RINQ_RESPONSE_COLUMN_ID,
	RINQ_RESPONSE_COLUMN_SESSION,
	RINQ_RESPONSE_COLUMN_NAMESPACE,
	RINQ_RESPONSE_COLUMN_COMMAND,
	RINQ_RESPONSE_COLUMN_OUTCOME,
	RINQ_RESPONSE_COLUMN_PAYLOAD,
	RINQ_RESPONSE_COLUMN_FAILURE_TYPE,
	RINQ_RESPONSE_COLUMN_MESSAGE,
	RINQ_RESPONSE_COLUMN_TRACE_ID,
	RINQ_RESPONSE_COLUMNS
};

extern const Oid rinq_response_types[RINQ_RESPONSE_COLUMNS];

extern void rinq_response_row(const RinqFields *fields, Datum *values, bool *nulls);

#endif							/* RINQ_PROTOCOL_RESPONSE_H */
