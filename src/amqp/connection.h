/*-------------------------------------------------------------------------
 *
 * connection.h
 *	  A connection to an AMQP 0-9-1 broker that never blocks.
 *
 * Responsible for everything between a connected address and whole messages:
 * TLS, login, frames, heartbeats, channels, pipelined requests and their replies,
 * deliveries, returns, confirms.  It owns one non-blocking socket and one
 * output buffer.  Not responsible for resolving names, for reconnecting, for
 * waiting (the owner's event loop does that), or for the meaning of messages.
 * Plain C.
 *
 * One RinqConn makes one attempt: create, connect, step until closed, destroy.
 *
 * How to drive it, in a loop:
 *
 *		more = rinq_conn_step(conn, now, 64);
 *		if (rinq_conn_state(conn) == RINQ_CONN_CLOSED) ... destroy, reconnect
 *		... publish, settle, request
 *		rinq_conn_flush(conn, now);
 *		wait, unless "more", for: rinq_conn_fd() readable if
 *		rinq_conn_wants_read(), writable if rinq_conn_wants_write(), and for
 *		the time rinq_conn_next_deadline()
 *
 * Ownership.  The connection copies everything it is given.  Everything a
 * callback receives by pointer is valid only until the callback returns.
 * Strings returned by the accessors live as long as the connection.
 *
 * Callbacks are made only from rinq_conn_step().  They may call every function
 * below except rinq_conn_step(), rinq_conn_connect() and rinq_conn_destroy().
 * They may also leave by longjmp(); then the connection must not be used any
 * more except by rinq_conn_destroy(), which is safe.
 *
 * Texts that come from the broker (errors, reasons, product, version) are
 * passed on with everything outside printable ASCII replaced by "?", so that
 * they suit any encoding, and during login with the password and user name
 * masked.  After login the connection does not know these any more.
 *
 * All times are milliseconds of any one clock that does not run backwards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_CONNECTION_H
#define RINQ_AMQP_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "amqp/message.h"
#include "amqp/tls.h"
#include "base/bytes.h"

typedef struct RinqConn RinqConn;

/* Channel numbers run from 1 to this, or less if the broker says so. */
#define RINQ_CONN_MAX_CHANNEL	1023

/* What rinq_conn_next_deadline() returns when there is none. */
#define RINQ_CONN_NO_DEADLINE	INT64_MAX

typedef enum RinqConnState
{
	RINQ_CONN_CONNECTING,		/* before and during TCP connect */
	RINQ_CONN_HANDSHAKE,		/* TLS, login and tuning */
	RINQ_CONN_OPEN,
	RINQ_CONN_CLOSING,			/* we asked the broker to close */
	RINQ_CONN_CLOSED			/* final; the socket is closed */
} RinqConnState;

typedef enum RinqConnErrorClass
{
	RINQ_CONN_ERR_NONE,			/* not closed, or closed at our request */
	RINQ_CONN_ERR_REFUSED,		/* could not connect */
	RINQ_CONN_ERR_TIMEOUT,		/* connect or login took too long */
	RINQ_CONN_ERR_TLS,			/* no agreement on TLS, or what it needs */
	RINQ_CONN_ERR_AUTH,			/* credentials or virtual host refused */
	RINQ_CONN_ERR_CLOSED_BY_BROKER, /* orderly close with a reason */
	RINQ_CONN_ERR_IO,			/* connection lost */
	RINQ_CONN_ERR_PROTOCOL,		/* the other side does not speak AMQP properly */
	RINQ_CONN_ERR_HEARTBEAT,	/* nothing heard for two heartbeats */
	RINQ_CONN_ERR_RESOURCE		/* out of memory, or no socket */
} RinqConnErrorClass;

/*
 * Copied by rinq_conn_create(), texts included; none of them may be NULL.  Of
 * user, vhost, product and version, the first 255 bytes count.
 */
typedef struct RinqConnConfig
{
	const char *user;
	const char *password;
	const char *vhost;
	const char *product;		/* sent as client properties */
	const char *version;
	const char *peer;			/* "host:port/vhost", used in error texts */
	int			heartbeat;		/* seconds asked for; 0 = off */
	int			connection_timeout; /* ms for connect and login together */
	size_t		max_body;		/* larger bodies are skipped on receipt and
								 * refused on sending */
	size_t		max_backlog;	/* publishing is refused while this many bytes
								 * wait to be sent; of all else, some MB more
								 * may wait, and then the connection ends */
	const RinqTlsConfig *tls;	/* NULL is plain text */
	bool		sasl_external;	/* log in with the certificate of TLS, in
								 * place of user and password */
} RinqConnConfig;

/* The requests that the broker answers, in order per channel. */
typedef enum RinqRequestKind
{
	RINQ_REQ_CHANNEL_OPEN,
	RINQ_REQ_CHANNEL_CLOSE,
	RINQ_REQ_EXCHANGE_DECLARE,
	RINQ_REQ_QUEUE_DECLARE,
	RINQ_REQ_QUEUE_BIND,
	RINQ_REQ_QUEUE_UNBIND,
	RINQ_REQ_QUEUE_DELETE,
	RINQ_REQ_BASIC_QOS,
	RINQ_REQ_BASIC_CONSUME,
	RINQ_REQ_BASIC_CANCEL,
	RINQ_REQ_CONFIRM_SELECT
} RinqRequestKind;

typedef struct RinqReply
{
	uint16_t	channel;
	RinqRequestKind kind;
	uint64_t	cookie;
	uint32_t	message_count;	/* queue declare and delete */
	uint32_t	consumer_count; /* queue declare */
} RinqReply;

typedef struct RinqAmqpChannelClosed
{
	uint16_t	channel;
	uint16_t	code;			/* 404, 405, 406, 403, ... */
	const char *text;			/* the broker's */
	const char *method;			/* what failed, e.g. "queue.declare"; never
								 * NULL, "unknown" if the broker does not say */
	bool		request_failed; /* the oldest unanswered request caused it */
	RinqRequestKind kind;		/* of that request, if request_failed */
	uint64_t	cookie;			/* of that request; 0 if the cause was not a
								 * request (a publish, an ack) */
} RinqAmqpChannelClosed;

typedef struct RinqDelivery
{
	uint16_t	channel;
	uint64_t	delivery_tag;
	bool		redelivered;
	RinqBytes	consumer_tag;
	RinqBytes	exchange;
	RinqBytes	routing_key;
	RinqMessage message;
	RinqBytes	body;			/* data is never NULL unless oversize */
	uint64_t	body_size;		/* as declared; equals body.len unless
								 * oversize */
	bool		oversize;		/* body exceeded max_body and was skipped */
	bool		malformed_headers;	/* message is all absent: not decodable */
} RinqDelivery;

typedef struct RinqReturn
{
	uint16_t	channel;
	uint16_t	code;			/* 312 = no route */
	const char *text;
	RinqBytes	exchange;
	RinqBytes	routing_key;
	RinqMessage message;
	RinqBytes	body;
	bool		oversize;
	bool		malformed_headers;
} RinqReturn;

/* Any of them may be NULL. */
typedef struct RinqConnCallbacks
{
	/* login finished: channels may be opened */
	void		(*on_open) (void *arg);
	void		(*on_reply) (void *arg, const RinqReply *reply);

	/*
	 * The broker closed a channel.  Its unanswered requests will never be
	 * answered, its consumers and confirm mode are gone.
	 * rinq_amqp_channel_open() with the same number is allowed at once, in
	 * the callback too.
	 */
	void		(*on_channel_closed) (void *arg, const RinqAmqpChannelClosed *info);
	void		(*on_delivery) (void *arg, const RinqDelivery *delivery);
	void		(*on_return) (void *arg, const RinqReturn *ret);
	void		(*on_confirm) (void *arg, uint16_t channel, uint64_t tag,
							   bool multiple, bool nack);

	/* the broker cancelled a consumer, e.g. because the queue was deleted */
	void		(*on_cancel) (void *arg, uint16_t channel, RinqBytes consumer_tag);
	void		(*on_blocked) (void *arg, bool blocked, const char *reason);

	/* asked after each frame: are these enough for one step? */
	bool		(*is_enough) (void *arg);
} RinqConnCallbacks;

/* ---------------- life and event loop ---------------- */

/* NULL when out of memory. */
extern RinqConn *rinq_conn_create(const RinqConnConfig *config,
								  const RinqConnCallbacks *callbacks, void *arg);

/*
 * Start a non-blocking connect.  On immediate failure the connection is
 * CLOSED and has its error.  May be called once.
 */
extern void rinq_conn_connect(RinqConn *conn, const struct sockaddr *addr,
							  socklen_t addrlen, int64_t now_ms);

/*
 * Do what can be done without waiting: receive, call back, keep the deadlines,
 * and send what was left over.  Handles at most max_frames (at least 1) frames.
 * Returns true if there is more to do right now, so that the owner must call
 * again before sleeping.  In an open connection, what callbacks have queued is
 * for the flush: with what the owner adds, it then goes out in one piece, which
 * is one system call, and one record of TLS.
 */
extern bool rinq_conn_step(RinqConn *conn, int64_t now_ms, int max_frames);

/*
 * Send what has been queued, as far as the socket takes it.  Never closes the
 * connection: an error shows up in the next step.
 */
extern void rinq_conn_flush(RinqConn *conn, int64_t now_ms);

/*
 * Ask the broker for an orderly close.  Keep stepping until CLOSED; a broker
 * that does not answer is given up after three seconds at most.  Before the
 * connection is OPEN, closes at once.
 */
extern void rinq_conn_close(RinqConn *conn, int64_t now_ms);

/* Replace the limit of the configuration, for bodies from now on. */
extern void rinq_conn_set_max_body(RinqConn *conn, size_t max_body);

/* Free everything and close the socket, in any state.  NULL is allowed. */
extern void rinq_conn_destroy(RinqConn *conn);

/*
 * Return the socket, or -1 when there is none.  It appears in
 * rinq_conn_connect(), stays the same, and is closed in rinq_conn_step() or
 * rinq_conn_close() when the connection becomes CLOSED.
 */
extern int	rinq_conn_fd(const RinqConn *conn);
extern bool rinq_conn_wants_read(const RinqConn *conn);
extern bool rinq_conn_wants_write(const RinqConn *conn);
extern int64_t rinq_conn_next_deadline(const RinqConn *conn);

extern RinqConnState rinq_conn_state(const RinqConn *conn);
extern RinqConnErrorClass rinq_conn_error_class(const RinqConn *conn);

/*
 * Tell whether the broker has closed the connection because a queue was to be
 * declared or bound, as far as it says.  Which queue, it does not say.
 */
extern bool rinq_conn_closed_by_declaration(const RinqConn *conn);

/* One lower-case sentence without final full stop; "" if there is no error. */
extern const char *rinq_conn_error(const RinqConn *conn);

/* Bytes that wait to be sent. */
extern size_t rinq_conn_backlog(const RinqConn *conn);

/* Tell whether the broker has said connection.blocked, and not yet unblocked. */
extern bool rinq_conn_blocked(const RinqConn *conn);

/* Known from login on, "" before.  See rinq_broker_version_check(). */
extern const char *rinq_conn_server_product(const RinqConn *conn);
extern const char *rinq_conn_server_version(const RinqConn *conn);

/* Of TLS, "" and 0 without it; the end of the broker's certificate in seconds since 1970. */
extern const char *rinq_conn_tls_version(const RinqConn *conn);
extern const char *rinq_conn_tls_cipher(const RinqConn *conn);
extern int64_t rinq_conn_tls_certificate_end(const RinqConn *conn);

/*
 * Read the files of the configuration again, which may have changed, and tell
 * whether the connection can stay as it is.  Only with TLS.
 */
extern RinqTlsChange rinq_conn_tls_compare(const RinqConn *conn, const RinqTlsConfig *config,
										   char *error, size_t size);

/*
 * Tell whether what is sent leaves this machine: the other end has no address
 * of this one.  Known once connected.
 */
extern bool rinq_conn_leaves_machine(const RinqConn *conn);
extern bool rinq_leaves_machine(const struct sockaddr *ours, const struct sockaddr *theirs);

/* Negotiated values, valid when OPEN. */
extern uint32_t rinq_conn_frame_max(const RinqConn *conn);
extern int	rinq_conn_heartbeat(const RinqConn *conn);
extern uint16_t rinq_conn_channel_max(const RinqConn *conn);

/* ---------------- requests, answered through on_reply ---------------- */

/* Tell whether this channel can be used now (open, or its opening on the way). */
extern bool rinq_amqp_channel_usable(const RinqConn *conn, uint16_t channel);

/* Requests of the channel that the broker has not answered yet. */
extern size_t rinq_amqp_channel_requests(const RinqConn *conn, uint16_t channel);

extern RinqMsgStatus rinq_amqp_channel_open(RinqConn *conn, uint16_t channel,
											uint64_t cookie);
extern RinqMsgStatus rinq_amqp_channel_close(RinqConn *conn, uint16_t channel,
											 uint64_t cookie);

/*
 * non-durable, not auto-delete, not internal, like all exchanges of Rinq; a
 * passive one asks only whether it exists
 */
extern RinqMsgStatus rinq_exchange_declare(RinqConn *conn, uint16_t channel,
										   RinqBytes name, RinqBytes kind,
										   bool passive, uint64_t cookie);

/*
 * max_priority 0 leaves the argument x-max-priority out, type NULL the argument
 * x-queue-type
 */
extern RinqMsgStatus rinq_queue_declare(RinqConn *conn, uint16_t channel,
										RinqBytes name, bool durable,
										bool exclusive, int max_priority,
										const char *type, uint64_t cookie);
extern RinqMsgStatus rinq_queue_bind(RinqConn *conn, uint16_t channel,
									 RinqBytes queue, RinqBytes exchange,
									 RinqBytes routing_key, uint64_t cookie);
extern RinqMsgStatus rinq_queue_unbind(RinqConn *conn, uint16_t channel,
									   RinqBytes queue, RinqBytes exchange,
									   RinqBytes routing_key, uint64_t cookie);
extern RinqMsgStatus rinq_queue_delete(RinqConn *conn, uint16_t channel,
									   RinqBytes queue, uint64_t cookie);
extern RinqMsgStatus rinq_basic_qos(RinqConn *conn, uint16_t channel,
									uint16_t count, bool global, uint64_t cookie);

/* with acknowledgements */
extern RinqMsgStatus rinq_basic_consume(RinqConn *conn, uint16_t channel,
										RinqBytes queue, RinqBytes consumer_tag,
										bool exclusive, uint64_t cookie);
extern RinqMsgStatus rinq_basic_cancel(RinqConn *conn, uint16_t channel,
									   RinqBytes consumer_tag, uint64_t cookie);
extern RinqMsgStatus rinq_confirm_select(RinqConn *conn, uint16_t channel,
										 uint64_t cookie);

/* ---------------- messages, not answered ---------------- */

/*
 * Queue a message for sending; everything is checked before the first byte
 * is written.  Nothing is sent until the next flush or step.  In confirm mode
 * the caller counts its own delivery tags: 1 for the first successful publish
 * after rinq_confirm_select().
 */
extern RinqMsgStatus rinq_basic_publish(RinqConn *conn, uint16_t channel,
										RinqBytes exchange, RinqBytes routing_key,
										bool mandatory, const RinqMessage *msg,
										const char *body, size_t body_len);

/*
 * Return the message that was published last, as it was written: its frames.
 * Valid only right after a successful rinq_basic_publish().
 */
extern RinqBytes rinq_conn_last_message(const RinqConn *conn);

/*
 * Queue a message for sending once more, on the same channel of the same
 * connection as before; frames are what rinq_conn_last_message() returned then.
 */
extern RinqMsgStatus rinq_basic_publish_again(RinqConn *conn, uint16_t channel,
											  RinqBytes frames);

/* Settling a delivery; exempt from max_backlog, but not from the limit beyond it. */
extern RinqMsgStatus rinq_basic_ack(RinqConn *conn, uint16_t channel,
									uint64_t delivery_tag, bool multiple);
extern RinqMsgStatus rinq_basic_reject(RinqConn *conn, uint16_t channel,
									   uint64_t delivery_tag, bool requeue);
extern RinqMsgStatus rinq_basic_nack(RinqConn *conn, uint16_t channel,
									 uint64_t delivery_tag, bool multiple,
									 bool requeue);

/* ---------------- policy ---------------- */

typedef enum RinqBrokerVerdict
{
	RINQ_BROKER_OK,
	RINQ_BROKER_OTHER_PRODUCT,	/* not RabbitMQ, or a version that cannot be
								 * read: worth a warning */
	RINQ_BROKER_TOO_OLD			/* RabbitMQ before 3.5: no priority queues */
} RinqBrokerVerdict;

extern RinqBrokerVerdict rinq_broker_version_check(const char *product,
												   const char *version);

#endif							/* RINQ_AMQP_CONNECTION_H */
