/*-------------------------------------------------------------------------
 *
 * sess_server.c
 *	  What other peers ask about sessions of this one: requests in the
 *	  namespace "_sess", answered here and now (section 5 of the protocol).
 *
 * How requests come and responses go is server.c's; the rules of sessions are
 * those of sessions.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "peer/session/sess_server.h"
#include "peer/session/sessions.h"
#include "protocol/sess_message.h"
#include "utils/memutils.h"

/*
 * Write the text of an error, or type of a failure; returns the letter of the
 * response's type.
 */
static char
write_sess_text(StringInfo response, char type, const char *text)
{
	resetStringInfo(response);
	appendStringInfoString(response, text);
	return type;
}

static char
refuse_sess_request(StringInfo response, RinqOutcome outcome, RinqBytes detail)
{
	switch (outcome)
	{
		case RINQ_OUTCOME_NOT_FOUND:
			return write_sess_text(response, 'f', "not-found");
		case RINQ_OUTCOME_STALE:
			return write_sess_text(response, 'f', "stale");
		case RINQ_OUTCOME_FROZEN:
			return write_sess_text(response, 'f', "frozen");
		default:
			return write_sess_text(response, 'e', detail.len > 0 ? detail.data :
								   "the operation was refused");
	}
}

/* Respond with attributes of a session at a revision, no more than can be sent. */
static char
fetch_attributes(RinqAttributeTable *table, uint32 revision, const RinqSessBody *body, StringInfo response)
{
	RinqAttribute *found;
	int			count = 0;
	Size		size = 0;
	int			i;

	if (body->num_keys == 0 && body->namespace.len == 0)
	{
		rinq_sess_encode_revision(response, revision);
		return 's';
	}
	found = palloc_extended(Max(body->num_keys, 1) * sizeof(RinqAttribute), MCXT_ALLOC_HUGE);
	for (i = 0; i < body->num_keys; i++)
	{
		if (!rinq_attribute_find(table, body->namespace, body->keys[i].key, &found[count]))
			continue;
		size += found[count].key.len + found[count].value.len + 32;
		if (size > rinq_payload_limit())
			return write_sess_text(response, 'e', "the attributes exceed \"rinq.max_payload\"");
		count++;
	}
	rinq_sess_encode_fetched(response, revision, found, count);
	return 's';
}

static char
serve_fetch(const RinqSessBody *body, StringInfo response)
{
	RinqSession *session = rinq_own_session_find(body->session);

	if (session == NULL)
		return refuse_sess_request(response, RINQ_OUTCOME_NOT_FOUND, rinq_bytes(NULL, 0));
	return fetch_attributes(session->attributes, session->revision, body, response);
}

/*
 * Serve a request about a session that never changes; with a revision of -1, it
 * is not there.
 */
char
rinq_sess_serve_frozen(RinqBytes command, const RinqSessBody *body, RinqAttributeTable *table,
					   int64 revision, StringInfo response)
{
	if (revision < 0)
		return refuse_sess_request(response, RINQ_OUTCOME_NOT_FOUND, rinq_bytes(NULL, 0));
	if (rinq_bytes_are(command, "fetch"))
		return fetch_attributes(table, (uint32) revision, body, response);
	if (!rinq_bytes_are(command, "update") && !rinq_bytes_are(command, "clear") &&
		!rinq_bytes_are(command, "destroy"))
		return write_sess_text(response, 'e', "unknown command");
	if (body->revision != (uint32) revision)
		return refuse_sess_request(response, RINQ_OUTCOME_STALE, rinq_bytes(NULL, 0));
	return refuse_sess_request(response, RINQ_OUTCOME_FROZEN, rinq_bytes(NULL, 0));
}

static char
serve_update(const RinqSessBody *body, StringInfo response)
{
	RinqBytes	detail = rinq_bytes(NULL, 0);
	RinqOutcome outcome = rinq_own_session_update(body->session, body->revision, body->namespace,
												  body->attributes, body->num_attributes,
												  &detail);

	if (outcome != RINQ_OUTCOME_SUCCESS)
		return refuse_sess_request(response, outcome, detail);
	rinq_sess_encode_updated(response, body->revision + 1, body->attributes, body->num_attributes);
	return 's';
}

static char
serve_clear(const RinqSessBody *body, StringInfo response)
{
	RinqBytes	detail = rinq_bytes(NULL, 0);
	RinqOutcome outcome = rinq_own_session_clear(body->session, body->revision, body->namespace,
												 &detail);

	if (outcome != RINQ_OUTCOME_SUCCESS)
		return refuse_sess_request(response, outcome, detail);
	rinq_sess_encode_revision(response, body->revision + 1);
	return 's';
}

/*
 * Serve a request about a session.  Returns the type of the response: 's' with its payload
 * in "response", 'f' with the failure's type, 'e' with the error's text.
 */
char
rinq_sess_serve(RinqBytes command, RinqBytes payload, StringInfo response)
{
	RinqSessBody body;
	RinqOutcome outcome;

	if (!rinq_bytes_are(command, "fetch") && !rinq_bytes_are(command, "update") &&
		!rinq_bytes_are(command, "clear") && !rinq_bytes_are(command, "destroy"))
		return write_sess_text(response, 'e', "unknown command");
	if (!rinq_sess_decode(payload, &body))
		return write_sess_text(response, 'e', "the payload cannot be read");
	if (rinq_bytes_are(command, "fetch"))
		return serve_fetch(&body, response);
	if (rinq_bytes_are(command, "update"))
		return serve_update(&body, response);
	if (rinq_bytes_are(command, "clear"))
		return serve_clear(&body, response);
	outcome = rinq_own_session_destroy(body.session, body.revision);
	if (outcome != RINQ_OUTCOME_SUCCESS)
		return refuse_sess_request(response, outcome, rinq_bytes(NULL, 0));
	return 's';
}
