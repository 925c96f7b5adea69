/*-------------------------------------------------------------------------
 *
 * fake.h
 *	  A broker made of single bytes, and an owner that writes down its callbacks.
 *
 * Both ends live in the test's only thread, joined by a Unix socket, whose
 * bytes arrive at once: nothing has to be waited for.  Time is what the test
 * says it is.  With TLS, the broker's end of that is in the same thread, too;
 * RINQ_TEST_TLS in the environment has all connections use it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_TEST_FAKE_H
#define RINQ_TEST_FAKE_H

#include <setjmp.h>

#include <openssl/ssl.h>

#include "amqp/connection.h"

/* frame types and method numbers, written down independently of the library */
#define F_METHOD	1
#define F_HEADER	2
#define F_BODY		3
#define F_HEARTBEAT 8
#define M(class, method) ((uint32_t) (class) << 16 | (method))

typedef struct Fake
{
	RinqConn   *conn;
	int			listener;
	int			fd;				/* the broker's end */
	int64_t		now;

	/* TLS at the broker's end: what came of the wire, and goes there */
	SSL		   *ssl;			/* NULL is plain text */
	BIO		   *from_wire;
	BIO		   *to_wire;
	size_t		piece;			/* bytes put onto the wire at once; 0 is all */
	long		stop_after;		/* bytes put onto the wire at all; -1 is all */
	long		damage_at;		/* which of them is changed; -1 is none */
	long		wire_count;		/* of them so far */

	/* what the broker is about to send */
	unsigned char *out;
	size_t		out_len;
	size_t		out_cap;
	size_t		frame_at;

	/* what the connection has sent, as far as it has been looked at */
	unsigned char *in;
	size_t		in_len;
	size_t		in_cap;

	/* what the callbacks said, one line each */
	char		log[65536];
	size_t		log_len;
	bool		quiet;			/* do not write the log */

	bool		reopen;			/* on_channel_closed opens the channel again */
	bool		close_channel;	/* on_delivery closes the channel */
	jmp_buf    *escape;			/* on_delivery leaves by longjmp */
} Fake;

/* Settings of the next fake_new(); fake_defaults() sets them. */
typedef struct FakeSettings
{
	int			heartbeat;
	int			timeout;
	size_t		max_body;
	size_t		max_backlog;
	const char *password;
	SSL_CTX    *server;			/* with TLS: what the broker presents */
	const RinqTlsConfig *tls;	/* and what the connection makes of it */
	bool		sasl_external;
	size_t		piece;
	long		stop_after;
	long		damage_at;
} FakeSettings;

extern FakeSettings fake_settings;
extern void fake_defaults(void);

extern Fake *fake_new(void);	/* connected, nothing said yet */
extern Fake *fake_open(void);	/* logged in, channel 1 open, log empty */
extern Fake *fake_unconnected(void);
extern void fake_free(Fake *f);

/* building frames */
extern void put_bytes(Fake *f, const void *data, size_t len);
extern void put8(Fake *f, unsigned v);
extern void put16(Fake *f, unsigned v);
extern void put32(Fake *f, uint32_t v);
extern void put64(Fake *f, uint64_t v);
extern void put_shortstr(Fake *f, const char *s);
extern void put_longstr(Fake *f, const char *s);
extern void frame_begin(Fake *f, int type, int channel);
extern void frame_end(Fake *f);
extern void method_begin(Fake *f, int channel, uint32_t method);
extern void put_method(Fake *f, int channel, uint32_t method);	/* no arguments */

/* common sequences */
extern void put_start(Fake *f, const char *product, const char *version,
					  const char *mechanisms);
extern void put_tune(Fake *f, unsigned channel_max, uint32_t frame_max,
					 unsigned heartbeat);
extern void put_open_ok(Fake *f);
extern void put_close(Fake *f, int channel, unsigned code, const char *text,
					  uint32_t culprit);
extern void put_deliver(Fake *f, int channel, uint64_t tag);
extern void put_header(Fake *f, int channel, uint64_t size, const void *props,
					   size_t len);
extern void put_body(Fake *f, int channel, const void *data, size_t len);

/* sending and stepping */
extern void fake_send(Fake *f); /* all at once, then step */
extern bool fake_send_only(Fake *f);	/* all at once, without a step */
extern void fake_send_bytewise(Fake *f);	/* a step after every byte */
extern void fake_step(Fake *f); /* until there is no more to do */
extern void fake_hang_up(Fake *f);

/* puts onto the wire what TLS at the broker's end has ready; true if anything */
extern bool fake_flush(Fake *f);

/* takes over whatever the connection has sent, for the functions below */
extern void fake_drain(Fake *f);

/* "channel:class.method" of every frame the connection has sent since */
extern const char *fake_sent(Fake *f);

/* the raw bytes since; length in *len; valid until the next call */
extern unsigned char *fake_sent_bytes(Fake *f, size_t *len);

/* the log since the last call */
extern const char *fake_log(Fake *f);

#endif							/* RINQ_TEST_FAKE_H */
