/*-------------------------------------------------------------------------
 *
 * tls_trust.c
 *	  Whom to trust: authorities and revocation lists.
 *
 * To read the authorities of a system takes tens of milliseconds, in which the
 * process does nothing else.  So what was read is kept, and read again when the
 * file is another one, or has changed.  A file is opened each time, so that one
 * that is gone, or not to be read any more, is noticed.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "amqp/tls_internal.h"
#include "base/invariant.h"

/*
 * Files that are kept: a connection needs two, and there may be another one
 * beside it.
 */
#define KEPT_FILES		4

/*
 * What changes within a tick of the clock by which files are dated cannot be told
 * apart; s, which is more than file systems with coarse times need.
 */
#define SETTLED_AFTER	2

/* What was read from a file. */
typedef struct KeptFile
{
	char	   *path;			/* NULL when nothing is kept */
	struct stat st;
	unsigned char digest[RINQ_TLS_DIGEST_SIZE];
				STACK_OF(X509_INFO) * infos;
	uint64_t	last_use;		/* larger is later */
} KeptFile;

static KeptFile kept[KEPT_FILES];
static uint64_t uses;

/* ---------------- what is kept ---------------- */

static void
forget_file(KeptFile * file)
{
	free(file->path);
	sk_X509_INFO_pop_free(file->infos, X509_INFO_free);
	memset(file, 0, sizeof(*file));
}

static bool
is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Tell whether a file is as it was when it was read. */
static bool
is_unchanged(const KeptFile * file, const char *path, const struct stat *st)
{
	return file->path != NULL && strcmp(file->path, path) == 0 &&
		file->st.st_dev == st->st_dev && file->st.st_ino == st->st_ino &&
		file->st.st_size == st->st_size && is_same_time(&file->st.st_mtim, &st->st_mtim) &&
		is_same_time(&file->st.st_ctim, &st->st_ctim);
}

/* Return what is kept of a file that was opened; NULL when it has to be read. */
static KeptFile *
find_kept(const RinqTlsFile * file)
{
	for (int i = 0; i < KEPT_FILES; i++)
	{
		if (is_unchanged(&kept[i], file->path, &file->st))
		{
			kept[i].last_use = ++uses;
			return &kept[i];
		}
	}
	return NULL;
}

/*
 * Tell whether a change from now on would show in the times of a file.  That is
 * to be asked before it is read: what is written meanwhile may be in what was read
 * or not.
 */
static bool
is_settled(const struct stat *st)
{
	time_t		now = time(NULL);

	return st->st_ctim.tv_sec < now - SETTLED_AFTER && st->st_mtim.tv_sec < now - SETTLED_AFTER;
}

/* Return the place for another file: that of the same path, or of the one not used for longest. */
static KeptFile *
place_for(const char *path)
{
	KeptFile   *place = &kept[0];

	for (int i = 0; i < KEPT_FILES; i++)
	{
		if (kept[i].path != NULL && strcmp(kept[i].path, path) == 0)
			return &kept[i];
		if (kept[i].last_use < place->last_use)
			place = &kept[i];
	}
	return place;
}

/* Keep what was read, if there is memory for its path: it is taken over then. */
static void
keep_file(const RinqTlsFile * file, KeptFile * read)
{
	KeptFile   *place = place_for(file->path);

	RINQ_ASSERT(read->path == NULL && read->infos != NULL);
	read->path = strdup(file->path);
	if (read->path == NULL)
		return;
	forget_file(place);
	*place = *read;
	place->st = file->st;
	place->last_use = ++uses;
	memset(read, 0, sizeof(*read));
}

/* ---------------- reading ---------------- */

/* Drop private keys that stand among the certificates: they are of no use here. */
static void
drop_keys(STACK_OF(X509_INFO) * infos)
{
	for (int i = 0; i < sk_X509_INFO_num(infos); i++)
	{
		X509_INFO  *info = sk_X509_INFO_value(infos, i);

		X509_PKEY_free(info->x_pkey);
		info->x_pkey = NULL;
	}
}

/* Read a file that was opened. */
static bool
read_infos(RinqTlsLoading * l, RinqTlsFile * file, KeptFile * into)
{
	bool		asked = false;
	BIO		   *bio;

	if (!rinq_tls_read_file(l, file) || !rinq_tls_add_digest(l, into->digest, file->data, file->len))
		return false;
	bio = BIO_new_mem_buf(file->data, (int) file->len);
	into->infos = bio == NULL ? NULL : PEM_X509_INFO_read_bio(bio, NULL, rinq_tls_no_passphrase, &asked);
	BIO_free(bio);
	if (into->infos == NULL)
		return rinq_tls_refuse(l, "could not read file \"%s\": %s", file->path, rinq_tls_library_reason());
	drop_keys(into->infos);
	ERR_clear_error();
	return true;
}

/* Put certificates and revocation lists into the store. */
static bool
fill_store(RinqTlsLoading * l, const char *path, const KeptFile * file, bool is_crl)
{
	X509_STORE *store = SSL_CTX_get_cert_store(l->context->ssl_ctx);
	int			found = 0;
	bool		ok = true;

	for (int i = 0; ok && i < sk_X509_INFO_num(file->infos); i++)
	{
		X509_INFO  *info = sk_X509_INFO_value(file->infos, i);

		if (info->x509 != NULL && !is_crl)
			ok = X509_STORE_add_cert(store, info->x509) == 1;
		if (ok && info->crl != NULL)
			ok = X509_STORE_add_crl(store, info->crl) == 1;
		found += is_crl ? info->crl != NULL : info->x509 != NULL;
	}
	if (!ok)
		return rinq_tls_refuse(l, "could not use file \"%s\": %s", path, rinq_tls_library_reason());
	ERR_clear_error();
	return found > 0 || rinq_tls_refuse(l, "file \"%s\" contains no %s in PEM format", path,
										is_crl ? "revocation list" : "certificate");
}

/* Load a file into the store, and what is in it into the digest, if there is one. */
static bool
load_store_file(RinqTlsLoading * l, const char *path, bool is_crl, unsigned char *digest)
{
	RinqTlsFile file;
	KeptFile	fresh = {0};
	bool		ok = rinq_tls_open_file(l, path, false, &file);
	const		KeptFile *found = ok ? find_kept(&file) : NULL;
	bool		to_keep = false;

	if (ok && found == NULL)
	{
		to_keep = is_settled(&file.st);
		ok = read_infos(l, &file, &fresh);
		found = &fresh;
	}
	ok = ok &&
		(digest == NULL || rinq_tls_add_digest(l, digest, found->digest, sizeof(found->digest))) &&
		fill_store(l, path, found, is_crl);
	if (ok && to_keep)
		keep_file(&file, &fresh);
	forget_file(&fresh);
	rinq_tls_close_file(&file);
	return ok;
}

/*
 * Load whom the system trusts, if the context is to trust them.  They are many:
 * so that is left to when there is a certificate to be verified, and not done for
 * a host that nothing listens at.  What cannot be read adds no authority; of
 * folders, the library reads what it needs.
 */
bool
rinq_tls_load_system(RinqTlsContext *context)
{
	char		error[RINQ_TLS_ERROR_SIZE];
	RinqTlsLoading l = {NULL, context, error, sizeof(error)};
	const char *path = getenv(X509_get_default_cert_file_env());

	if (!rinq_tls_trusts_system(context))
		return true;
	(void) load_store_file(&l, path != NULL ? path : X509_get_default_cert_file(), false, NULL);
	if (SSL_CTX_set_default_verify_dir(context->ssl_ctx) != 1)
		return false;
	ERR_clear_error();
	return true;
}

/* Load whom to trust, but for the system's authorities. */
bool
rinq_tls_load_trust(RinqTlsLoading * l)
{
	const RinqTlsConfig *config = l->config;

	if (config->rootcert[0] != '\0' && !rinq_tls_trusts_system(l->context) &&
		!load_store_file(l, config->rootcert, false, l->context->trust_digest))
		return false;
	if (config->crl[0] == '\0')
		return true;
	if (!load_store_file(l, config->crl, true, l->context->trust_digest))
		return false;
	X509_STORE_set_flags(SSL_CTX_get_cert_store(l->context->ssl_ctx),
						 X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return true;
}
