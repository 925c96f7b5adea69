/*-------------------------------------------------------------------------
 *
 * session_results.c
 *	  What operations on sessions end with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "peer/command/pending_calls.h"
#include "peer/operation/session_results.h"
#include "protocol/payload.h"

/*
 * End an operation with an outcome that may have a detail: the key of the
 * attribute that is frozen or has changed, else a text.
 */
void
rinq_session_finish(uint32 index, RinqOutcome outcome, RinqBytes detail)
{
	bool		is_key = outcome == RINQ_OUTCOME_FROZEN || outcome == RINQ_OUTCOME_STALE_FETCH;
	RinqFields	result;

	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);

	/* a copy, since it may be in the slot that is written */
	rinq_put_bytes(&result, is_key ? RINQ_OP_RESULT_KEY : RINQ_OP_RESULT_TEXT,
				   rinq_bytes_copy(detail));
	rinq_pending_finish(index, outcome, &result);
}

/*
 * End an operation well, with the session at the revision that it has now.
 */
void
rinq_session_finish_ref(uint32 index, const RinqRef *ref)
{
	RinqFields	result;

	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_ref(&result, RINQ_OP_RESULT_REF, ref);
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}

/*
 * End an operation well, with attributes.
 */
void
rinq_session_finish_attributes(uint32 index, const RinqAttribute *attributes, int count)
{
	StringInfoData list;
	RinqFields	result;

	initStringInfo(&list);
	rinq_attributes_pack(&list, attributes, count);
	rinq_fields_init(&result, RINQ_KIND_OPERATION_RESULT);
	rinq_put_bytes(&result, RINQ_OP_RESULT_ATTRIBUTES, rinq_bytes(list.data, list.len));
	rinq_pending_finish(index, RINQ_OUTCOME_SUCCESS, &result);
}
