/*-------------------------------------------------------------------------
 *
 * fake.c
 *	  The fake broker and the note-taking owner of a connection.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "certs.h"
#include "fake.h"

FakeSettings fake_settings;

/* What is used with RINQ_TEST_TLS. */
static RinqTlsConfig plain_config = {.host = "",.rootcert = "",.crl = "",.cert = "",.key = "",.min_version = TLS1_2_VERSION};

static SSL_CTX *
default_server(void)
{
	static SSL_CTX *server;

	if (server == NULL)
	{
		Cert		cert = cert_make("fake", NULL, -1, 1, NULL, false);

		server = server_make(&cert);
		cert_free(&cert);
	}
	return server;
}

void
fake_defaults(void)
{
	fake_settings.heartbeat = 10;
	fake_settings.timeout = 5000;
	fake_settings.max_body = 1000000;
	fake_settings.max_backlog = 10000000;
	fake_settings.password = "s3cret";
	fake_settings.server = NULL;
	fake_settings.tls = NULL;
	fake_settings.sasl_external = false;
	fake_settings.piece = 0;
	fake_settings.stop_after = -1;
	fake_settings.damage_at = -1;
	if (getenv("RINQ_TEST_TLS") != NULL)
	{
		fake_settings.server = default_server();
		fake_settings.tls = &plain_config;
	}
}

static void
must(bool ok, const char *what)
{
	if (!ok)
	{
		printf("fake broker: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

/* ---------------- the owner ---------------- */

static void note(Fake *f, const char *fmt,...) __attribute__((format(printf, 2, 3)));

static void
note(Fake *f, const char *fmt,...)
{
	va_list		args;

	if (f->quiet || f->log_len > sizeof(f->log) - 2000)
		return;
	va_start(args, fmt);
	f->log_len += (size_t) vsnprintf(f->log + f->log_len, 2000, fmt, args);
	va_end(args);
}

static void
on_open(void *arg)
{
	note(arg, "open\n");
}

static void
on_reply(void *arg, const RinqReply *r)
{
	note(arg, "reply %u kind=%d cookie=%llu counts=%u,%u\n", r->channel, r->kind,
		 (unsigned long long) r->cookie, r->message_count, r->consumer_count);
}

static void
on_channel_closed(void *arg, const RinqAmqpChannelClosed *c)
{
	Fake	   *f = arg;

	note(f, "closed %u %u \"%s\" %s request=%d kind=%d cookie=%llu\n", c->channel,
		 c->code, c->text, c->method, c->request_failed, c->kind,
		 (unsigned long long) c->cookie);
	if (f->reopen)
		note(f, "reopen %d\n", rinq_amqp_channel_open(f->conn, c->channel, 99));
}

/* Long bodies are shown by length and a checksum. */
static void
note_body(Fake *f, RinqBytes body)
{
	unsigned	sum = 0;

	for (size_t i = 0; i < body.len; i++)
		sum = sum * 31 + (unsigned char) body.data[i];
	if (body.data == NULL)
		note(f, " no body");
	else if (body.len <= 20)
		note(f, " \"%.*s\"", (int) body.len, body.data);
	else
		note(f, " %zu bytes %08x", body.len, sum);
}

static void
on_delivery(void *arg, const RinqDelivery *d)
{
	Fake	   *f = arg;

	note(f, "delivery %u tag=%llu%s %.*s|%.*s|%.*s ns=%.*s", d->channel,
		 (unsigned long long) d->delivery_tag, d->redelivered ? " again" : "",
		 (int) d->consumer_tag.len, d->consumer_tag.data,
		 (int) d->exchange.len, d->exchange.data,
		 (int) d->routing_key.len, d->routing_key.data,
		 (int) d->message.ns.len, d->message.ns.data != NULL ? d->message.ns.data : "");
	if (f->close_channel)
		(void) rinq_amqp_channel_close(f->conn, d->channel, 7);
	note_body(f, d->body);
	note(f, "%s%s\n", d->oversize ? " oversize" : "", d->malformed_headers ? " malformed" : "");
	(void) rinq_basic_ack(f->conn, d->channel, d->delivery_tag, false);
	if (f->escape != NULL)
		longjmp(*f->escape, 1);
}

static void
on_return(void *arg, const RinqReturn *r)
{
	Fake	   *f = arg;

	note(f, "return %u %u \"%s\" %.*s|%.*s", r->channel, r->code, r->text,
		 (int) r->exchange.len, r->exchange.data,
		 (int) r->routing_key.len, r->routing_key.data);
	note_body(f, r->body);
	note(f, "%s\n", r->oversize ? " oversize" : "");
}

static void
on_confirm(void *arg, uint16_t channel, uint64_t tag, bool multiple, bool nack)
{
	note(arg, "confirm %u %llu%s%s\n", channel, (unsigned long long) tag,
		 multiple ? " multiple" : "", nack ? " nack" : "");
}

static void
on_cancel(void *arg, uint16_t channel, RinqBytes tag)
{
	note(arg, "cancel %u %.*s\n", channel, (int) tag.len, tag.data);
}

static void
on_blocked(void *arg, bool blocked, const char *reason)
{
	note(arg, "blocked %d \"%s\"\n", blocked, reason);
}

static const RinqConnCallbacks callbacks = {
	on_open, on_reply, on_channel_closed, on_delivery, on_return, on_confirm,
	on_cancel, on_blocked, NULL
};

const char *
fake_log(Fake *f)
{
	static char copy[sizeof(f->log)];

	memcpy(copy, f->log, f->log_len);
	copy[f->log_len] = '\0';
	f->log_len = 0;
	return copy;
}

/* ---------------- life ---------------- */

Fake *
fake_unconnected(void)
{
	Fake	   *f = calloc(1, sizeof(*f));
	RinqConnConfig config = {0};

	must(f != NULL, "memory");
	f->fd = f->listener = -1;
	f->now = 1000000;
	config.user = "joe-user";
	config.password = fake_settings.password;
	config.vhost = "/v";
	config.product = "unit test";
	config.version = "0.1";
	config.peer = "fake:1/v";
	config.heartbeat = fake_settings.heartbeat;
	config.connection_timeout = fake_settings.timeout;
	config.max_body = fake_settings.max_body;
	config.max_backlog = fake_settings.max_backlog;
	config.tls = fake_settings.tls;
	config.sasl_external = fake_settings.sasl_external;
	f->conn = rinq_conn_create(&config, &callbacks, f);
	must(f->conn != NULL, "create");
	return f;
}

Fake *
fake_new(void)
{
	Fake	   *f = fake_unconnected();
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t	len = sizeof(addr);

	/* binding without a name lets the kernel choose one */
	f->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	must(f->listener >= 0, "socket");
	must(bind(f->listener, (struct sockaddr *) &addr, sizeof(sa_family_t)) == 0, "bind");
	must(listen(f->listener, 1) == 0, "listen");
	must(getsockname(f->listener, (struct sockaddr *) &addr, &len) == 0, "getsockname");
	rinq_conn_connect(f->conn, (struct sockaddr *) &addr, len, f->now);
	if (rinq_conn_state(f->conn) == RINQ_CONN_CLOSED)
		return f;				/* it did not get that far */
	f->fd = accept(f->listener, NULL, NULL);
	must(f->fd >= 0, "accept");
	f->piece = fake_settings.piece;
	f->stop_after = fake_settings.stop_after;
	f->damage_at = fake_settings.damage_at;
	if (fake_settings.server != NULL)
	{
		f->ssl = SSL_new(fake_settings.server);
		f->from_wire = BIO_new(BIO_s_mem());
		f->to_wire = BIO_new(BIO_s_mem());
		BIO_set_mem_eof_return(f->from_wire, -1);
		SSL_set_bio(f->ssl, f->from_wire, f->to_wire);
		SSL_set_accept_state(f->ssl);
	}
	return f;
}

Fake *
fake_open(void)
{
	Fake	   *f = fake_new();

	put_start(f, "RabbitMQ", "3.10.8", "AMQPLAIN PLAIN");
	put_tune(f, 2047, 131072, 60);
	put_open_ok(f);
	fake_send(f);
	must(rinq_amqp_channel_open(f->conn, 1, 0) == RINQ_MSG_OK, "channel.open");
	method_begin(f, 1, M(20, 11));
	put_longstr(f, "");
	frame_end(f);
	fake_send(f);
	(void) fake_sent(f);
	(void) fake_log(f);
	return f;
}

void
fake_free(Fake *f)
{
	rinq_conn_destroy(f->conn);
	SSL_free(f->ssl);
	if (f->fd >= 0)
		close(f->fd);
	if (f->listener >= 0)
		close(f->listener);
	free(f->out);
	free(f->in);
	free(f);
}

/* ---------------- building ---------------- */

void
put_bytes(Fake *f, const void *data, size_t len)
{
	if (f->out_len + len > f->out_cap)
	{
		f->out_cap = (f->out_len + len) * 2;
		f->out = realloc(f->out, f->out_cap);
		must(f->out != NULL, "memory");
	}
	if (len > 0)
		memcpy(f->out + f->out_len, data, len);
	f->out_len += len;
}

void
put8(Fake *f, unsigned v)
{
	unsigned char b = (unsigned char) v;

	put_bytes(f, &b, 1);
}

void
put16(Fake *f, unsigned v)
{
	put8(f, v >> 8);
	put8(f, v);
}

void
put32(Fake *f, uint32_t v)
{
	put16(f, v >> 16);
	put16(f, v & 0xffff);
}

void
put64(Fake *f, uint64_t v)
{
	put32(f, (uint32_t) (v >> 32));
	put32(f, (uint32_t) v);
}

void
put_shortstr(Fake *f, const char *s)
{
	put8(f, (unsigned) strlen(s));
	put_bytes(f, s, strlen(s));
}

void
put_longstr(Fake *f, const char *s)
{
	put32(f, (uint32_t) strlen(s));
	put_bytes(f, s, strlen(s));
}

void
frame_begin(Fake *f, int type, int channel)
{
	f->frame_at = f->out_len;
	put8(f, (unsigned) type);
	put16(f, (unsigned) channel);
	put32(f, 0);
}

void
frame_end(Fake *f)
{
	size_t		len = f->out_len - f->frame_at - 7;

	f->out[f->frame_at + 3] = (unsigned char) (len >> 24);
	f->out[f->frame_at + 4] = (unsigned char) (len >> 16);
	f->out[f->frame_at + 5] = (unsigned char) (len >> 8);
	f->out[f->frame_at + 6] = (unsigned char) len;
	put8(f, 0xCE);
}

void
method_begin(Fake *f, int channel, uint32_t method)
{
	frame_begin(f, F_METHOD, channel);
	put32(f, method);
}

void
put_method(Fake *f, int channel, uint32_t method)
{
	method_begin(f, channel, method);
	frame_end(f);
}

void
put_start(Fake *f, const char *product, const char *version, const char *mechanisms)
{
	size_t		table;

	method_begin(f, 0, M(10, 10));
	put8(f, 0);
	put8(f, 9);
	table = f->out_len;
	put32(f, 0);
	put_shortstr(f, "capabilities");
	put8(f, 'F');
	put32(f, 20);
	put_shortstr(f, "publisher_confirms");
	put8(f, 'V');
	put_shortstr(f, "product");
	put8(f, 'S');
	put_longstr(f, product);
	put_shortstr(f, "version");
	put8(f, 'S');
	put_longstr(f, version);
	f->out[table + 3] = (unsigned char) (f->out_len - table - 4);
	put_longstr(f, mechanisms);
	put_longstr(f, "en_US");
	frame_end(f);
}

void
put_tune(Fake *f, unsigned channel_max, uint32_t frame_max, unsigned heartbeat)
{
	method_begin(f, 0, M(10, 30));
	put16(f, channel_max);
	put32(f, frame_max);
	put16(f, heartbeat);
	frame_end(f);
}

void
put_open_ok(Fake *f)
{
	method_begin(f, 0, M(10, 41));
	put_shortstr(f, "");
	frame_end(f);
}

/* connection.close on channel 0, channel.close on the others */
void
put_close(Fake *f, int channel, unsigned code, const char *text, uint32_t culprit)
{
	method_begin(f, channel, channel == 0 ? M(10, 50) : M(20, 40));
	put16(f, code);
	put_shortstr(f, text);
	put32(f, culprit);
	frame_end(f);
}

void
put_deliver(Fake *f, int channel, uint64_t tag)
{
	method_begin(f, channel, M(60, 60));
	put_shortstr(f, "tag");
	put64(f, tag);
	put8(f, 0);
	put_shortstr(f, "ex");
	put_shortstr(f, "key");
	frame_end(f);
}

/* props NULL: a property list with the header n = "ns" */
void
put_header(Fake *f, int channel, uint64_t size, const void *props, size_t len)
{
	static const char plain[] = "\x20\0\0\0\0\x09\x01" "nS\0\0\0\x02" "ns";

	frame_begin(f, F_HEADER, channel);
	put16(f, 60);
	put16(f, 0);
	put64(f, size);
	if (props != NULL)
		put_bytes(f, props, len);
	else
		put_bytes(f, plain, sizeof(plain) - 1);
	frame_end(f);
}

void
put_body(Fake *f, int channel, const void *data, size_t len)
{
	frame_begin(f, F_BODY, channel);
	put_bytes(f, data, len);
	frame_end(f);
}

/* ---------------- sending, stepping, looking ---------------- */

/* Take what the connection has put onto the wire, into the broker's end of TLS. */
static void
drain_wire(Fake *f)
{
	char		buf[65536];
	ssize_t		n;

	while ((n = recv(f->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		must(BIO_write(f->from_wire, buf, (int) n) == n, "memory");
	if (!SSL_is_init_finished(f->ssl))
		(void) SSL_do_handshake(f->ssl);
}

/* Receive as recv() does. */
static ssize_t
receive_some(Fake *f, void *buf, size_t room)
{
	if (f->ssl == NULL)
		return recv(f->fd, buf, room, MSG_DONTWAIT);
	return SSL_read(f->ssl, buf, (int) room);
}

bool
fake_flush(Fake *f)
{
	unsigned char buf[65536];
	bool		any = false;

	for (;;)
	{
		size_t		room = f->piece > 0 && f->piece < sizeof(buf) ? f->piece : sizeof(buf);
		int			n;

		if (f->stop_after >= 0)
			room = f->wire_count + (long) room > f->stop_after ? (size_t) (f->stop_after - f->wire_count) : room;
		n = room > 0 ? BIO_read(f->to_wire, buf, (int) room) : 0;
		if (n <= 0)
			return any;
		if (f->damage_at >= f->wire_count && f->damage_at < f->wire_count + n)
			buf[f->damage_at - f->wire_count] ^= 0x55;
		f->wire_count += n;
		any = true;
		for (int at = 0; at < n;)
		{
			ssize_t		sent = send(f->fd, buf + at, (size_t) (n - at), MSG_DONTWAIT | MSG_NOSIGNAL);

			if (sent > 0)
				at += (int) sent;
			else if (errno != EAGAIN)
				return any;
			while (rinq_conn_step(f->conn, f->now, 3))
				;
		}
	}
}

void
fake_drain(Fake *f)
{
	ssize_t		n;

	if (f->ssl != NULL)
		drain_wire(f);

	do
	{
		if (f->in_cap - f->in_len < 65536)
		{
			f->in_cap += 262144;
			f->in = realloc(f->in, f->in_cap);
			must(f->in != NULL, "memory");
		}
		n = receive_some(f, f->in + f->in_len, f->in_cap - f->in_len);
		if (n > 0)
			f->in_len += (size_t) n;
	} while (n > 0);
}

void
fake_step(Fake *f)
{
	bool		any;

	do
	{
		while (rinq_conn_step(f->conn, f->now, 3))
			;
		if (f->fd >= 0)
			fake_drain(f);
		any = f->fd >= 0 && f->ssl != NULL && fake_flush(f);
	} while (rinq_conn_wants_write(f->conn) || any);
}

/* Send as send() does. */
static ssize_t
send_some(Fake *f, const void *data, size_t len)
{
	int			n;

	if (f->ssl == NULL)
		return send(f->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (f->fd < 0)
	{
		errno = EPIPE;
		return -1;
	}
	n = SSL_write(f->ssl, data, (int) len);
	errno = n > 0 ? 0 : EPIPE;
	return n;
}

/* Sends out[from..to) in as many steps as the socket needs. */
static void
send_range(Fake *f, size_t from, size_t to)
{
	while (from < to)
	{
		ssize_t		n = send_some(f, f->out + from, to - from);

		if (n > 0)
			from += (size_t) n;
		else if (errno != EAGAIN)
			return;				/* the connection has hung up */
		fake_step(f);
	}
}

void
fake_send(Fake *f)
{
	fake_step(f);
	send_range(f, 0, f->out_len);
	f->out_len = 0;
	fake_step(f);
}

bool
fake_send_only(Fake *f)
{
	unsigned char buf[65536];
	int			n = (int) f->out_len;
	bool		ok = send_some(f, f->out, f->out_len) == (ssize_t) f->out_len;

	if (f->ssl != NULL)
	{
		n = BIO_read(f->to_wire, buf, sizeof(buf));
		ok = ok && n > 0 && send(f->fd, buf, (size_t) n, MSG_NOSIGNAL) == n;
	}
	f->out_len = 0;
	return ok;
}

void
fake_send_bytewise(Fake *f)
{
	fake_step(f);
	for (size_t i = 0; i < f->out_len; i++)
		send_range(f, i, i + 1);
	f->out_len = 0;
	fake_step(f);
}

void
fake_hang_up(Fake *f)
{
	fake_drain(f);
	close(f->fd);
	f->fd = -1;
}

const char *
fake_sent(Fake *f)
{
	static char text[16384];
	size_t		len = 0;
	size_t		at = 0;

	fake_drain(f);
	text[0] = '\0';
	if (f->in_len >= 8 && memcmp(f->in, "AMQP", 4) == 0)
	{
		len += (size_t) sprintf(text, "greeting ");
		at = 8;
	}
	while (f->in_len - at >= 8 && len < sizeof(text) - 64)
	{
		unsigned char *p = f->in + at;
		size_t		size = (size_t) p[3] << 24 | (size_t) p[4] << 16 | (size_t) p[5] << 8 | p[6];

		if (size + 8 > f->in_len - at || p[7 + size] != 0xCE)
		{
			len += (size_t) sprintf(text + len, "broken ");
			break;
		}
		if (p[0] == F_METHOD)
			len += (size_t) sprintf(text + len, "%u:%u.%u ", p[1] << 8 | p[2],
									p[7] << 8 | p[8], p[9] << 8 | p[10]);
		else if (p[0] == F_HEADER)
			len += (size_t) sprintf(text + len, "%u:header ", p[1] << 8 | p[2]);
		else if (p[0] == F_BODY)
			len += (size_t) sprintf(text + len, "%u:body(%zu) ", p[1] << 8 | p[2], size);
		else
			len += (size_t) sprintf(text + len, "heartbeat ");
		at += size + 8;
	}
	f->in_len = 0;
	return text;
}

unsigned char *
fake_sent_bytes(Fake *f, size_t *len)
{
	fake_drain(f);
	*len = f->in_len;
	f->in_len = 0;
	return f->in;
}
