/*-------------------------------------------------------------------------
 *
 * output.c
 *	  Room for CBOR that is written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/internal.h"
#include "utils/memutils.h"

/*
 * Make room, or say that no buffer can hold the result.
 */
void
rinq_cbor_grow(StringInfo out, Size need)
{
	if ((Size) out->len + need + 1 >= MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CBOR form of the jsonb value is too large"),
				 errdetail("It would exceed the maximum of %zu bytes.",
						   (Size) MaxAllocSize)));
	enlargeStringInfo(out, (int) need);
}
