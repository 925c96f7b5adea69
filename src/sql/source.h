/*-------------------------------------------------------------------------
 *
 * source.h
 *	  The attributes that a durable message is given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_SOURCE_H
#define RINQ_SQL_SOURCE_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

extern const Jsonb *rinq_source_attributes_argument(FunctionCallInfo fcinfo, int n);

#endif							/* RINQ_SQL_SOURCE_H */
