/*-------------------------------------------------------------------------
 *
 * certs.c
 *	  Certificates for tests.
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "certs.h"

static char folder[512];

static void
need(bool ok, const char *what)
{
	if (!ok)
	{
		printf("certificates: %s\n", what);
		ERR_print_errors_fp(stdout);
		exit(1);
	}
}

static void
add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX	context;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, (char *) value);
	need(extension != NULL && X509_add_ext(x509, extension, -1) == 1, value);
	X509_EXTENSION_free(extension);
}

Cert
cert_make(const char *common_name, const char *names, int from_day, int until_day,
		  const Cert *issuer, bool is_authority)
{
	static long serial = 1;
	Cert		made = {X509_new(), EVP_EC_gen("P-256")};
	X509_NAME  *name = X509_get_subject_name(made.x509);
	const Cert *signer = issuer != NULL ? issuer : &made;

	need(made.key != NULL, "key");
	X509_set_version(made.x509, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(made.x509), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(made.x509), (long) from_day * 86400);
	X509_gmtime_adj(X509_getm_notAfter(made.x509), (long) until_day * 86400);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *) common_name, -1, -1, 0);
	X509_set_issuer_name(made.x509, X509_get_subject_name(signer->x509));
	X509_set_pubkey(made.x509, made.key);
	add_extension(made.x509, signer->x509, NID_basic_constraints, is_authority ? "critical,CA:TRUE" : "CA:FALSE");
	if (is_authority)
		add_extension(made.x509, signer->x509, NID_key_usage, "keyCertSign,cRLSign");
	if (names != NULL)
		add_extension(made.x509, signer->x509, NID_subject_alt_name, names);
	need(X509_sign(made.x509, signer->key, EVP_sha256()) > 0, "signature");
	return made;
}

void
cert_free(Cert *cert)
{
	X509_free(cert->x509);
	EVP_PKEY_free(cert->key);
}

const char *
test_path(const char *name)
{
	static char paths[256][640];
	static int	count;
	char	   *path = paths[count++];

	need(count <= 256, "more files than expected");

	if (folder[0] == '\0')
	{
		const char *base = getenv("RINQ_TMPDIR");

		need(snprintf(folder, sizeof(folder), "%s/rinq-unit-XXXXXX", base != NULL && *base != '\0' ? base : "/tmp") < (int) sizeof(folder),
			 "a shorter RINQ_TMPDIR");
		need(mkdtemp(folder) != NULL, "folder");
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static FILE *
create_file(const char *path, unsigned mode)
{
	int			fd;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	need(fd >= 0 && fchmod(fd, mode) == 0, path);
	return fdopen(fd, "w");
}

const char *
cert_write(const Cert *cert, const char *name)
{
	const char *path = test_path(name);
	FILE	   *file = create_file(path, 0644);

	need(PEM_write_X509(file, cert->x509) == 1, path);
	fclose(file);
	return path;
}

const char *
key_write(const Cert *cert, const char *name, const char *passphrase, unsigned mode)
{
	const char *path = test_path(name);
	FILE	   *file = create_file(path, mode);

	need(PEM_write_PrivateKey(file, cert->key, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
							  (unsigned char *) passphrase, passphrase != NULL ? (int) strlen(passphrase) : 0,
							  NULL, NULL) == 1, path);
	fclose(file);
	return path;
}

const char *
crl_write(const Cert *authority, const Cert *revoked, int until_day, const char *name)
{
	const char *path = test_path(name);
	FILE	   *file = create_file(path, 0644);
	X509_CRL   *crl = X509_CRL_new();
	ASN1_TIME  *from = X509_gmtime_adj(NULL, -86400L * 30);
	ASN1_TIME  *until = X509_gmtime_adj(NULL, 86400L * until_day);

	X509_CRL_set_version(crl, 1);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(authority->x509));
	X509_CRL_set1_lastUpdate(crl, from);
	X509_CRL_set1_nextUpdate(crl, until);
	if (revoked != NULL)
	{
		X509_REVOKED *entry = X509_REVOKED_new();

		X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->x509));
		X509_REVOKED_set_revocationDate(entry, from);
		X509_CRL_add0_revoked(crl, entry);
	}
	need(X509_CRL_sign(crl, authority->key, EVP_sha256()) > 0, "revocation list");
	need(PEM_write_X509_CRL(file, crl) == 1, path);
	fclose(file);
	X509_CRL_free(crl);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	return path;
}

const char *
text_write(const char *text, const char *name, unsigned mode)
{
	const char *path = test_path(name);
	FILE	   *file = create_file(path, mode);

	fputs(text, file);
	fclose(file);
	return path;
}

SSL_CTX *
server_make(const Cert *cert)
{
	SSL_CTX    *server = SSL_CTX_new(TLS_server_method());

	need(server != NULL && SSL_CTX_use_certificate(server, cert->x509) == 1 &&
		 SSL_CTX_use_PrivateKey(server, cert->key) == 1, "server");
	return server;
}

void
certs_cleanup(void)
{
	DIR		   *dir = folder[0] != '\0' ? opendir(folder) : NULL;
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		(void) unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
	{
		closedir(dir);
		rmdir(folder);
	}
	folder[0] = '\0';
}
