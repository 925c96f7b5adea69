/*-------------------------------------------------------------------------
 *
 * tls_files.c
 *	  Certificates, keys and revocation lists, from files into a context.
 *
 * Files are read here, not by the library: only regular ones, so that no pipe
 * makes the process wait, and a key only from a file that is private.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "amqp/tls_internal.h"
#include "base/invariant.h"

/* More than any list of revocations that is worth having. */
#define FILE_SIZE_MAX	(64 * 1024 * 1024)

/* What is read of the socket at once: several records. */
#define READ_BUFFER		(64 * 1024)

typedef struct FileText
{
	char	   *data;
	size_t		len;
} FileText;

/* What all steps of reading need. */
typedef struct Loading
{
	const RinqTlsConfig *config;
	RinqTlsContext *context;
	char	   *error;
	size_t		error_size;
} Loading;

static bool loading_failed(Loading *l, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));

/* Note why, and return false. */
static bool
loading_failed(Loading *l, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(l->error, l->error_size, fmt, args);
	va_end(args);
	ERR_clear_error();
	return false;
}

/* Return what the library says of its latest error. */
static const char *
library_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason != NULL ? reason : "unknown error";
}

/* ---------------- files ---------------- */

static void
wipe_file_text(FileText *file)
{
	if (file->data != NULL)
		explicit_bzero(file->data, file->len);
	free(file->data);
	file->data = NULL;
	file->len = 0;
}

/*
 * Check who may read a key, by libpq's rules: a file of root's may be readable
 * by a group, any other one by its owner alone.
 */
static bool
check_key_access(Loading *l, const char *path, const struct stat *st)
{
	mode_t		refused = st->st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;

	if ((st->st_mode & refused) == 0)
		return true;
	return loading_failed(l, "private key file \"%s\" has group or world access: it must have permissions 0600, or 0640 if owned by root",
						  path);
}

static bool
read_descriptor(Loading *l, int fd, const char *path, size_t size, FileText *file)
{
	/* one byte more shows that it grows meanwhile */
	file->data = malloc(size + 1);
	if (file->data == NULL)
		return loading_failed(l, "out of memory");
	file->len = 0;
	while (file->len <= size)
	{
		ssize_t		n = read(fd, file->data + file->len, size + 1 - file->len);

		if (n == 0)
			return true;
		if (n > 0)
			file->len += (size_t) n;
		else if (errno != EINTR)
			return loading_failed(l, "could not read file \"%s\": %s", path, strerror(errno));
	}
	return loading_failed(l, "file \"%s\" is being written", path);
}

static bool
read_tls_file(Loading *l, const char *path, bool is_key, FileText *file)
{
	struct stat st;
	bool		ok;
	int			fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return loading_failed(l, "could not open file \"%s\": %s", path, strerror(errno));
	if (fstat(fd, &st) != 0)
		ok = loading_failed(l, "could not stat file \"%s\": %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		ok = loading_failed(l, "\"%s\" is not a regular file", path);
	else if (st.st_size > FILE_SIZE_MAX)
		ok = loading_failed(l, "file \"%s\" is larger than %d MB", path, FILE_SIZE_MAX / (1024 * 1024));
	else
		ok = (!is_key || check_key_access(l, path, &st)) &&
			read_descriptor(l, fd, path, (size_t) st.st_size, file);
	close(fd);
	if (!ok)
		wipe_file_text(file);
	return ok;
}

/* Add the text to a digest, with its length, so that two never pass for one. */
static bool
add_to_digest(Loading *l, unsigned char *digest, const FileText *file)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool		ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
		EVP_DigestUpdate(md, digest, RINQ_TLS_DIGEST_SIZE) == 1 &&
		EVP_DigestUpdate(md, &file->len, sizeof(file->len)) == 1 &&
		EVP_DigestUpdate(md, file->data, file->len) == 1 &&
		EVP_DigestFinal_ex(md, digest, NULL) == 1;

	EVP_MD_CTX_free(md);
	return ok || loading_failed(l, "could not compute a digest: %s", library_reason());
}

/* ---------------- what they say ---------------- */

/* Refuse to type a passphrase, and tell that one was asked for. */
static int
refuse_passphrase(char *buf, int size, int rwflag, void *asked)
{
	(void) buf;
	(void) size;
	(void) rwflag;
	*(bool *) asked = true;
	return -1;
}

/* Put the certificates and revocation lists of a text into the store. */
static bool
fill_store(Loading *l, const char *path, const FileText *file, bool is_crl)
{
	X509_STORE *store = SSL_CTX_get_cert_store(l->context->ssl_ctx);
	BIO		   *bio = BIO_new_mem_buf(file->data, (int) file->len);
	bool		asked = false;

	STACK_OF(X509_INFO) * infos = bio == NULL ? NULL :
		PEM_X509_INFO_read_bio(bio, NULL, refuse_passphrase, &asked);
	int			found = 0;
	bool		ok = infos != NULL;

	for (int i = 0; ok && i < sk_X509_INFO_num(infos); i++)
	{
		X509_INFO  *info = sk_X509_INFO_value(infos, i);

		if (info->x509 != NULL && !is_crl)
			ok = X509_STORE_add_cert(store, info->x509) == 1;
		if (ok && info->crl != NULL)
			ok = X509_STORE_add_crl(store, info->crl) == 1;
		found += is_crl ? info->crl != NULL : info->x509 != NULL;
	}
	if (!ok)
		(void) loading_failed(l, "could not read file \"%s\": %s", path, library_reason());
	else if (found == 0)
		ok = loading_failed(l, "file \"%s\" contains no %s in PEM format", path,
							is_crl ? "revocation list" : "certificate");
	sk_X509_INFO_pop_free(infos, X509_INFO_free);
	BIO_free(bio);
	ERR_clear_error();
	return ok;
}

static bool
load_store_file(Loading *l, const char *path, bool is_crl)
{
	FileText	file = {NULL, 0};
	bool		ok = read_tls_file(l, path, false, &file) &&
		add_to_digest(l, l->context->trust_digest, &file) &&
		fill_store(l, path, &file, is_crl);

	wipe_file_text(&file);
	return ok;
}

/*
 * Load whom the system trusts, if the context is to trust them.  They are many,
 * which takes tens of ms: so that is left to when there is a certificate to be
 * verified, and not done for a host that nothing listens at.
 */
bool
rinq_tls_load_system(RinqTlsContext *context)
{
	return !rinq_tls_trusts_system(context) || SSL_CTX_set_default_verify_paths(context->ssl_ctx) == 1;
}

/* Load whom to trust, but for the system's authorities. */
static bool
load_trust(Loading *l)
{
	const RinqTlsConfig *config = l->config;

	if (config->rootcert[0] != '\0' && !rinq_tls_trusts_system(l->context) &&
		!load_store_file(l, config->rootcert, false))
		return false;
	if (config->crl[0] == '\0')
		return true;
	if (!load_store_file(l, config->crl, true))
		return false;
	X509_STORE_set_flags(SSL_CTX_get_cert_store(l->context->ssl_ctx),
						 X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return true;
}

/* Take the certificate that comes first, and those after it as its chain. */
static bool
use_certificates(Loading *l, BIO *bio)
{
	SSL_CTX    *ssl_ctx = l->context->ssl_ctx;
	bool		asked = false;
	X509	   *cert = PEM_read_bio_X509_AUX(bio, NULL, refuse_passphrase, &asked);
	bool		ok;

	if (cert == NULL)
		return loading_failed(l, "could not read a certificate from file \"%s\": %s",
							  l->config->cert, library_reason());
	ok = SSL_CTX_use_certificate(ssl_ctx, cert) == 1;
	X509_free(cert);
	while (ok && (cert = PEM_read_bio_X509(bio, NULL, refuse_passphrase, &asked)) != NULL)
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
		return loading_failed(l, "could not use the certificate of file \"%s\": %s",
							  l->config->cert, library_reason());
	ERR_clear_error();
	return true;
}

static bool
load_certificate(Loading *l)
{
	FileText	file = {NULL, 0};
	BIO		   *bio = NULL;
	bool		ok = read_tls_file(l, l->config->cert, false, &file) &&
		add_to_digest(l, l->context->own_digest, &file);

	if (ok)
	{
		bio = BIO_new_mem_buf(file.data, (int) file.len);
		ok = bio != NULL ? use_certificates(l, bio) : loading_failed(l, "out of memory");
	}
	BIO_free(bio);
	wipe_file_text(&file);
	return ok;
}

/* Use a key, which has to be that of the certificate. */
static bool
use_key(Loading *l, const char *path, EVP_PKEY *key)
{
	SSL_CTX    *ssl_ctx = l->context->ssl_ctx;

	if (X509_check_private_key(SSL_CTX_get0_certificate(ssl_ctx), key) != 1)
		return loading_failed(l, "private key file \"%s\" does not match the certificate of file \"%s\"",
							  path, l->config->cert);
	if (SSL_CTX_use_PrivateKey(ssl_ctx, key) != 1)
		return loading_failed(l, "could not use private key file \"%s\": %s", path, library_reason());
	return true;
}

static bool
load_key(Loading *l)
{
	const char *path = l->config->key[0] != '\0' ? l->config->key : l->config->cert;
	FileText	file = {NULL, 0};
	bool		asked = false;
	EVP_PKEY   *key = NULL;
	BIO		   *bio;
	bool		ok;

	if (!read_tls_file(l, path, true, &file) || !add_to_digest(l, l->context->own_digest, &file))
	{
		wipe_file_text(&file);
		return false;
	}
	bio = BIO_new_mem_buf(file.data, (int) file.len);
	if (bio != NULL)
		key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &asked);
	if (key != NULL)
		ok = use_key(l, path, key);
	else if (asked)
		ok = loading_failed(l, "private key file \"%s\" is protected by a passphrase, and a server has no way to ask for it", path);
	else
		ok = loading_failed(l, "could not read a private key from file \"%s\": %s", path, library_reason());
	EVP_PKEY_free(key);
	BIO_free(bio);
	wipe_file_text(&file);
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
copy_names(Loading *l)
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
		return loading_failed(l, "out of memory");

	/* "host." is the same host; neither certificates nor SNI have the dot */
	len = strlen(context->host);
	if (len > 1 && context->host[len - 1] == '.')
		context->host[len - 1] = '\0';
	return true;
}

static bool
check_demands(Loading *l)
{
	const RinqTlsContext *context = l->context;

	if (context->verify != RINQ_TLS_VERIFY_NONE && context->rootcert[0] == '\0')
		return loading_failed(l, "the broker's certificate cannot be verified without sslrootcert, which may be a file or \"system\"");
	if (context->verify == RINQ_TLS_VERIFY_FULL && context->host[0] == '\0')
		return loading_failed(l, "the broker's certificate cannot be verified without the name of its host");
	if (context->verify != RINQ_TLS_VERIFY_FULL && rinq_tls_trusts_system(context))
		return loading_failed(l, "sslrootcert \"system\" needs sslmode \"verify-full\", since the system trusts authorities that sign for all");
	if (context->verify == RINQ_TLS_VERIFY_NONE && context->crl[0] != '\0')
		return loading_failed(l, "sslcrl needs sslrootcert");
	return true;
}

static bool
make_ssl_ctx(Loading *l)
{
	SSL_CTX    *ssl_ctx;

	ERR_clear_error();
	ssl_ctx = SSL_CTX_new(TLS_client_method());
	l->context->ssl_ctx = ssl_ctx;
	if (ssl_ctx == NULL)
		return loading_failed(l, "could not set up OpenSSL: %s", library_reason());
	if (SSL_CTX_set_min_proto_version(ssl_ctx, l->config->min_version) != 1)
		return loading_failed(l, "ssl_min_protocol_version \"%s\" is not supported by this OpenSSL",
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
	Loading		l = {config, calloc(1, sizeof(RinqTlsContext)), error, size};

	if (l.context == NULL)
	{
		(void) loading_failed(&l, "out of memory");
		return NULL;
	}
	if (copy_names(&l) && check_demands(&l) && make_ssl_ctx(&l) && load_trust(&l) &&
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

/* Verify the broker's certificate as of the connection once more, but for dates, which are checked when connecting. */
static bool
still_trusted(const RinqTls *tls, RinqTlsContext *fresh, char *error, size_t size)
{
	X509	   *cert = SSL_get1_peer_certificate(tls->ssl);
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	bool		verified = true;

	(void) rinq_tls_load_system(fresh);
	if (cert != NULL && check != NULL &&
		X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(fresh->ssl_ctx), cert,
							SSL_get_peer_cert_chain(tls->ssl)) == 1)
	{
		X509_STORE_CTX_set_flags(check, X509_V_FLAG_NO_CHECK_TIME);
		(void) X509_STORE_CTX_set_default(check, "ssl_server");
		verified = X509_verify_cert(check) == 1;
		if (!verified)
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

RinqTlsChange
rinq_tls_compare(const RinqTls *tls, const RinqTlsConfig *config, char *error, size_t size)
{
	RinqTlsContext *fresh = rinq_tls_context_new(config, error, size);
	const RinqTlsContext *present = tls->context;
	bool		same_trust;
	bool		same_own;
	RinqTlsChange change = RINQ_TLS_LATER;

	if (fresh == NULL)
		return RINQ_TLS_UNUSABLE;
	same_trust = memcmp(fresh->trust_digest, present->trust_digest, RINQ_TLS_DIGEST_SIZE) == 0;
	same_own = memcmp(fresh->own_digest, present->own_digest, RINQ_TLS_DIGEST_SIZE) == 0;
	if (same_trust && same_own)
		change = RINQ_TLS_SAME;
	else if (!same_own && !same_owner(fresh, present))
	{
		snprintf(error, size, "the client certificate is that of another subject");
		change = RINQ_TLS_RECONNECT;
	}
	else if (!same_trust && tls->up && fresh->verify != RINQ_TLS_VERIFY_NONE &&
			 !still_trusted(tls, fresh, error, size))
		change = RINQ_TLS_RECONNECT;
	rinq_tls_context_free(fresh);
	return change;
}
