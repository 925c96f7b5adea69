/*-------------------------------------------------------------------------
 *
 * protocol/kinds.h
 *	  What processes of one server tell each other: the kinds of messages in
 *	  shared memory, and the fields of each (base/fields.h).
 *
 * A field has one meaning and one type, which its comment names where it is not
 * bytes.  Texts are in UTF-8, as on the wire.  What is absent was not set.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PROTOCOL_KINDS_H
#define RINQ_PROTOCOL_KINDS_H

#include "base/fields.h"

typedef enum RinqKind
{
	RINQ_KIND_CALL = 1,			/* from backends: a request to send */
	RINQ_KIND_OPERATION,		/* from backends: about sessions */
	RINQ_KIND_SEND,				/* from transactions and the outbox worker: a
								 * message to send */
	RINQ_KIND_REQUEST,			/* to command workers */
	RINQ_KIND_RESPONSE,			/* to command workers: for a session's handler */
	RINQ_KIND_NOTIFICATION,		/* to command workers, and to who fetches it */
	RINQ_KIND_RESULT,			/* of a call or of a handler */
	RINQ_KIND_OPERATION_RESULT,
	RINQ_KIND_ATTRIBUTE,		/* in lists */
	RINQ_KIND_NAMESPACE,		/* in lists */
	RINQ_KIND_SESSION,			/* in lists for SQL, these three */
	RINQ_KIND_SESSION_ATTRIBUTE,
	RINQ_KIND_SUBSCRIBER,
	RINQ_KIND_LISTENER,			/* in the configuration, these four */
	RINQ_KIND_SUBSCRIPTION,
	RINQ_KIND_SERVER,
	RINQ_KIND_SERVER_OPTION,
	RINQ_KIND_MAILBOX_RESPONSE	/* in lists for the outbox worker */
} RinqKind;

/* a call */
enum
{
	RINQ_CALL_NAMESPACE = RINQ_FIRST_FIELD(RINQ_KIND_CALL),
	RINQ_CALL_COMMAND,
	RINQ_CALL_PAYLOAD,
	RINQ_CALL_TRACE,			/* absent: the request's own id */
	RINQ_CALL_SPAN,				/* these three: as the request that is handled
								 * has them */
	RINQ_CALL_TRACEPARENT,
	RINQ_CALL_TRACESTATE,
	RINQ_CALL_END
};

/* an operation on a session, or on all; which of them has which, says RinqOperation */
enum
{
	RINQ_OP_NAMESPACE = RINQ_FIRST_FIELD(RINQ_KIND_OPERATION),
	RINQ_OP_ATTRIBUTES,			/* a list (protocol/attribute.h); of
								 * RINQ_OP_GET, for their keys */
	RINQ_OP_HANDLER,			/* reference to a function */
	RINQ_OP_HANDLER_OWNER,		/* OID: whom the function belongs to */
	RINQ_OP_CHANNEL,			/* of LISTEN and NOTIFY, in place of a handler */
	RINQ_OP_WAIT,				/* flag: for the next notification */
	RINQ_OP_AFTER,				/* uint32: number of the session before those
								 * listed */
	RINQ_OP_TRACE,				/* these as in calls */
	RINQ_OP_SPAN,
	RINQ_OP_TRACEPARENT,
	RINQ_OP_TRACESTATE,
	RINQ_OP_END
};

/* a message that is sent at commit; kind, target and times are RinqOutbound's */
enum
{
	RINQ_SEND_NAMESPACE = RINQ_FIRST_FIELD(RINQ_KIND_SEND),
	RINQ_SEND_COMMAND,			/* of a command request */
	RINQ_SEND_TYPE,				/* of a notification */
	RINQ_SEND_CONSTRAINT,		/* of a notification to many */
	RINQ_SEND_PAYLOAD,
	RINQ_SEND_TRACE,
	RINQ_SEND_SPAN,
	RINQ_SEND_TRACEPARENT,
	RINQ_SEND_TRACESTATE,
	RINQ_SEND_END
};

/* a request for a handler */
enum
{
	RINQ_REQUEST_HANDLER = RINQ_FIRST_FIELD(RINQ_KIND_REQUEST),
	RINQ_REQUEST_ID,
	RINQ_REQUEST_SOURCE,
	RINQ_REQUEST_NAMESPACE,
	RINQ_REQUEST_COMMAND,
	RINQ_REQUEST_PAYLOAD,
	RINQ_REQUEST_TRACE,
	RINQ_REQUEST_SPAN,
	RINQ_REQUEST_TRACEPARENT,
	RINQ_REQUEST_TRACESTATE,
	RINQ_REQUEST_ATTEMPT,		/* uint32: which one this is */
	RINQ_REQUEST_FIRST_RECEIVED,	/* int64: TimestampTz */
	RINQ_REQUEST_REFUSAL,		/* why its handler cannot be run; absent when
								 * it can */
	RINQ_REQUEST_ORDER_BY,		/* path of the value of which one is handled
								 * at a time: each element with a zero byte
								 * behind it */
	RINQ_REQUEST_DIGEST,		/* of one that was in the inbox: its key
								 * there, beside the id */
	RINQ_REQUEST_END
};

/* a response for the handler of its session */
enum
{
	RINQ_RESPONSE_HANDLER = RINQ_FIRST_FIELD(RINQ_KIND_RESPONSE),
	RINQ_RESPONSE_ID,			/* of the request */
	RINQ_RESPONSE_SOURCE,		/* of the request, which this peer has sent */
	RINQ_RESPONSE_NAMESPACE,
	RINQ_RESPONSE_COMMAND,
	RINQ_RESPONSE_OUTCOME,		/* its name (protocol/response.h) */
	RINQ_RESPONSE_FAILURE_TYPE,
	RINQ_RESPONSE_MESSAGE,		/* of a failure or an error */
	RINQ_RESPONSE_PAYLOAD,		/* of a success or a failure */
	RINQ_RESPONSE_TRACE,
	RINQ_RESPONSE_SPAN,
	RINQ_RESPONSE_TRACEPARENT,
	RINQ_RESPONSE_TRACESTATE,
	RINQ_RESPONSE_STORED,		/* flag: all but the id is in the row of a
								 * durable call */
	RINQ_RESPONSE_END
};

/* a notification; to command workers with a handler or a channel */
enum
{
	RINQ_NOTIFICATION_HANDLER = RINQ_FIRST_FIELD(RINQ_KIND_NOTIFICATION),
	RINQ_NOTIFICATION_CHANNEL,	/* of LISTEN and NOTIFY */
	RINQ_NOTIFICATION_ID,
	RINQ_NOTIFICATION_SOURCE,
	RINQ_NOTIFICATION_TARGET,
	RINQ_NOTIFICATION_NAMESPACE,
	RINQ_NOTIFICATION_TYPE,
	RINQ_NOTIFICATION_PAYLOAD,	/* in CBOR */
	RINQ_NOTIFICATION_CONSTRAINT,	/* in CBOR; absent when it was sent to one
									 * session */
	RINQ_NOTIFICATION_TRACE,
	RINQ_NOTIFICATION_SPAN,
	RINQ_NOTIFICATION_TRACEPARENT,
	RINQ_NOTIFICATION_TRACESTATE,
	RINQ_NOTIFICATION_SUBSCRIPTION, /* name of the durable subscription that
									 * it came for, in the database's
									 * encoding; absent for none */
	RINQ_NOTIFICATION_ATTEMPT,	/* these four as in requests */
	RINQ_NOTIFICATION_FIRST_RECEIVED,
	RINQ_NOTIFICATION_REFUSAL,
	RINQ_NOTIFICATION_DIGEST,
	RINQ_NOTIFICATION_END
};

/* what a call or a handler has ended with; RinqOutcome says which it has */
enum
{
	RINQ_RESULT_FAILURE_TYPE = RINQ_FIRST_FIELD(RINQ_KIND_RESULT),
	RINQ_RESULT_TEXT,			/* the message of a failure or an error; else
								 * why it failed */
	RINQ_RESULT_PAYLOAD,
	RINQ_RESULT_END
};

/* what an operation has ended with; RinqOperation and RinqOutcome say which it has */
enum
{
	RINQ_OP_RESULT_TEXT = RINQ_FIRST_FIELD(RINQ_KIND_OPERATION_RESULT), /* why it was refused */
	RINQ_OP_RESULT_REF,			/* RinqRef: the session at its new revision */
	RINQ_OP_RESULT_ID,			/* RinqMessageId */
	RINQ_OP_RESULT_UNCORRELATED,	/* flag: the session has a handler for
									 * responses */
	RINQ_OP_RESULT_LISTENED,	/* flag: the session did listen */
	RINQ_OP_RESULT_KEY,			/* of the attribute that it was refused for */
	RINQ_OP_RESULT_OWNER,		/* OID: role that the session belongs to */
	RINQ_OP_RESULT_ATTRIBUTES,	/* a list (protocol/attribute.h) */
	RINQ_OP_RESULT_NOTIFICATION,	/* packed; absent: there is none */
	RINQ_OP_RESULT_ROWS,		/* a list of the kind that was asked for */
	RINQ_OP_RESULT_LAST,		/* uint32: number of the last session listed;
								 * absent: there are no more */
	RINQ_OP_RESULT_UNREADY,		/* what is not served yet, in words; empty
								 * when all is */
	RINQ_OP_RESULT_END
};

/* an attribute of a session, its revisions as far as they are known */
enum
{
	RINQ_ATTRIBUTE_KEY = RINQ_FIRST_FIELD(RINQ_KIND_ATTRIBUTE),
	RINQ_ATTRIBUTE_VALUE,
	RINQ_ATTRIBUTE_FROZEN,		/* flag */
	RINQ_ATTRIBUTE_CREATED,		/* uint32: revision */
	RINQ_ATTRIBUTE_UPDATED,		/* uint32: revision */
	RINQ_ATTRIBUTE_END
};

/* a namespace that a session listens to */
enum
{
	RINQ_NAMESPACE_NAME = RINQ_FIRST_FIELD(RINQ_KIND_NAMESPACE),
	RINQ_NAMESPACE_END
};

/* a session of this peer, as a view shows it */
enum
{
	RINQ_SESSION_NUMBER = RINQ_FIRST_FIELD(RINQ_KIND_SESSION),	/* uint32 */
	RINQ_SESSION_REVISION,		/* uint32 */
	RINQ_SESSION_ROLE,			/* OID */
	RINQ_SESSION_PID,			/* uint32; absent: it is no process's */
	RINQ_SESSION_PENDING,		/* uint32: calls */
	RINQ_SESSION_BUFFERED,		/* uint32: notifications */
	RINQ_SESSION_CREATED,		/* int64: TimestampTz */
	RINQ_SESSION_NAMESPACES,	/* a list */
	RINQ_SESSION_END
};

/* an attribute of a session of this peer, as a view shows it */
enum
{
	RINQ_SESSION_ATTRIBUTE_SESSION = RINQ_FIRST_FIELD(RINQ_KIND_SESSION_ATTRIBUTE), /* uint32: its number */
	RINQ_SESSION_ATTRIBUTE_ROLE,	/* OID: whose session it is */
	RINQ_SESSION_ATTRIBUTE_NAMESPACE,
	RINQ_SESSION_ATTRIBUTE_ATTRIBUTE,	/* a list of one */
	RINQ_SESSION_ATTRIBUTE_END
};

/* a durable subscription, and the session that it has now */
enum
{
	RINQ_SUBSCRIBER_NAME = RINQ_FIRST_FIELD(RINQ_KIND_SUBSCRIBER),
	RINQ_SUBSCRIBER_SESSION,	/* uint32: its number */
	RINQ_SUBSCRIBER_ROLE,		/* OID */
	RINQ_SUBSCRIBER_END
};

/* a listener to a namespace */
enum
{
	RINQ_LISTENER_NAMESPACE = RINQ_FIRST_FIELD(RINQ_KIND_LISTENER),
	RINQ_LISTENER_HANDLER,
	RINQ_LISTENER_ROLE,			/* OID */
	RINQ_LISTENER_OWNER,		/* OID */
	RINQ_LISTENER_MAX_CONCURRENT,	/* uint32 */
	RINQ_LISTENER_DEDUPLICATE,	/* flag */
	RINQ_LISTENER_TIMEOUT,		/* uint32 */
	RINQ_LISTENER_RETRY,		/* RinqRetryPolicy, as it is in memory */
	RINQ_LISTENER_ORDER_BY,		/* as in requests */
	RINQ_LISTENER_DUE,			/* int64: ms of the monotonic clock */
	RINQ_LISTENER_PROBLEM,
	RINQ_LISTENER_END
};

/* a durable subscription */
enum
{
	RINQ_SUBSCRIPTION_NAME = RINQ_FIRST_FIELD(RINQ_KIND_SUBSCRIPTION),
	RINQ_SUBSCRIPTION_NAMESPACE,
	RINQ_SUBSCRIPTION_HANDLER,
	RINQ_SUBSCRIPTION_ROLE,		/* OID */
	RINQ_SUBSCRIPTION_OWNER,	/* OID */
	RINQ_SUBSCRIPTION_PROBLEM,
	RINQ_SUBSCRIPTION_ATTRIBUTES,	/* a list (protocol/attribute.h) */
	RINQ_SUBSCRIPTION_RETRY,	/* these two as in listeners */
	RINQ_SUBSCRIPTION_DUE,
	RINQ_SUBSCRIPTION_END
};

/* the foreign server that says where the broker is; options follow it */
enum
{
	RINQ_SERVER_NAME = RINQ_FIRST_FIELD(RINQ_KIND_SERVER),
	RINQ_SERVER_PROBLEM,
	RINQ_SERVER_END
};

/* an option of it, or of the user mapping */
enum
{
	RINQ_SERVER_OPTION_NAME = RINQ_FIRST_FIELD(RINQ_KIND_SERVER_OPTION),
	RINQ_SERVER_OPTION_VALUE,
	RINQ_SERVER_OPTION_END
};

/* an answer to a durable call */
enum
{
	RINQ_MAILBOX_RESPONSE_ID = RINQ_FIRST_FIELD(RINQ_KIND_MAILBOX_RESPONSE),	/* RinqMessageId */
	RINQ_MAILBOX_RESPONSE_OUTCOME,	/* its name (protocol/response.h) */
	RINQ_MAILBOX_RESPONSE_FAILURE_TYPE,
	RINQ_MAILBOX_RESPONSE_MESSAGE,
	RINQ_MAILBOX_RESPONSE_PAYLOAD,
	RINQ_MAILBOX_RESPONSE_END
};

RINQ_CHECK_FIELDS(RINQ_KIND_CALL, RINQ_CALL_END);
RINQ_CHECK_FIELDS(RINQ_KIND_OPERATION, RINQ_OP_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SEND, RINQ_SEND_END);
RINQ_CHECK_FIELDS(RINQ_KIND_REQUEST, RINQ_REQUEST_END);
RINQ_CHECK_FIELDS(RINQ_KIND_RESPONSE, RINQ_RESPONSE_END);
RINQ_CHECK_FIELDS(RINQ_KIND_NOTIFICATION, RINQ_NOTIFICATION_END);
RINQ_CHECK_FIELDS(RINQ_KIND_RESULT, RINQ_RESULT_END);
RINQ_CHECK_FIELDS(RINQ_KIND_OPERATION_RESULT, RINQ_OP_RESULT_END);
RINQ_CHECK_FIELDS(RINQ_KIND_ATTRIBUTE, RINQ_ATTRIBUTE_END);
RINQ_CHECK_FIELDS(RINQ_KIND_NAMESPACE, RINQ_NAMESPACE_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SESSION, RINQ_SESSION_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SESSION_ATTRIBUTE, RINQ_SESSION_ATTRIBUTE_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SUBSCRIBER, RINQ_SUBSCRIBER_END);
RINQ_CHECK_FIELDS(RINQ_KIND_LISTENER, RINQ_LISTENER_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SUBSCRIPTION, RINQ_SUBSCRIPTION_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SERVER, RINQ_SERVER_END);
RINQ_CHECK_FIELDS(RINQ_KIND_SERVER_OPTION, RINQ_SERVER_OPTION_END);
RINQ_CHECK_FIELDS(RINQ_KIND_MAILBOX_RESPONSE, RINQ_MAILBOX_RESPONSE_END);

#endif							/* RINQ_PROTOCOL_KINDS_H */
