/*-------------------------------------------------------------------------
 *
 * tls_context.c
 *	  What is demanded of a connection, and our certificate and key; and what a
 *	  change of files means to a connection that was made before.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/tls_internal.h"

/* What is read of the socket at once: several records. */
#define READ_BUFFER		(64 * 1024)

/* How the first line of a key ends, of whatever kind it is; the library knows no better than "unsupported". */
#define KEY_END			"PRIVATE KEY-----"

/* ---------------- our certificate ---------------- */

/* Take the certificate that comes first, and those after it as its chain. */
static bool
use_certificates(RinqTlsLoading * l, BIO *bio)
{
	SSL_CTX    *ssl_ctx = l->context->ssl_ctx;
	bool		asked = false;
	X509	   *cert = PEM_read_bio_X509_AUX(bio, NULL, rinq_tls_no_passphrase, &asked);
	bool		ok;

	if (cert == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
		return rinq_tls_refuse(l, "file \"%s\" contains no certificate in PEM format", l->config->cert);
	if (cert == NULL)
		return rinq_tls_refuse(l, "could not read a certificate from file \"%s\": %s",
							   l->config->cert, rinq_tls_library_reason());
	ok = SSL_CTX_use_certificate(ssl_ctx, cert) == 1;
	X509_free(cert);
	while (ok && (cert = PEM_read_bio_X509(bio, NULL, rinq_tls_no_passphrase, &asked)) != NULL)
	{
		ok = SSL_CTX_add0_chain_cert(ssl_ctx, cert) == 1;
		if (!ok)
			X509_free(cert);
	}

	/*
	 * the end of the file is an error as well, other than a broken
	 * certificate
	 */
	ok = ok && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	if (!ok)
		return rinq_tls_refuse(l, "could not use the certificate of file \"%s\": %s",
							   l->config->cert, rinq_tls_library_reason());
	ERR_clear_error();
	return true;
}

static bool
load_certificate(RinqTlsLoading * l)
{
	RinqTlsFile file;
	BIO		   *bio = NULL;
	bool		ok = rinq_tls_open_file(l, l->config->cert, false, &file) && rinq_tls_read_file(l, &file) &&
		rinq_tls_add_digest(l, l->context->own_digest, file.data, file.len);

	if (ok)
	{
		bio = BIO_new_mem_buf(file.data, (int) file.len);
		ok = bio != NULL ? use_certificates(l, bio) : rinq_tls_refuse(l, "out of memory");
	}
	BIO_free(bio);
	rinq_tls_close_file(&file);
	return ok;
}

/* Use a key, which has to be that of the certificate. */
static bool
use_key(RinqTlsLoading * l, const char *path, EVP_PKEY *key)
{
	SSL_CTX    *ssl_ctx = l->context->ssl_ctx;

	if (X509_check_private_key(SSL_CTX_get0_certificate(ssl_ctx), key) != 1)
		return rinq_tls_refuse(l, "private key file \"%s\" does not match the certificate of file \"%s\"",
							   path, l->config->cert);
	if (SSL_CTX_use_PrivateKey(ssl_ctx, key) != 1)
		return rinq_tls_refuse(l, "could not use private key file \"%s\": %s", path, rinq_tls_library_reason());
	return true;
}

static bool
load_key(RinqTlsLoading * l)
{
	const char *path = l->config->key[0] != '\0' ? l->config->key : l->config->cert;
	RinqTlsFile file;
	bool		asked = false;
	EVP_PKEY   *key = NULL;
	BIO		   *bio;
	bool		ok;

	if (!rinq_tls_open_file(l, path, true, &file) || !rinq_tls_read_file(l, &file) ||
		!rinq_tls_add_digest(l, l->context->own_digest, file.data, file.len))
	{
		rinq_tls_close_file(&file);
		return false;
	}
	bio = BIO_new_mem_buf(file.data, (int) file.len);
	if (bio != NULL)
		key = PEM_read_bio_PrivateKey(bio, NULL, rinq_tls_no_passphrase, &asked);
	if (key != NULL)
		ok = use_key(l, path, key);
	else if (asked)
		ok = rinq_tls_refuse(l, "private key file \"%s\" is protected by a passphrase, and a server has no way to ask for it", path);
	else if (strstr(file.data, KEY_END) == NULL)
		ok = rinq_tls_refuse(l, "file \"%s\" contains no private key in PEM format", path);
	else
		ok = rinq_tls_refuse(l, "could not read a private key from file \"%s\": %s", path, rinq_tls_library_reason());
	EVP_PKEY_free(key);
	BIO_free(bio);
	rinq_tls_close_file(&file);
	ERR_clear_error();
	return ok;
}

/* ---------------- the context ---------------- */

/* Tell whether a host is given as an address. */
bool
rinq_tls_is_address(const char *host)
{
	struct in_addr v4;

	return strchr(host, ':') != NULL || inet_pton(AF_INET, host, &v4) == 1;
}

static bool
copy_names(RinqTlsLoading * l)
{
	RinqTlsContext *context = l->context;
	const RinqTlsConfig *config = l->config;
	size_t		len;

	context->verify = config->verify == RINQ_TLS_VERIFY_NONE && config->rootcert[0] != '\0' ?
		RINQ_TLS_VERIFY_CA : config->verify;
	context->min_version = config->min_version;
	context->host = strdup(config->host);
	context->rootcert = strdup(config->rootcert);
	context->crl = strdup(config->crl);
	context->cert = strdup(config->cert);
	if (context->host == NULL || context->rootcert == NULL || context->crl == NULL || context->cert == NULL)
		return rinq_tls_refuse(l, "out of memory");

	/* "host." is the same host; neither certificates nor SNI have the dot */
	len = strlen(context->host);
	if (len > 1 && context->host[len - 1] == '.')
		context->host[len - 1] = '\0';
	return true;
}

static bool
check_demands(RinqTlsLoading * l)
{
	const RinqTlsContext *context = l->context;

	if (context->verify != RINQ_TLS_VERIFY_NONE && context->rootcert[0] == '\0')
		return rinq_tls_refuse(l, "the broker's certificate cannot be verified without sslrootcert, which may be a file or \"system\"");
	if (context->verify == RINQ_TLS_VERIFY_FULL && context->host[0] == '\0')
		return rinq_tls_refuse(l, "the broker's certificate cannot be verified without the name of its host");
	if (context->verify != RINQ_TLS_VERIFY_FULL && rinq_tls_trusts_system(context))
		return rinq_tls_refuse(l, "sslrootcert \"system\" needs sslmode \"verify-full\", since the system trusts authorities that sign for all");
	if (context->verify == RINQ_TLS_VERIFY_NONE && context->crl[0] != '\0')
		return rinq_tls_refuse(l, "sslcrl needs sslrootcert");
	return true;
}

static bool
make_ssl_ctx(RinqTlsLoading * l)
{
	SSL_CTX    *ssl_ctx;

	ERR_clear_error();
	ssl_ctx = SSL_CTX_new(TLS_client_method());
	l->context->ssl_ctx = ssl_ctx;
	if (ssl_ctx == NULL)
		return rinq_tls_refuse(l, "could not set up OpenSSL: %s", rinq_tls_library_reason());
	if (SSL_CTX_set_min_proto_version(ssl_ctx, l->config->min_version) != 1)
		return rinq_tls_refuse(l, "ssl_min_protocol_version \"%s\" is not supported by this OpenSSL",
							   rinq_tls_version_name(l->config->min_version));
	(void) SSL_CTX_set_mode(ssl_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
							SSL_MODE_AUTO_RETRY);
	(void) SSL_CTX_set_session_cache_mode(ssl_ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ssl_ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ssl_ctx, READ_BUFFER);
	return true;
}

RinqTlsContext *
rinq_tls_context_new(const RinqTlsConfig *config, char *error, size_t size)
{
	RinqTlsLoading l = {config, calloc(1, sizeof(RinqTlsContext)), error, size};

	if (l.context == NULL)
	{
		(void) rinq_tls_refuse(&l, "out of memory");
		return NULL;
	}
	if (copy_names(&l) && check_demands(&l) && make_ssl_ctx(&l) && rinq_tls_load_trust(&l) &&
		(config->cert[0] == '\0' || (load_certificate(&l) && load_key(&l))))
		return l.context;
	rinq_tls_context_free(l.context);
	return NULL;
}

void
rinq_tls_context_free(RinqTlsContext *context)
{
	if (context == NULL)
		return;
	SSL_CTX_free(context->ssl_ctx);
	free(context->host);
	free(context->rootcert);
	free(context->crl);
	free(context->cert);
	free(context);
}

/* ---------------- comparing ---------------- */

/*
 * Verify the broker's certificate as of the connection once more, but for dates,
 * which are checked when connecting.  What cannot be verified is not trusted: the
 * next connection finds out.
 */
static bool
still_trusted(const RinqTls *tls, RinqTlsContext *fresh, char *error, size_t size)
{
	X509	   *cert = SSL_get1_peer_certificate(tls->ssl);
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	bool		verified = false;

	snprintf(error, size, "the broker's certificate could not be verified again");
	if (cert != NULL && check != NULL && rinq_tls_load_system(fresh) &&
		X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(fresh->ssl_ctx), cert,
							SSL_get_peer_cert_chain(tls->ssl)) == 1 &&
		X509_STORE_CTX_set_default(check, "ssl_server") == 1)
	{
		X509_STORE_CTX_set_flags(check, X509_V_FLAG_NO_CHECK_TIME);
		verified = X509_verify_cert(check) == 1;
		if (!verified && X509_STORE_CTX_get_error(check) != X509_V_OK)
			rinq_tls_describe_trust(fresh, X509_STORE_CTX_get_error(check),
									X509_STORE_CTX_get_current_cert(check), error, size);
	}
	X509_STORE_CTX_free(check);
	X509_free(cert);
	ERR_clear_error();
	return verified;
}

/* Tell whether both have a certificate for the same name, or neither has one. */
static bool
same_owner(const RinqTlsContext *a, const RinqTlsContext *b)
{
	X509	   *ours = SSL_CTX_get0_certificate(a->ssl_ctx);
	X509	   *theirs = SSL_CTX_get0_certificate(b->ssl_ctx);

	if (ours == NULL || theirs == NULL)
		return ours == theirs;
	return X509_NAME_cmp(X509_get_subject_name(ours), X509_get_subject_name(theirs)) == 0;
}

/* Tell what changed files mean to whom the connection trusts. */
static RinqTlsChange
compare_trust(const RinqTls *tls, const RinqTlsConfig *config, char *error, size_t size)
{
	RinqTlsConfig trust = *config;
	RinqTlsContext *fresh;
	RinqTlsChange change = RINQ_TLS_SAME;

	/* what is wrong with our certificate says nothing about the broker's */
	trust.cert = "";
	trust.key = "";
	fresh = rinq_tls_context_new(&trust, error, size);
	if (fresh == NULL)
		return RINQ_TLS_UNUSABLE;
	if (memcmp(fresh->trust_digest, tls->context->trust_digest, RINQ_TLS_DIGEST_SIZE) != 0)
		change = !tls->up || fresh->verify == RINQ_TLS_VERIFY_NONE || still_trusted(tls, fresh, error, size) ?
			RINQ_TLS_LATER : RINQ_TLS_UNTRUSTED;
	rinq_tls_context_free(fresh);
	return change;
}

/* Tell what changed files mean to who the connection is to the broker. */
static RinqTlsChange
compare_own(const RinqTls *tls, const RinqTlsConfig *config, char *error, size_t size)
{
	RinqTlsContext *fresh = rinq_tls_context_new(config, error, size);
	RinqTlsChange change = RINQ_TLS_SAME;

	if (fresh == NULL)
		return RINQ_TLS_UNUSABLE;
	if (memcmp(fresh->own_digest, tls->context->own_digest, RINQ_TLS_DIGEST_SIZE) != 0)
		change = same_owner(fresh, tls->context) ? RINQ_TLS_LATER : RINQ_TLS_OTHER_SUBJECT;
	rinq_tls_context_free(fresh);
	if (change == RINQ_TLS_OTHER_SUBJECT)
		snprintf(error, size, "the client certificate is that of another subject");
	return change;
}

RinqTlsChange
rinq_tls_compare(const RinqTls *tls, const RinqTlsConfig *config, char *error, size_t size)
{
	RinqTlsChange trust = compare_trust(tls, config, error, size);
	RinqTlsChange own;

	if (trust == RINQ_TLS_UNUSABLE || trust == RINQ_TLS_UNTRUSTED)
		return trust;
	own = compare_own(tls, config, error, size);
	return own == RINQ_TLS_SAME ? trust : own;
}
