/*-------------------------------------------------------------------------
 *
 * connection_internal.h
 *	  What the files that make up a connection share.
 *
 * Private to this directory.  The files, by phase of work:
 *
 *	connection.c	life, event loop step, deadlines
 *	failure.c		errors, and the end
 *	info.c			what the owner may ask, which brokers will do
 *	transport.c		bytes to and from the socket, plain or through TLS (tls.h)
 *	output.c		the output buffer and the encoding of methods
 *	method.c		names of methods, and their arguments
 *	framing.c		cutting the input into frames, dispatching them
 *	handshake.c		connection-level methods: login, tuning, close, blocked
 *	requests.c		channel-level requests, their replies, channel.close
 *	publish.c		sending messages and settling deliveries
 *	content.c		putting received messages together
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_CONNECTION_INTERNAL_H
#define RINQ_AMQP_CONNECTION_INTERNAL_H

#include "amqp/codec.h"
#include "amqp/connection.h"
#include "amqp/table.h"
#include "amqp/tls.h"
#include "base/invariant.h"

/* The largest frame we agree to, and the least the standard allows. */
#define RINQ_FRAME_MAX			131072
#define RINQ_FRAME_MIN			4096

/* type, channel, size before the payload; one end byte after it */
#define RINQ_FRAME_HEAD			7
#define RINQ_FRAME_OVERHEAD		8
#define RINQ_FRAME_END			0xCE

/* class, weight, body size before the property list of a content header */
#define RINQ_CONTENT_HEAD		12

#define RINQ_SHORT_STRING_MAX	255

/* Room for what went wrong, with the name of the broker. */
#define RINQ_CONN_ERROR_SIZE	1024

/* Room for a text from the broker (a short string) after cleaning. */
#define RINQ_TEXT_SIZE			256

/* An unanswered request. */
typedef struct RinqPending
{
	RinqRequestKind kind;
	uint64_t	cookie;
} RinqPending;

typedef enum RinqAmqpChannelState
{
	RINQ_CHANNEL_CLOSED,
	RINQ_CHANNEL_OPEN,			/* from sending channel.open on */
	RINQ_CHANNEL_CLOSING		/* from sending channel.close on */
} RinqAmqpChannelState;

typedef enum RinqContentPhase
{
	RINQ_CONTENT_NONE,
	RINQ_CONTENT_HEADER,		/* got the method, a header must follow */
	RINQ_CONTENT_BODY			/* got the header, body frames must follow */
} RinqContentPhase;

/*
 * A message on its way in.  The names are copied since the input buffer may be
 * refilled between the frames; a body that comes in one frame is not.
 */
typedef struct RinqContent
{
	RinqContentPhase phase;
	bool		is_return;
	bool		redelivered;
	bool		oversize;
	uint16_t	code;			/* of a return */
	uint64_t	delivery_tag;
	uint64_t	body_size;		/* declared */
	uint64_t	body_seen;		/* received so far, buffered or skipped */
	uint8_t		tag_len;
	uint8_t		exchange_len;
	uint8_t		routing_key_len;
	char		tag[RINQ_SHORT_STRING_MAX]; /* consumer tag or reply text */
	char		exchange[RINQ_SHORT_STRING_MAX];
	char		routing_key[RINQ_SHORT_STRING_MAX];
	char	   *props;			/* property list, kept for the next message */
	size_t		props_len;
	size_t		props_cap;
	char	   *body;			/* only if it takes several frames */
	size_t		body_len;
	size_t		body_cap;
} RinqContent;

typedef struct RinqAmqpChannel
{
	RinqAmqpChannelState state;

	/*
	 * Both sides closed at the same time: the broker answers our close
	 * although its own close has ended the channel already.
	 */
	bool		stray_close_ok;
	RinqPending *fifo;			/* ring buffer */
	size_t		fifo_head;
	size_t		fifo_count;
	size_t		fifo_cap;
	RinqContent content;
} RinqAmqpChannel;

struct RinqConn
{
	RinqConnCallbacks cb;
	void	   *cb_arg;

	/* configuration; user and password are wiped once login is over */
	char	   *user;
	char	   *password;
	char	   *vhost;
	char	   *product;
	char	   *version;
	char	   *peer;
	int			want_heartbeat;
	int			connection_timeout;
	size_t		max_body;
	size_t		max_backlog;
	bool		sasl_external;

	RinqConnState state;
	RinqConnErrorClass error_class;
	char		error[RINQ_CONN_ERROR_SIZE];
	bool		declaring_closed;	/* the broker closed it because of a queue */

	int			fd;
	RinqTls    *tls;			/* NULL is plain text */
	char	   *tls_problem;	/* why there is no TLS although there should
								 * be */
	bool		greeted;		/* AMQP has begun */
	int			send_errno;		/* sending failed; reported once nothing more
								 * can be read */

	/* times, in the owner's clock */
	int64_t		now;			/* as of the latest call */
	int64_t		last_rx;
	int64_t		last_tx;
	int64_t		give_up_at;		/* end of login, or of an orderly close */

	/* negotiated */
	uint32_t	frame_max;
	uint16_t	channel_max;
	int			heartbeat;

	bool		blocked;
	bool		start_seen;
	bool		tune_seen;
	size_t		login_size;		/* payload of the frame with the password */
	bool		login_oversize; /* more than brokers take by default */
	char		server_product[RINQ_TEXT_SIZE];
	char		server_version[RINQ_TEXT_SIZE];

	/* output: bytes out[out_start..out_end) wait to be sent */
	char	   *out;
	size_t		out_start;
	size_t		out_end;
	size_t		out_cap;
	bool		out_full;		/* more would have waited than may */
	size_t		last_message;	/* size of the message published last */

	/* input: bytes in[in_start..in_end) are not processed yet */
	uint8_t    *in;
	size_t		in_start;
	size_t		in_end;

	amqp_pool_t pool;			/* decoded methods; recycled before each */
	RinqAmqpChannel channels[RINQ_CONN_MAX_CHANNEL + 1];	/* [0] is not used */
};

/* The largest input buffer needed: one whole frame. */
#define RINQ_INPUT_SIZE			(RINQ_FRAME_MAX + RINQ_FRAME_OVERHEAD)

/* failure.c */
extern void rinq_conn_fail(RinqConn *conn, RinqConnErrorClass error_class,
						   const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
extern void rinq_conn_protocol_error(RinqConn *conn, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
extern void rinq_conn_no_memory(RinqConn *conn);
extern void rinq_conn_does_not_read(RinqConn *conn);
extern void rinq_conn_end(RinqConn *conn);
extern void rinq_conn_forget_credentials(RinqConn *conn);

/* info.c */
extern void rinq_conn_clean_text(const RinqConn *conn, RinqBytes text,
								 char *buf, size_t size);

/* transport.c */
extern RinqIoResult rinq_transport_receive(RinqConn *conn, void *buf, size_t room, size_t *received);
extern bool rinq_transport_has_more(const RinqConn *conn);
extern RinqIoResult rinq_transport_send(RinqConn *conn, const void *data, size_t len, size_t *sent);
extern const char *rinq_transport_error(const RinqConn *conn);
extern void rinq_transport_begin(RinqConn *conn);
extern bool rinq_transport_ready(RinqConn *conn);

/* output.c */
extern bool rinq_out_reserve(RinqConn *conn, size_t len);
extern void rinq_out_frame_head(char *at, uint8_t type, uint16_t channel,
								size_t payload);
extern bool rinq_out_method(RinqConn *conn, uint16_t channel,
							amqp_method_number_t id, void *method,
							size_t max_args);
extern void rinq_out_heartbeat(RinqConn *conn);
extern void rinq_out_send(RinqConn *conn);
extern void rinq_out_free(RinqConn *conn);

/* method.c */
extern void *rinq_decode_method(RinqConn *conn, amqp_method_number_t id,
								RinqBytes args);
extern const char *rinq_method_name(amqp_method_number_t id);

/* framing.c */
typedef enum RinqFrameResult
{
	RINQ_FRAME_HANDLED,
	RINQ_FRAME_INCOMPLETE,
	RINQ_FRAME_FAILED			/* the connection is closed */
} RinqFrameResult;

extern RinqFrameResult rinq_frame_next(RinqConn *conn);
extern bool rinq_frame_ready(const RinqConn *conn);

/* handshake.c */
extern void rinq_handshake_begin(RinqConn *conn);
extern void rinq_connection_method(RinqConn *conn, amqp_method_number_t id,
								   RinqBytes args);
extern void rinq_send_connection_close(RinqConn *conn);

/* requests.c */
extern bool rinq_amqp_channel_reply(RinqConn *conn, uint16_t channel,
									amqp_method_number_t id, RinqBytes args);
extern void rinq_amqp_channel_closed_by_broker(RinqConn *conn, uint16_t channel,
											   RinqBytes args);
extern void rinq_amqp_channel_free(RinqAmqpChannel *ch);

/* content.c */
extern void rinq_content_deliver(RinqConn *conn, uint16_t channel, RinqBytes args);
extern void rinq_content_return(RinqConn *conn, uint16_t channel, RinqBytes args);
extern void rinq_content_header(RinqConn *conn, uint16_t channel, RinqBytes payload);
extern void rinq_content_body(RinqConn *conn, uint16_t channel, RinqBytes payload);
extern void rinq_content_reset(RinqContent *content);

#endif							/* RINQ_AMQP_CONNECTION_INTERNAL_H */
