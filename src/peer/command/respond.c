/*-------------------------------------------------------------------------
 *
 * respond.c
 *	  Responding to requests that have arrived.
 *
 * A request is acknowledged when its response was published; what becomes of the
 * response is told by the publisher, whose it is from then on.  What a handler
 * returned or raised has become a result before, in worker/response.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "guc.h"
#include "peer/command/delivery.h"
#include "peer/command/respond.h"
#include "peer/headers.h"
#include "peer/process.h"
#include "peer/sending/publisher.h"
#include "protocol/payload.h"
#include "utils/memutils.h"

#define MAX_PROBLEM 1024		/* bytes of an error that says why another was
								 * not sent */
#define MAX_UNSENT_RESPONSES 10000

/* requests whose response, in "body", the connection has no room for yet, oldest first */
static dlist_head unsent_responses = DLIST_STATIC_INIT(unsent_responses);
static int	num_unsent_responses = 0;
static Size unsent_response_bytes = 0;

/* Have a response wait that is in the request's type and body. */
static void
respond_later(RinqInbound * request)
{
	dlist_push_tail(&unsent_responses, &request->node);
	num_unsent_responses++;
	unsent_response_bytes += request->body.len;
}

/*
 * Forget a request whose response the broker has taken.
 */
static void
response_taken(const RinqPublication * what)
{
	rinq_inbound_free(what->request);
}

/*
 * Respond with an error to a request whose response the broker has refused.
 */
static void
response_refused(const RinqPublication * what, const char *text, bool for_good)
{
	RinqInbound *request = what->request;

	if (request->response_type == 'e')
	{
		rinq_inbound_free(request); /* refused as well: there is no more to
									 * say */
		return;
	}
	request->response_type = 'e';
	request->body = rinq_bytes(MemoryContextStrdup(TopMemoryContext, text), strlen(text));
	respond_later(request);
}

/* of a response that was not taken, there is no more to say */
static const RinqPublishOwner response_owner = {
	.taken = response_taken,
	.refused = response_refused,
	.nacked = response_taken,
	.forgotten = response_taken
};

/* Acknowledge a request, unless that was done with an earlier response. */
static void
acknowledge_request(RinqInbound * request)
{
	if (!request->settled)
		(void) rinq_basic_ack(rinq_peer.conn, request->channel, request->tag, false);
	request->settled = true;
}

/*
 * Publish the response to a request, unless none is wanted or it comes too
 * late, and acknowledge the request; false, with nothing done, when the
 * connection has no room for it now.
 */
static bool
respond_to_inbound(RinqInbound * request, char type, RinqBytes failure_type, RinqBytes text,
				   RinqBytes payload)
{
	RinqMessage msg;
	RinqMsgStatus status;
	RinqPublication what;
	char		expiration[RINQ_EXPIRATION_SIZE];
	char		id[RINQ_DISPLAY_LEN];
	char		trace[RINQ_DISPLAY_LEN];
	bool		late = rinq_inbound_expired(request);

	if (request->from_inbox || !rinq_inbound_can_settle(request))
	{
		rinq_inbound_free(request);
		return true;
	}
	if (request->reply == RINQ_REPLY_NONE || late)
	{
		if (late)
			rinq_count(rinq_peer.db, RINQ_REQUESTS_EXPIRED);
		acknowledge_request(request);
		rinq_inbound_free(request);
		return true;
	}

	memset(&msg, 0, sizeof(msg));
	msg.type = rinq_bytes(&type, 1);
	msg.correlation_id = rinq_get_bytes(&request->fields, RINQ_REQUEST_TRACE);
	rinq_message_set_deadline(&msg, request->deadline, expiration);
	if (request->reply == RINQ_REPLY_UNCORRELATED)
	{
		msg.reply_to = rinq_bytes_str("u");
		msg.ns = rinq_get_bytes(&request->fields, RINQ_REQUEST_NAMESPACE);
		msg.command = rinq_get_bytes(&request->fields, RINQ_REQUEST_COMMAND);
		msg.span_context = rinq_get_bytes(&request->fields, RINQ_REQUEST_SPAN);
		msg.traceparent = rinq_get_bytes(&request->fields, RINQ_REQUEST_TRACEPARENT);
		msg.tracestate = rinq_get_bytes(&request->fields, RINQ_REQUEST_TRACESTATE);
	}
	if (type == 'f')
	{
		msg.target = failure_type;
		if (text.len > 0)
			msg.failure_message = text;
	}
	else if (type == 'e')
		payload = text;

	memset(&what, 0, sizeof(what));
	what.kind = RINQ_PUBLISH_RESPONSE;
	what.owner = &response_owner;
	what.request = request;
	status = rinq_publish(&what, "cmd.rsp", rinq_get_bytes(&request->fields, RINQ_REQUEST_ID), false, &msg, payload);
	if (status == RINQ_MSG_BACKLOG)
		return false;
	if (status == RINQ_MSG_OK)
	{
		/* from now on it is the publisher's */
		rinq_count(rinq_peer.db, RINQ_RESPONSES_SENT);
		acknowledge_request(request);
		rinq_inbound_free_body(request);
		request->response_type = type;
		return true;
	}
	if (type != 'e' || payload.len > MAX_PROBLEM)
	{
		/*
		 * what does not fit into the headers, or into the broker; this surely
		 * does
		 */
		return respond_to_inbound(request, 'e', failure_type,
								  rinq_bytes_str(rinq_publish_problem(status)), payload);
	}
	ereport(LOG,
			(errmsg("rinq peer %s could not send a response: %s",
					rinq_peer.id_text, rinq_publish_problem(status)),
			 errdetail_internal("Request %s, trace id %s.",
								rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_ID), id),
								rinq_text_for_display(rinq_get_bytes(&request->fields, RINQ_REQUEST_TRACE), trace))));
	acknowledge_request(request);
	rinq_inbound_free(request);
	return true;
}

/*
 * Respond with an error; false when the connection has no room for it.
 */
bool
rinq_inbound_respond_error(RinqInbound * request, const char *text)
{
	return respond_to_inbound(request, 'e', rinq_bytes(NULL, 0), rinq_bytes_str(text),
							  rinq_bytes(NULL, 0));
}

/*
 * Tell whether a failed request is left to the primary: no process waits for it,
 * and a standby cannot keep it.  Only one that any peer may handle can be left.
 */
static bool
is_for_primary(const RinqInbound * request)
{
	return request->reply == RINQ_REPLY_NONE && request->balanced && RecoveryInProgress();
}

/*
 * Answer a request with what its executor has left in the slot; false when the
 * connection has no room for it.
 */
bool
rinq_inbound_result(RinqSlot *slot, RinqInbound * request)
{
	RinqFields	fields;
	RinqBytes	none = rinq_bytes(NULL, 0);

	Assert(request->work == RINQ_WORK_REQUEST && rinq_slot_state(slot) == RINQ_SLOT_DONE);
	rinq_slot_read(slot, RINQ_KIND_RESULT, &fields);
	if ((slot->outcome == RINQ_OUTCOME_FAILURE || slot->outcome == RINQ_OUTCOME_ERROR) &&
		is_for_primary(request))
	{
		rinq_inbound_give_back(request);
		return true;
	}
	switch (slot->outcome)
	{
		case RINQ_OUTCOME_SUCCESS:
			return respond_to_inbound(request, 's', none, none,
									  rinq_get_bytes(&fields, RINQ_RESULT_PAYLOAD));
		case RINQ_OUTCOME_FAILURE:
			return respond_to_inbound(request, 'f',
									  rinq_get_bytes(&fields, RINQ_RESULT_FAILURE_TYPE),
									  rinq_get_bytes(&fields, RINQ_RESULT_TEXT),
									  rinq_get_bytes(&fields, RINQ_RESULT_PAYLOAD));
		case RINQ_OUTCOME_ERROR:
			return respond_to_inbound(request, 'e', none,
									  rinq_get_bytes(&fields, RINQ_RESULT_TEXT), none);
		case RINQ_OUTCOME_EXPIRED:
			rinq_inbound_settle(request);
			return true;
		case RINQ_OUTCOME_NONE:
		case RINQ_OUTCOME_MALFORMED:
		case RINQ_OUTCOME_GIVEN_BACK:
		case RINQ_OUTCOME_AGAIN:
		case RINQ_OUTCOME_CONNECTION_LOST:
		case RINQ_OUTCOME_NOT_CONNECTED:
		case RINQ_OUTCOME_NO_QUEUE:
		case RINQ_OUTCOME_NOT_TAKEN:
		case RINQ_OUTCOME_TOO_LARGE:
		case RINQ_OUTCOME_REFUSED:
		case RINQ_OUTCOME_NOT_FOUND:
		case RINQ_OUTCOME_STALE:
		case RINQ_OUTCOME_STALE_FETCH:
		case RINQ_OUTCOME_FROZEN:
		case RINQ_OUTCOME_NOT_OURS:
			Assert(slot->outcome == RINQ_OUTCOME_GIVEN_BACK);
			break;
	}
	rinq_inbound_give_back(request);
	return true;
}

/* Send a response that was made before; false when there is no room for it now. */
static bool
send_unsent_response(RinqInbound * request)
{
	RinqBytes	none = rinq_bytes(NULL, 0);
	RinqBytes	response = request->body;

	return respond_to_inbound(request, request->response_type, request->response_type == 'f' ? response : none,
							  request->response_type == 'e' ? response : none,
							  request->response_type == 's' ? response : none);
}

/*
 * Send the response that is in the request's type and body, now or when the
 * connection has room for it.
 */
void
rinq_inbound_respond_soon(RinqInbound * request)
{
	if (!send_unsent_response(request))
		respond_later(request);
}

/*
 * Tell whether too many responses wait for room to take another request of this
 * kind.
 */
bool
rinq_inbound_too_many_unsent(void)
{
	return num_unsent_responses >= MAX_UNSENT_RESPONSES ||
		unsent_response_bytes > (Size) rinq_payload_memory * 1024 * 1024;
}

/*
 * Send responses that the connection had no room for; true when some still wait.
 */
bool
rinq_inbound_send_responses(void)
{
	while (!dlist_is_empty(&unsent_responses))
	{
		RinqInbound *request = dlist_container(RinqInbound, node, dlist_head_node(&unsent_responses));
		Size		bytes = request->body.len;

		dlist_delete(&request->node);
		if (!send_unsent_response(request))
		{
			dlist_push_head(&unsent_responses, &request->node);
			break;
		}
		Assert(num_unsent_responses > 0 && unsent_response_bytes >= bytes);
		num_unsent_responses--;
		unsent_response_bytes -= bytes;
	}
	return !dlist_is_empty(&unsent_responses);
}
