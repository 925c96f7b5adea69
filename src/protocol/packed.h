/*-------------------------------------------------------------------------
 *
 * protocol/packed.h
 *	  Fields (protocol/kinds.h) in PostgreSQL's memory: appended to a list, and
 *	  copied.
 *
 * A list is one packed element after another, without an end mark:
 * rinq_fields_read takes the first one off.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PROTOCOL_PACKED_H
#define RINQ_PROTOCOL_PACKED_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "protocol/kinds.h"

extern void rinq_fields_append(StringInfo list, const RinqFields *fields);
extern char *rinq_fields_copy(RinqFields *fields);

#endif							/* RINQ_PROTOCOL_PACKED_H */
