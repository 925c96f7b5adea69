/*-------------------------------------------------------------------------
 *
 * tls.c
 *	  TLS of one connection: handshake, records, and the end.
 *
 * OpenSSL reads and writes through a BIO of ours, which never waits, never
 * raises SIGPIPE, and ends a read that has taken much input without giving any:
 * a broker could send nothing but records that carry no data, for ever.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "amqp/tls_internal.h"
#include "base/invariant.h"

/* What one read may take from the socket: several of the largest records. */
#define READ_BUDGET		(256 * 1024)

/* ---------------- the socket, for OpenSSL ---------------- */

/* Keep how the conversation began: it tells what the other side speaks. */
static void
keep_first_bytes(RinqTls *tls, const char *buf, size_t n)
{
	for (size_t i = 0; i < n && tls->bytes_in + i < RINQ_TLS_FIRST_BYTES; i++)
		tls->first[tls->bytes_in + i] = (unsigned char) buf[i];
}

static int
read_socket(BIO *bio, char *buf, int size)
{
	RinqTls    *tls = BIO_get_data(bio);
	ssize_t		n;

	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	if (tls->budget == 0)
	{
		tls->over_budget = true;
		BIO_set_retry_read(bio);
		return -1;
	}
	do
		n = recv(tls->fd, buf, (size_t) size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);

	if (n > 0)
	{
		keep_first_bytes(tls, buf, (size_t) n);
		tls->bytes_in += (uint64_t) n;
		tls->budget -= (size_t) n < tls->budget ? (size_t) n : tls->budget;
		return (int) n;
	}
	if (n == 0)
		tls->eof = true;
	else if (errno == EAGAIN || errno == EWOULDBLOCK)
		BIO_set_retry_read(bio);
	else
		tls->read_errno = errno;
	return n == 0 ? 0 : -1;
}

static int
write_socket(BIO *bio, const char *buf, int size)
{
	RinqTls    *tls = BIO_get_data(bio);
	ssize_t		n;

	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	do
		n = send(tls->fd, buf, (size_t) size, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);

	if (n >= 0)
	{
		tls->bytes_out += (uint64_t) n;
		return (int) n;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		BIO_set_retry_write(bio);
	else
		tls->write_errno = errno;
	return -1;
}

static long
control_socket(BIO *bio, int command, long number, void *pointer)
{
	(void) bio;
	(void) number;
	(void) pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* Return how OpenSSL is to use a socket; it is made once, and stays. */
static BIO_METHOD *
socket_method(void)
{
	static BIO_METHOD *method = NULL;

	if (method == NULL)
	{
		BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "rinq socket");

		if (made != NULL &&
			(BIO_meth_set_read(made, read_socket) != 1 || BIO_meth_set_write(made, write_socket) != 1 ||
			 BIO_meth_set_ctrl(made, control_socket) != 1))
		{
			BIO_meth_free(made);
			made = NULL;
		}
		method = made;
	}
	return method;
}

/* ---------------- beginning and end ---------------- */

/* Let the library go on as it has found; what is wrong is kept for the explanation. */
static int
verify_certificate(int ok, X509_STORE_CTX *store)
{
	SSL		   *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	RinqTls    *tls = ssl != NULL ? SSL_get_app_data(ssl) : NULL;

	if (!ok && tls != NULL)
		rinq_tls_note_certificate(tls, store);
	return ok;
}

/* Note that the broker wants a certificate; whether there is one is settled by then. */
static int
note_certificate_request(SSL *ssl, void *arg)
{
	RinqTls    *tls = SSL_get_app_data(ssl);

	(void) arg;
	if (tls != NULL)
		tls->asked_for_certificate = true;
	return 1;
}

RinqTls *
rinq_tls_new(RinqTlsContext *context)
{
	RinqTls    *tls = calloc(1, sizeof(*tls));

	if (tls == NULL)
	{
		rinq_tls_context_free(context);
		return NULL;
	}
	tls->context = context;
	tls->fd = -1;
	return tls;
}

/* Have the certificate compared with the host. */
static bool
demand_host(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	char		address[64];
	const char *zone = strchr(host, '%');

	if (!rinq_tls_is_address(host))
	{
		X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
		return X509_VERIFY_PARAM_set1_host(param, host, 0) == 1;
	}

	/* the zone of an address of a link says nothing to others */
	snprintf(address, sizeof(address), "%.*s", (int) (zone != NULL ? zone - host : (long) strlen(host)), host);
	return X509_VERIFY_PARAM_set1_ip_asc(param, address) == 1;
}

static bool
set_up_ssl(RinqTls *tls)
{
	const RinqTlsContext *context = tls->context;
	SSL		   *ssl = tls->ssl;
	BIO_METHOD *method = socket_method();
	BIO		   *bio = method != NULL ? BIO_new(method) : NULL;

	if (bio == NULL)
		return false;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	(void) SSL_set_app_data(ssl, tls);
	SSL_set_cert_cb(ssl, note_certificate_request, NULL);
	SSL_set_verify(ssl, context->verify == RINQ_TLS_VERIFY_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
				   verify_certificate);
	if (context->host[0] != '\0' && !rinq_tls_is_address(context->host) &&
		SSL_set_tlsext_host_name(ssl, context->host) != 1)
		return false;
	return context->verify != RINQ_TLS_VERIFY_FULL || demand_host(ssl, context->host);
}

bool
rinq_tls_start(RinqTls *tls, int fd)
{
	RINQ_ASSERT(tls->ssl == NULL);
	ERR_clear_error();
	tls->fd = fd;
	if (rinq_tls_load_system(tls->context))
		tls->ssl = SSL_new(tls->context->ssl_ctx);
	if (tls->ssl != NULL && set_up_ssl(tls))
		return true;
	rinq_tls_explain(tls, ERR_get_error());
	tls->broken = true;
	return false;
}

void
rinq_tls_goodbye(RinqTls *tls)
{
	if (tls->ssl == NULL || !tls->up || tls->broken || tls->eof || tls->write_errno != 0)
		return;
	ERR_clear_error();
	(void) SSL_shutdown(tls->ssl);
	ERR_clear_error();
	tls->broken = true;
}

void
rinq_tls_free(RinqTls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	rinq_tls_context_free(tls->context);
	explicit_bzero(tls, sizeof(*tls));
	free(tls);
}

/* ---------------- records ---------------- */

/* Prepare a call of the library, whose errors are one list for all of the process. */
static void
begin_call(RinqTls *tls)
{
	ERR_clear_error();
	tls->budget = READ_BUDGET;
	tls->over_budget = false;
}

/* Fail as the socket did, or OpenSSL. */
static RinqIoResult
fail_call(RinqTls *tls)
{
	errno = tls->read_errno != 0 ? tls->read_errno :
		tls->write_errno != 0 ? tls->write_errno : EPROTO;
	return RINQ_IO_FAILED;
}

/*
 * Tell what it means that a call of the library has not done its job; wants_read
 * and wants_write are set to what it waits for.
 */
static RinqIoResult
judge_call(RinqTls *tls, int rc, bool *wants_read, bool *wants_write)
{
	int			reason = SSL_get_error(tls->ssl, rc);

	*wants_read = reason == SSL_ERROR_WANT_READ;
	*wants_write = reason == SSL_ERROR_WANT_WRITE;
	if (*wants_read || *wants_write)
		return RINQ_IO_AGAIN;
	if (reason == SSL_ERROR_ZERO_RETURN)
	{
		tls->eof = true;
		return RINQ_IO_EOF;
	}
	if (reason == SSL_ERROR_SSL)
	{
		tls->broken = true;
		rinq_tls_explain(tls, ERR_peek_error());
		ERR_clear_error();
	}
	else if (tls->eof)
		return RINQ_IO_EOF;
	return fail_call(tls);
}

RinqIoResult
rinq_tls_handshake(RinqTls *tls)
{
	RinqIoResult result = RINQ_IO_DONE;
	bool		wants_read = false;
	bool		wants_write = false;
	int			rc;

	RINQ_ASSERT(tls->ssl != NULL && !tls->up);
	if (tls->broken)
		return fail_call(tls);
	begin_call(tls);
	rc = SSL_connect(tls->ssl);
	if (rc == 1)
		tls->up = true;
	else
		result = judge_call(tls, rc, &wants_read, &wants_write);
	tls->read_wants_write = wants_write;
	tls->dry = wants_read && !tls->over_budget;
	return result;
}

RinqIoResult
rinq_tls_receive(RinqTls *tls, void *buf, size_t room, size_t *received)
{
	RinqIoResult result = RINQ_IO_DONE;
	bool		wants_read = false;
	bool		wants_write = false;
	int			rc;

	RINQ_ASSERT(room > 0);
	*received = 0;
	if (tls->broken)
		return fail_call(tls);
	begin_call(tls);
	rc = SSL_read(tls->ssl, buf, room > INT32_MAX ? INT32_MAX : (int) room);
	if (rc > 0)
		*received = (size_t) rc;
	else
		result = judge_call(tls, rc, &wants_read, &wants_write);
	tls->read_wants_write = wants_write;
	tls->write_wants_read = SSL_in_init(tls->ssl) && tls->up && !tls->broken;
	tls->dry = wants_read && !tls->over_budget;
	return result;
}

/*
 * Send.  Of data that the socket takes only in part, what was not sent has to
 * come first in the next call, at whatever address.  While the broker changes
 * the terms (TLS 1.2 calls that renegotiation), only reading gets on: data that
 * it had sent before are an error to the library in a call that sends.
 */
RinqIoResult
rinq_tls_send(RinqTls *tls, const void *data, size_t len, size_t *sent)
{
	RinqIoResult result = RINQ_IO_DONE;
	bool		wants_read = false;
	bool		wants_write = false;
	int			rc;

	RINQ_ASSERT(len > 0);
	*sent = 0;
	if (tls->broken || tls->write_errno != 0)
		return fail_call(tls);
	if (SSL_in_init(tls->ssl))
	{
		tls->write_wants_read = true;
		return RINQ_IO_AGAIN;
	}
	begin_call(tls);
	rc = SSL_write(tls->ssl, data, len > INT32_MAX ? INT32_MAX : (int) len);
	if (rc > 0)
		*sent = (size_t) rc;
	else
		result = judge_call(tls, rc, &wants_read, &wants_write);
	tls->write_wants_read = wants_read;
	return result;
}

/* ---------------- what may be asked ---------------- */

bool
rinq_tls_is_up(const RinqTls *tls)
{
	return tls->up;
}

const char *
rinq_tls_error(const RinqTls *tls)
{
	return tls->error;
}

/*
 * Tell whether input waits that the socket does not show any more: the library
 * may have taken several records from there.  When it has asked for more than
 * there was, a part of a record is all that it has.
 */
bool
rinq_tls_has_more(const RinqTls *tls)
{
	if (tls->ssl == NULL || tls->broken || tls->dry || tls->read_wants_write)
		return false;
	return tls->over_budget || SSL_has_pending(tls->ssl) == 1;
}

bool
rinq_tls_wants_write(const RinqTls *tls)
{
	return tls->read_wants_write && !tls->broken;
}

bool
rinq_tls_holds_read(const RinqTls *tls)
{
	return tls->read_wants_write && !tls->broken;
}

bool
rinq_tls_holds_write(const RinqTls *tls)
{
	return tls->write_wants_read || !tls->up;
}

uint64_t
rinq_tls_bytes_in(const RinqTls *tls)
{
	return tls->bytes_in;
}

uint64_t
rinq_tls_bytes_out(const RinqTls *tls)
{
	return tls->bytes_out;
}

const char *
rinq_tls_version(const RinqTls *tls)
{
	return tls->up ? SSL_get_version(tls->ssl) : "";
}

const char *
rinq_tls_cipher(const RinqTls *tls)
{
	const char *cipher = tls->up ? SSL_get_cipher_name(tls->ssl) : NULL;

	return cipher != NULL ? cipher : "";
}

int64_t
rinq_tls_certificate_end(const RinqTls *tls)
{
	X509	   *cert = tls->up ? SSL_get1_peer_certificate(tls->ssl) : NULL;
	struct tm	end;
	int64_t		seconds = 0;

	if (cert != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &end) == 1)
		seconds = (int64_t) timegm(&end);
	X509_free(cert);
	return seconds;
}
