/*-------------------------------------------------------------------------
 *
 * identifier.c
 *	  The checks behind the domains of identifiers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/ident.h"
#include "fmgr.h"

PG_FUNCTION_INFO_V1(rinq_is_session_id);
PG_FUNCTION_INFO_V1(rinq_is_revision);
PG_FUNCTION_INFO_V1(rinq_is_message_id);

/*
 * rinq_is_session_id(text) returns boolean
 */
Datum
rinq_is_session_id(PG_FUNCTION_ARGS)
{
	text	   *t = PG_GETARG_TEXT_PP(0);
	RinqSessionId id;

	PG_RETURN_BOOL(rinq_session_id_parse(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), &id));
}

/*
 * rinq_is_revision(text) returns boolean
 */
Datum
rinq_is_revision(PG_FUNCTION_ARGS)
{
	text	   *t = PG_GETARG_TEXT_PP(0);
	RinqRef		ref;

	PG_RETURN_BOOL(rinq_ref_parse(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), &ref));
}

/*
 * rinq_is_message_id(text) returns boolean
 */
Datum
rinq_is_message_id(PG_FUNCTION_ARGS)
{
	text	   *t = PG_GETARG_TEXT_PP(0);
	RinqMessageId id;

	PG_RETURN_BOOL(rinq_message_id_parse(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), &id));
}
