/*-------------------------------------------------------------------------
 *
 * protocol/packed.c
 *	  Fields in PostgreSQL's memory: appended to a list, and copied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "protocol/packed.h"
#include "utils/memutils.h"

/*
 * Append packed fields to a list.
 */
void
rinq_fields_append(StringInfo list, const RinqFields *fields)
{
	size_t		size = rinq_fields_size(fields);

	if (size > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a message of %zu bytes is too large", size)));
	enlargeStringInfo(list, (int) size);
	rinq_fields_write(fields, list->data + list->len);
	list->len += (int) size;
	list->data[list->len] = '\0';
}

/*
 * Copy what the fields point to into the current memory context, in one piece,
 * which is returned.
 */
char *
rinq_fields_copy(RinqFields *fields)
{
	char	   *copy = palloc_extended(Max(rinq_fields_bytes(fields), 1), MCXT_ALLOC_HUGE);

	(void) rinq_fields_move(fields, copy);
	return copy;
}
