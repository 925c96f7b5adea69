/*-------------------------------------------------------------------------
 *
 * tls_test.c
 *	  Connections with TLS: what is demanded, what goes wrong, and records cut
 *	  and damaged everywhere.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certs.h"
#include "check.h"
#include "fake.h"

#define HOST "broker.example"

/* Each how many bytes a login is cut, or damaged. */
#define STRIDE 5

static Cert authority;
static Cert other_authority;
static Cert good;				/* for HOST, and some others */
static const char *authority_file;

/* What the next connection is made with. */
static RinqTlsConfig config;
static SSL_CTX *server;
static unsigned protocol;		/* the only one of the server; 0 is any */

static void
no_demands(void)
{
	memset(&config, 0, sizeof(config));
	config.verify = RINQ_TLS_VERIFY_NONE;
	config.host = HOST;
	config.rootcert = config.crl = config.cert = config.key = "";
	config.min_version = TLS1_2_VERSION;
}

/* Demand everything of a server that has this certificate. */
static void
prepare(const Cert *cert)
{
	no_demands();
	config.verify = RINQ_TLS_VERIFY_FULL;
	config.rootcert = authority_file;
	fake_defaults();
	SSL_CTX_free(server);
	server = server_make(cert);
	if (protocol != 0)
	{
		SSL_CTX_set_min_proto_version(server, (int) protocol);
		SSL_CTX_set_max_proto_version(server, (int) protocol);
	}
	fake_settings.server = server;
	fake_settings.tls = &config;
}

static void
log_in(Fake *f)
{
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN EXTERNAL");
	put_tune(f, 2047, 131072, 60);
	put_open_ok(f);
	fake_send(f);
}

static void
end_with(Fake *f, RinqConnErrorClass error_class, const char *part)
{
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
	CHECK_INT(rinq_conn_error_class(f->conn), error_class);
	CHECK_CONTAINS(rinq_conn_error(f->conn), part);
	CHECK(strstr(rinq_conn_error(f->conn), "s3cret") == NULL);
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	fake_free(f);
}

/* The connection does not come to be, with this error. */
static void
refused(const char *part)
{
	Fake	   *f = fake_new();

	log_in(f);
	end_with(f, RINQ_CONN_ERR_TLS, part);
}

/* The connection comes to be. */
static void
accepted(void)
{
	Fake	   *f = fake_new();

	log_in(f);
	CHECK_STR(rinq_conn_error(f->conn), "");
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	fake_free(f);
}

/* ---------------- demands ---------------- */

static void
test_login(void)
{
	Fake	   *f;

	prepare(&good);
	f = fake_new();
	CHECK_STR(rinq_conn_tls_version(f->conn), "");
	CHECK_STR(rinq_conn_tls_cipher(f->conn), "");
	CHECK_INT(rinq_conn_tls_certificate_end(f->conn), 0);
	log_in(f);
	CHECK_STR(fake_log(f), "open\n");
	CHECK_STR(fake_sent(f), "greeting 0:10.11 0:10.31 0:10.40 ");
	CHECK_STR(rinq_conn_tls_version(f->conn), SSL_get_version(f->ssl));
	CHECK_STR(rinq_conn_tls_cipher(f->conn), SSL_get_cipher_name(f->ssl));
	CHECK(llabs(rinq_conn_tls_certificate_end(f->conn) - (long long) time(NULL) - 20 * 86400) < 100);
	CHECK_STR(SSL_get_servername(f->ssl, TLSEXT_NAMETYPE_host_name), HOST);
	fake_free(f);
}

static void
test_hosts(void)
{
	Cert		old_style = cert_make("old.example", NULL, -10, 20, &authority, false);
	static const char *const fits[] = {
		HOST, "BROKER.EXAMPLE", "broker.example.", "x.wild.example", "192.0.2.7", "2001:db8::7", "2001:db8:0::7%eth0"
	};
	static const char *const misfits[] = {
		"other.example", "example", "wild.example", "x.y.wild.example", "192.0.2.8", "2001:db8::8", "xbroker.example"
	};

	prepare(&good);
	for (size_t i = 0; i < sizeof(fits) / sizeof(fits[0]); i++)
	{
		config.host = fits[i];
		accepted();
	}
	for (size_t i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++)
	{
		config.host = misfits[i];
		refused("is for another host: it names \"broker.example\", \"*.wild.example\", \"192.0.2.7\", \"2001:db8::7\", and not");
		refused(misfits[i]);
	}

	/* SNI is of names alone */
	for (size_t i = 0; i < sizeof(fits) / sizeof(fits[0]); i++)
	{
		Fake	   *f;
		const char *name;

		config.host = fits[i];
		f = fake_new();
		log_in(f);
		name = SSL_get_servername(f->ssl, TLSEXT_NAMETYPE_host_name);
		if (fits[i][0] == '1' || fits[i][0] == '2')
			CHECK(name == NULL);
		else
			CHECK(name != NULL && name[strlen(name) - 1] != '.');
		fake_free(f);
	}

	/*
	 * verify-ca does not look at the host, and an old certificate has but one
	 * name
	 */
	config.verify = RINQ_TLS_VERIFY_CA;
	config.host = "other.example";
	accepted();
	prepare(&old_style);
	config.host = "old.example";
	accepted();
	config.host = HOST;
	refused("is for another host: it names \"CN=old.example\"");
	cert_free(&old_style);
}

static void
test_dates(void)
{
	Cert		expired = cert_make("expired", "DNS:" HOST, -10, -1, &authority, false);
	Cert		early = cert_make("early", "DNS:" HOST, 1, 10, &authority, false);
	Cert		old = cert_make("Old Authority", NULL, -10, -1, NULL, true);
	Cert		of_old = cert_make("of old", "DNS:" HOST, -10, 10, &old, false);
	char		today[32];
	time_t		yesterday = time(NULL) - 86400;

	strftime(today, sizeof(today), "until %Y-%m-%d ", gmtime(&yesterday));
	prepare(&expired);
	refused("its certificate has expired: it was valid until 20");
	refused(today);
	config.verify = RINQ_TLS_VERIFY_CA;
	refused("its certificate has expired");
	no_demands();
	accepted();
	prepare(&early);
	refused("its certificate is not yet valid: it will be from 20");
	prepare(&of_old);
	config.rootcert = cert_write(&old, "old.pem");
	refused("the certificate of its authority \"CN=Old Authority\" has expired");
	cert_free(&expired);
	cert_free(&early);
	cert_free(&old);
	cert_free(&of_old);
}

static void
test_authorities(void)
{
	Cert		foreign = cert_make("foreign", "DNS:" HOST, -10, 10, &other_authority, false);
	Cert		alone = cert_make("alone", "DNS:" HOST, -10, 10, NULL, false);
	Cert		hostile = cert_make("x\n\x01\xc3\xa4 \"y\"", "DNS:" HOST, -10, 10, NULL, false);

	prepare(&foreign);
	refused("its certificate is signed by unknown authority \"CN=Other Authority\", which is none that file \"");
	config.verify = RINQ_TLS_VERIFY_CA;
	refused("unknown authority");

	/* require with an authority is verify-ca, as it is with libpq */
	config.verify = RINQ_TLS_VERIFY_NONE;
	refused("unknown authority");
	config.rootcert = "";
	accepted();

	prepare(&foreign);
	config.rootcert = "system";
	refused("which is none that the system trusts");
	config.verify = RINQ_TLS_VERIFY_CA;
	refused("needs sslmode \"verify-full\"");
	config.rootcert = "";
	refused("cannot be verified without sslrootcert");

	prepare(&alone);
	refused("is signed by itself, and is none that file");
	config.rootcert = cert_write(&alone, "alone.pem");
	accepted();

	prepare(&hostile);
	refused("is signed by itself");
	config.host = "other.example";
	config.rootcert = cert_write(&hostile, "hostile.pem");
	refused("is for another host");
	cert_free(&foreign);
	cert_free(&alone);
	cert_free(&hostile);
}

static void
test_revocation(void)
{
	prepare(&good);
	config.crl = crl_write(&authority, NULL, 10, "none.crl");
	accepted();
	config.crl = crl_write(&authority, &good, 10, "good.crl");
	refused("its certificate was revoked, as file \"");
	config.crl = crl_write(&authority, NULL, -1, "old.crl");
	refused("has expired (sslcrl)");
	config.crl = crl_write(&other_authority, NULL, 10, "other.crl");
	refused("has no revocation list of authority \"CN=Authority\"");
	config.crl = authority_file;
	refused("contains no revocation list");
	config.crl = test_path("absent.crl");
	refused("could not open file");
	no_demands();
	config.crl = test_path("none.crl");
	refused("sslcrl needs sslrootcert");
}

static void
test_versions(void)
{
	unsigned	before = protocol;

	protocol = TLS1_2_VERSION;
	prepare(&good);
	config.min_version = TLS1_3_VERSION;
	refused("no common protocol version: at least TLSv1.3 is demanded here (ssl_min_protocol_version)");
	config.min_version = TLS1_2_VERSION;
	accepted();
	protocol = TLS1_3_VERSION;
	prepare(&good);
	config.min_version = TLS1_3_VERSION;
	accepted();
	protocol = before;
}

/* ---------------- our own certificate ---------------- */

static void
demand_certificate(void)
{
	prepare(&good);
	SSL_CTX_load_verify_locations(server, authority_file, NULL);
	SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

static void
test_client_certificate(void)
{
	Cert		ours = cert_make("ours", NULL, -10, 10, &authority, false);
	Cert		foreign = cert_make("foreign", NULL, -10, 10, &other_authority, false);
	const char *cert = cert_write(&ours, "ours.pem");
	const char *key = key_write(&ours, "ours.key", NULL, 0600);
	char		both[8192];
	FILE	   *file;
	size_t		len;
	Fake	   *f;

	demand_certificate();
	refused("the broker demands a client certificate, and sslcert is not given");
	config.cert = cert;
	config.key = key;
	accepted();

	/* one file may have both, and is private then */
	file = fopen(cert, "r");
	len = fread(both, 1, sizeof(both), file);
	fclose(file);
	file = fopen(key, "r");
	len += fread(both + len, 1, sizeof(both) - 1 - len, file);
	fclose(file);
	both[len] = '\0';
	config.cert = text_write(both, "both.pem", 0600);
	config.key = "";
	accepted();
	config.cert = text_write(both, "both.pem", 0644);
	refused("has group or world access");

	/* nor does a chain end where a certificate cannot be read */
	snprintf(both + len, sizeof(both) - len, "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n");
	config.cert = text_write(both, "both.pem", 0600);
	refused("could not use the certificate of file \"");

	config.cert = cert_write(&foreign, "foreign.pem");
	config.key = key_write(&foreign, "foreign.key", NULL, 0600);
	refused("the broker refused the client certificate of file \"");
	config.key = key;
	refused("does not match the certificate of file \"");

	/* logging in with it */
	demand_certificate();
	config.cert = cert;
	config.key = key;
	fake_settings.sasl_external = true;
	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN EXTERNAL");
	fake_send(f);
	{
		size_t		sent;
		unsigned char *bytes = fake_sent_bytes(f, &sent);

		CHECK(memmem(bytes, sent, "\x08" "EXTERNAL\0\0\0\0\x05" "en_US", 19) != NULL);
		CHECK(memmem(bytes, sent, "s3cret", 6) == NULL);
		CHECK(memmem(bytes, sent, "joe-user", 8) == NULL);
	}
	fake_free(f);
	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN AMQPLAIN");
	fake_send(f);
	end_with(f, RINQ_CONN_ERR_AUTH, "does not offer login with a certificate (mechanism EXTERNAL");
	cert_free(&ours);
	cert_free(&foreign);
}

static void
test_files(void)
{
	Cert		ours = cert_make("ours", NULL, -10, 10, &authority, false);
	const char *cert = cert_write(&ours, "ours.pem");
	unsigned	bad_modes[] = {0640, 0604, 0660, 0644, 0610, 0601};
	const char *pipe = test_path("pipe");

	prepare(&good);
	config.cert = cert;
	for (size_t i = 0; i < sizeof(bad_modes) / sizeof(bad_modes[0]); i++)
	{
		config.key = key_write(&ours, "mode.key", NULL, bad_modes[i]);
		if (geteuid() != 0 || bad_modes[i] != 0640)
			refused("has group or world access: it must have permissions 0600, or 0640 if owned by root");
		else
			accepted();
		if (geteuid() == 0)
		{
			CHECK(chown(config.key, 12345, 12345) == 0);
			refused("has group or world access");
		}
	}
	config.key = key_write(&ours, "mode.key", NULL, 0400);
	accepted();
	config.key = key_write(&ours, "locked.key", "pass phrase", 0600);
	refused("is protected by a passphrase");
	config.key = text_write("hello", "text.key", 0600);
	refused("text.key\" contains no private key in PEM format");
	config.key = text_write("", "text.key", 0600);
	refused("contains no private key in PEM format");
	config.key = text_write("-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n", "text.key", 0600);
	refused("could not read a private key from file");
	config.key = test_path("absent.key");
	refused("No such file or directory");
	config.key = "/tmp";
	refused("is not a regular file");
	CHECK(mkfifo(pipe, 0600) == 0);
	config.key = pipe;
	refused("is not a regular file");
	config.key = key_write(&ours, "ours.key", NULL, 0600);
	config.cert = pipe;
	refused("is not a regular file");
	config.cert = text_write("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", "broken.pem", 0644);
	refused("could not read a certificate from file");
	config.cert = text_write("\x30\x82\x03\x01", "binary.pem", 0644);
	refused("binary.pem\" contains no certificate in PEM format");
	config.cert = config.key;
	refused("contains no certificate in PEM format");
	config.cert = "";
	config.rootcert = pipe;
	refused("is not a regular file");
	config.rootcert = test_path("broken.pem");
	refused("could not read file \"");
	config.rootcert = text_write("no certificate\n", "none.pem", 0644);
	refused("contains no certificate in PEM format");
	config.rootcert = test_path("absent.pem");
	refused("could not open file");
	cert_free(&ours);
}

/* ---------------- ports ---------------- */

static void
test_wrong_port(void)
{
	static const struct
	{
		const char *bytes;
		size_t		len;
		const char *said;
	}			others[] = {
		{"AMQP\0\0\x09\x01", 8, "does not speak TLS on this port, but AMQP in plain text"},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", 28, "the server does not speak TLS on this port"},
		{"SSH-2.0-OpenSSH_9.2\r\n", 21, "the server does not speak TLS on this port"},
		{"", 0, "it closed the connection without a word"},
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
	{
		Fake	   *f;

		prepare(&good);
		fake_settings.server = NULL;
		f = fake_new();
		fake_step(f);
		put_bytes(f, others[i].bytes, others[i].len);
		fake_send(f);
		fake_hang_up(f);
		fake_step(f);
		end_with(f, RINQ_CONN_ERR_TLS, others[i].said);
	}

	/* silence */
	{
		Fake	   *f;

		prepare(&good);
		fake_settings.server = NULL;
		f = fake_new();
		fake_step(f);
		CHECK_INT(rinq_conn_next_deadline(f->conn), f->now + fake_settings.timeout);
		CHECK(!rinq_conn_wants_write(f->conn));
		CHECK(rinq_conn_wants_read(f->conn));
		f->now += fake_settings.timeout;
		fake_step(f);
		end_with(f, RINQ_CONN_ERR_TIMEOUT, "while agreeing on TLS with fake:1/v");
	}

	/* the other way round */
	for (size_t i = 0; i < 2; i++)
	{
		Fake	   *f;

		prepare(&good);
		fake_settings.server = NULL;
		fake_settings.tls = NULL;
		f = fake_new();
		put_bytes(f, i == 0 ? "\x15\x03\x01\0\x02\x02\x46" : "\x15\x03\x03\0\x02\x02\x0a", 7);
		fake_send(f);
		end_with(f, RINQ_CONN_ERR_TLS, "fake:1/v speaks TLS on this port, and not AMQP in plain text");
		f = fake_new();
		fake_step(f);
		fake_hang_up(f);
		fake_step(f);
		end_with(f, RINQ_CONN_ERR_IO, "as a server may that expects TLS on this port");
		/* one that has not read the greeting resets the connection */
		f = fake_new();
		fake_step(f);
		close(f->fd);
		f->fd = -1;
		fake_step(f);
		end_with(f, RINQ_CONN_ERR_IO, "as a server may that expects TLS on this port");
	}
}

/* ---------------- records ---------------- */

/* Exchange messages of all sizes in both directions. */
static void
exchange(Fake *f)
{
	static const size_t sizes[] = {0, 1, 15, 16383, 16384, 16385, 100000};
	RinqMessage message = {0};
	char	   *body = calloc(1, 100000);
	size_t		sent;

	if (!rinq_amqp_channel_usable(f->conn, 1))
	{
		if (!CHECK_INT(rinq_amqp_channel_open(f->conn, 1, 0), RINQ_MSG_OK))
			return;
		method_begin(f, 1, M(20, 11));
		put_longstr(f, "");
		frame_end(f);
		fake_send(f);
	}
	(void) fake_log(f);
	(void) fake_sent(f);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		char		expected[200];

		put_deliver(f, 1, i + 1);
		put_header(f, 1, sizes[i], NULL, 0);
		if (sizes[i] > 0)
			put_body(f, 1, body, sizes[i]);
		fake_send(f);
		snprintf(expected, sizeof(expected), "delivery 1 tag=%zu ", i + 1);
		CHECK_CONTAINS(fake_log(f), expected);
		CHECK_INT(rinq_basic_publish(f->conn, 1, rinq_bytes_str("e"), rinq_bytes_str("k"), false, &message,
									 body, sizes[i]), RINQ_MSG_OK);
		fake_step(f);
		(void) fake_sent_bytes(f, &sent);
		CHECK(sent > sizes[i] && sent < sizes[i] + 300);
	}
	free(body);
}

/* Return a connection that has sent and received. */
static Fake *
with_exchange(void)
{
	Fake	   *f;

	prepare(&good);
	f = fake_new();
	log_in(f);
	exchange(f);
	return f;
}

static void
test_pieces(void)
{
	static const size_t pieces[] = {1, 2, 5, 6, 1000, 0};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
	{
		Fake	   *f;

		prepare(&good);
		fake_settings.piece = pieces[i];
		f = fake_new();
		log_in(f);
		CHECK_STR(fake_log(f), "open\n");
		exchange(f);
		CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);

		/* records of one byte each */
		put_deliver(f, 1, 77);
		put_header(f, 1, 3, NULL, 0);
		put_body(f, 1, "abc", 3);
		fake_send_bytewise(f);
		CHECK_CONTAINS(fake_log(f), "delivery 1 tag=77 ");
		fake_free(f);
	}
}

/* The bytes that a broker sends until the login is done. */
static long
login_bytes(void)
{
	Fake	   *f;
	long		count;

	prepare(&good);
	f = fake_new();
	log_in(f);
	count = f->wire_count;
	fake_free(f);
	return count;
}

static void
test_cut_everywhere(void)
{
	long		total = login_bytes();

	prepare(&good);
	for (long at = protocol % STRIDE; at < total; at += STRIDE)
	{
		Fake	   *f;

		fake_settings.stop_after = at;
		f = fake_new();
		log_in(f);
		if (rinq_conn_state(f->conn) != RINQ_CONN_HANDSHAKE)
		{
			/* the size of signatures varies by some bytes */
			CHECK(total - at < 40);
			fake_free(f);
			continue;
		}
		CHECK(!rinq_conn_step(f->conn, f->now, 100));
		CHECK(!rinq_conn_wants_write(f->conn));
		CHECK(rinq_conn_wants_read(f->conn));
		fake_hang_up(f);
		fake_step(f);
		CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
		CHECK(rinq_conn_error_class(f->conn) == RINQ_CONN_ERR_TLS || rinq_conn_error_class(f->conn) == RINQ_CONN_ERR_IO);
		CHECK_STR(fake_log(f), "");
		fake_free(f);
	}
}

static void
test_damage_everywhere(void)
{
	long		total = login_bytes();
	int			opened = 0;

	prepare(&good);
	for (long at = protocol % STRIDE; at < total; at += STRIDE)
	{
		Fake	   *f;

		fake_settings.damage_at = at;
		f = fake_new();
		log_in(f);
		CHECK(!rinq_conn_step(f->conn, f->now, 100));
		opened += rinq_conn_state(f->conn) == RINQ_CONN_OPEN;
		fake_hang_up(f);
		fake_step(f);
		CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
		CHECK(rinq_conn_error(f->conn)[0] != '\0');
		fake_free(f);
	}

	/*
	 * what may be anything: version bytes of records, and what comes after
	 * the login
	 */
	CHECK(opened < 60 / STRIDE);
}

static void
test_nothing_is_slept_on(void)
{
	Fake	   *f = with_exchange();

	(void) fake_log(f);

	/*
	 * three records, of which the second and the third are in the library
	 * when the first is handled
	 */
	for (int i = 1; i <= 3; i++)
	{
		put_deliver(f, 1, (uint64_t) i);
		put_header(f, 1, 0, NULL, 0);
		CHECK(SSL_write(f->ssl, f->out, (int) f->out_len) > 0);
		f->out_len = 0;
	}
	{
		char		buf[65536];
		int			n = BIO_read(f->to_wire, buf, sizeof(buf));

		CHECK(send(f->fd, buf, (size_t) n, 0) == n);
	}
	CHECK(rinq_conn_step(f->conn, f->now, 1));
	CHECK(rinq_conn_step(f->conn, f->now, 1));
	CHECK_CONTAINS(fake_log(f), "delivery 1 tag=1 ");
	for (int i = 0; i < 3; i++)
		CHECK(rinq_conn_step(f->conn, f->now, 1));
	(void) rinq_conn_step(f->conn, f->now, 1);
	CHECK(!rinq_conn_step(f->conn, f->now, 1));
	CHECK_CONTAINS(fake_log(f), "delivery 1 tag=3 ");
	fake_free(f);
}

/* What callbacks have queued waits for what the owner adds: all of it is one record. */
static void
test_one_record(void)
{
	RinqMessage message = {0};
	unsigned char wire[4096];
	ssize_t		len;
	Fake	   *f = with_exchange();

	(void) fake_sent(f);
	method_begin(f, 1, M(60, 30));	/* basic.cancel, to be answered */
	put_shortstr(f, "tag");
	put8(f, 0);
	frame_end(f);
	fake_send(f);
	CHECK_STR(fake_sent(f), "1:60.31 ");

	method_begin(f, 1, M(60, 30));
	put_shortstr(f, "tag");
	put8(f, 0);
	frame_end(f);
	CHECK(fake_send_only(f));
	CHECK(!rinq_conn_step(f->conn, f->now, 10));
	CHECK_INT(recv(f->fd, wire, sizeof(wire), MSG_DONTWAIT), -1);
	CHECK(rinq_conn_wants_write(f->conn));
	CHECK_INT(rinq_basic_publish(f->conn, 1, rinq_bytes_str("e"), rinq_bytes_str("k"), false, &message, "body", 4), RINQ_MSG_OK);
	CHECK_INT(rinq_basic_ack(f->conn, 1, 1, false), RINQ_MSG_OK);
	rinq_conn_flush(f->conn, f->now);
	len = recv(f->fd, wire, sizeof(wire), MSG_DONTWAIT);
	CHECK(len > 5 && wire[0] == 0x17 && len == 5 + (wire[3] << 8 | wire[4]));
	CHECK(len > 0 && BIO_write(f->from_wire, wire, (int) len) == len);
	CHECK_STR(fake_sent(f), "1:60.31 1:60.40 1:header 1:body(4) 1:60.80 ");
	fake_free(f);
}

/* The socket takes little, and more is published meanwhile: the bytes are the same. */
static void
test_blocked_writing(void)
{
	RinqMessage message = {0};
	size_t		expected = 0;
	size_t		sent;
	char	   *body = malloc(300000);
	int			small = 4096;
	Fake	   *f = with_exchange();

	(void) fake_sent(f);
	CHECK(setsockopt(rinq_conn_fd(f->conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	for (int i = 0; i < 40; i++)
	{
		for (size_t j = 0; j < 300000; j++)
			body[j] = (char) (i + j % 251);
		CHECK_INT(rinq_basic_publish(f->conn, 1, rinq_bytes_str("e"), rinq_bytes_str("k"), false, &message,
									 body, 300000), i < 34 ? RINQ_MSG_OK : rinq_conn_backlog(f->conn) < 10000000 ? RINQ_MSG_OK : RINQ_MSG_BACKLOG);
		if (i < 33)
			expected++;
		rinq_conn_flush(f->conn, f->now);
		CHECK(rinq_conn_wants_write(f->conn));
	}
	fake_step(f);
	CHECK_INT(rinq_conn_backlog(f->conn), 0);
	CHECK(!rinq_conn_wants_write(f->conn));
	{
		unsigned char *bytes = fake_sent_bytes(f, &sent);
		size_t		at = 0;
		size_t		bodies = 0;

		while (at + 8 <= sent)
		{
			size_t		size = (size_t) bytes[at + 3] << 24 | (size_t) bytes[at + 4] << 16 | (size_t) bytes[at + 5] << 8 | bytes[at + 6];

			if (!CHECK(at + size + 8 <= sent && bytes[at + 7 + size] == 0xCE))
				break;
			bodies += bytes[at] == F_HEADER;
			at += size + 8;
		}
		CHECK_INT(at, sent);
		CHECK(bodies >= expected);
	}
	free(body);
	fake_free(f);
}

/* ---------------- what a broker may do in between ---------------- */

static void
test_new_terms(void)
{
	unsigned	before = protocol;
	static const size_t pieces[] = {0, 1, 7};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
	{
		Fake	   *f;

		protocol = TLS1_3_VERSION;
		prepare(&good);
		fake_settings.piece = pieces[i];
		f = fake_new();
		log_in(f);
		CHECK(SSL_key_update(f->ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
		exchange(f);
		CHECK(SSL_key_update(f->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
		exchange(f);
		CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
		fake_free(f);

		protocol = TLS1_2_VERSION;
		prepare(&good);
		fake_settings.piece = pieces[i];
		f = fake_new();
		log_in(f);
		exchange(f);
		(void) fake_sent(f);
		CHECK(SSL_renegotiate(f->ssl) == 1);
		CHECK(SSL_do_handshake(f->ssl) == 1);	/* asks for it */

		/*
		 * what was sent before the new terms are agreed upon arrives, in both
		 * directions
		 */
		CHECK_INT(rinq_basic_ack(f->conn, 1, 5, false), RINQ_MSG_OK);
		fake_step(f);
		CHECK(SSL_renegotiate_pending(f->ssl) == 0);
		CHECK_INT(rinq_basic_ack(f->conn, 1, 6, false), RINQ_MSG_OK);
		fake_step(f);
		CHECK_STR(fake_sent(f), "1:60.80 1:60.80 ");
		exchange(f);
		CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
		CHECK_STR(rinq_conn_error(f->conn), "");
		fake_free(f);
	}
	protocol = before;
}

/* A broker that sends nothing but records without data does not keep a step from ending. */
static void
test_endless_key_updates(void)
{
	unsigned	before = protocol;
	Fake	   *f;
	char		buf[65536];
	int			steps = 0;

	protocol = TLS1_3_VERSION;
	prepare(&good);
	f = fake_new();
	log_in(f);
	for (int i = 0; i < 3000; i++)
	{
		int			n;

		if (SSL_key_update(f->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1 || SSL_do_handshake(f->ssl) != 1)
			break;
		n = BIO_read(f->to_wire, buf, sizeof(buf));
		if (n <= 0 || send(f->fd, buf, (size_t) n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
			break;
	}
	while (rinq_conn_step(f->conn, f->now, 3) && steps < 1000)
		steps++;
	CHECK(steps < 1000);
	CHECK(rinq_conn_state(f->conn) == RINQ_CONN_OPEN || rinq_conn_error(f->conn)[0] != '\0');
	fake_free(f);
	protocol = before;
}

static void
test_goodbyes(void)
{
	Fake	   *f;

	/* the broker's */
	prepare(&good);
	f = fake_new();
	log_in(f);
	CHECK(SSL_shutdown(f->ssl) >= 0);
	fake_step(f);
	end_with(f, RINQ_CONN_ERR_IO, "fake:1/v closed the connection without giving a reason");

	/* none */
	f = fake_new();
	log_in(f);
	fake_hang_up(f);
	fake_step(f);
	end_with(f, RINQ_CONN_ERR_IO, "fake:1/v closed the connection without giving a reason");

	/* an alert, after all was well */
	f = fake_new();
	log_in(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	SSL_set_shutdown(f->ssl, SSL_RECEIVED_SHUTDOWN);
	put_close(f, 0, 320, "CONNECTION_FORCED", 0);
	CHECK(fake_send_only(f));
	fake_step(f);
	fake_drain(f);
	CHECK((SSL_get_shutdown(f->ssl) & SSL_RECEIVED_SHUTDOWN) != 0);
	end_with(f, RINQ_CONN_ERR_CLOSED_BY_BROKER, "320");

	/* ours */
	f = fake_new();
	log_in(f);
	rinq_conn_close(f->conn, f->now);
	fake_step(f);
	put_method(f, 0, M(10, 51));
	CHECK(fake_send_only(f));
	fake_step(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_CLOSED);
	fake_drain(f);
	CHECK((SSL_get_shutdown(f->ssl) & SSL_RECEIVED_SHUTDOWN) != 0);
	CHECK_STR(rinq_conn_error(f->conn), "");
	fake_free(f);
}

/* ---------------- files that change ---------------- */

static RinqTlsChange
compare(Fake *f, const char *part)
{
	char		text[RINQ_TLS_ERROR_SIZE] = "";
	RinqTlsChange change = rinq_conn_tls_compare(f->conn, &config, text, sizeof(text));

	CHECK_CONTAINS(text, part);
	return change;
}

static void
test_changes(void)
{
	Cert		ours = cert_make("ours", NULL, -10, 10, &authority, false);
	Cert		renewed = cert_make("ours", NULL, -1, 30, &authority, false);
	Cert		theirs = cert_make("theirs", NULL, -1, 30, &authority, false);
	Fake	   *f;

	demand_certificate();
	config.rootcert = cert_write(&authority, "changing.pem");
	config.crl = crl_write(&authority, NULL, 10, "changing.crl");
	config.cert = cert_write(&ours, "changing-own.pem");
	config.key = key_write(&ours, "changing-own.key", NULL, 0600);
	f = fake_new();
	log_in(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	CHECK_INT(compare(f, ""), RINQ_TLS_SAME);

	/* half of the pair, as seen while both are replaced */
	(void) cert_write(&renewed, "changing-own.pem");
	CHECK_INT(compare(f, "does not match the certificate of file"), RINQ_TLS_UNUSABLE);
	(void) key_write(&renewed, "changing-own.key", NULL, 0600);
	CHECK_INT(compare(f, ""), RINQ_TLS_LATER);
	(void) cert_write(&theirs, "changing-own.pem");
	(void) key_write(&theirs, "changing-own.key", NULL, 0600);
	CHECK_INT(compare(f, "the client certificate is that of another subject"), RINQ_TLS_OTHER_SUBJECT);
	(void) cert_write(&ours, "changing-own.pem");
	(void) key_write(&ours, "changing-own.key", NULL, 0600);
	CHECK(compare(f, "") != RINQ_TLS_UNUSABLE);

	/* whom to trust */
	(void) crl_write(&authority, NULL, 20, "changing.crl");
	CHECK_INT(compare(f, ""), RINQ_TLS_LATER);
	(void) crl_write(&authority, &good, 20, "changing.crl");
	CHECK_INT(compare(f, "the broker's certificate was revoked"), RINQ_TLS_UNTRUSTED);
	(void) crl_write(&authority, NULL, 20, "changing.crl");
	(void) cert_write(&other_authority, "changing.pem");
	CHECK_INT(compare(f, "the broker's certificate is signed by unknown authority \"CN=Authority\""), RINQ_TLS_UNTRUSTED);
	(void) text_write("", "changing.pem", 0644);
	CHECK_INT(compare(f, "contains no certificate"), RINQ_TLS_UNUSABLE);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	exchange(f);
	fake_free(f);
	cert_free(&ours);
	cert_free(&renewed);
	cert_free(&theirs);
}

/* ---------------- plain text ---------------- */

static bool
leaves(const char *ours, const char *theirs)
{
	struct sockaddr_storage a[2] = {0};
	const char *texts[2] = {ours, theirs};

	for (int i = 0; i < 2; i++)
	{
		struct sockaddr_in *v4 = (struct sockaddr_in *) &a[i];
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) &a[i];

		a[i].ss_family = strchr(texts[i], ':') != NULL ? AF_INET6 : AF_INET;
		inet_pton(a[i].ss_family, texts[i], a[i].ss_family == AF_INET6 ? (void *) &v6->sin6_addr : (void *) &v4->sin_addr);
	}
	return rinq_leaves_machine((struct sockaddr *) &a[0], (struct sockaddr *) &a[1]);
}

static void
test_leaves_machine(void)
{
	struct sockaddr local = {.sa_family = AF_UNIX};

	CHECK(!leaves("127.0.0.1", "127.0.0.1"));
	CHECK(!leaves("127.0.0.1", "127.9.8.7"));
	CHECK(!leaves("::1", "::1"));
	CHECK(!leaves("::ffff:127.0.0.1", "::ffff:127.0.0.2"));
	CHECK(!leaves("192.0.2.1", "192.0.2.1"));
	CHECK(!leaves("2001:db8::1", "2001:db8::1"));
	CHECK(leaves("192.0.2.1", "192.0.2.2"));
	CHECK(leaves("10.0.0.1", "10.0.0.2"));
	CHECK(leaves("2001:db8::1", "2001:db8::2"));
	CHECK(leaves("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
	CHECK(!rinq_leaves_machine(&local, &local));
}

static void
make_certificates(void)
{
	authority = cert_make("Authority", NULL, -30, 30, NULL, true);
	other_authority = cert_make("Other Authority", NULL, -30, 30, NULL, true);
	good = cert_make("good", "DNS:" HOST ",DNS:*.wild.example,IP:192.0.2.7,IP:2001:db8::7", -10, 20, &authority, false);
	authority_file = cert_write(&authority, "authority.pem");
}

int
main(void)
{
	static const unsigned protocols[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	make_certificates();
	for (size_t i = 0; i < 2; i++)
	{
		protocol = protocols[i];
		test_login();
		test_client_certificate();
		test_pieces();
		test_cut_everywhere();
		test_damage_everywhere();
		test_nothing_is_slept_on();
		test_one_record();
		test_goodbyes();
		test_changes();
	}
	test_hosts();
	test_dates();
	test_authorities();
	test_revocation();
	test_versions();
	test_files();
	test_wrong_port();
	test_blocked_writing();
	test_new_terms();
	test_endless_key_updates();
	test_leaves_machine();
	SSL_CTX_free(server);
	cert_free(&authority);
	cert_free(&other_authority);
	cert_free(&good);
	certs_cleanup();
	return check_summary();
}
