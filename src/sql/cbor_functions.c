/*-------------------------------------------------------------------------
 *
 * cbor_functions.c
 *	  rinq_to_cbor() and rinq_from_cbor().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/cbor_jsonb.h"
#include "fmgr.h"

PG_FUNCTION_INFO_V1(rinq_to_cbor);
PG_FUNCTION_INFO_V1(rinq_from_cbor);

/*
 * rinq_to_cbor(jsonb) returns bytea
 */
Datum
rinq_to_cbor(PG_FUNCTION_ARGS)
{
	Jsonb	   *jb = PG_GETARG_JSONB_P(0);
	StringInfoData buf;

	/* the buffer becomes the result, so it starts with the varlena header */
	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	rinq_cbor_append_jsonb(&buf, jb);
	SET_VARSIZE(buf.data, buf.len);

	PG_RETURN_BYTEA_P(buf.data);
}

/*
 * rinq_from_cbor(bytea) returns jsonb
 */
Datum
rinq_from_cbor(PG_FUNCTION_ARGS)
{
	bytea	   *in = PG_GETARG_BYTEA_PP(0);

	PG_RETURN_JSONB_P(rinq_cbor_to_jsonb((const uint8 *) VARDATA_ANY(in),
										 VARSIZE_ANY_EXHDR(in)));
}
