/*-------------------------------------------------------------------------
 *
 * certs.h
 *	  Certificates for tests, made on the spot, and a server that uses them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_TEST_CERTS_H
#define RINQ_TEST_CERTS_H

#include <stdbool.h>

#include <openssl/ssl.h>
#include <openssl/x509.h>

typedef struct Cert
{
	X509	   *x509;
	EVP_PKEY   *key;
} Cert;

/*
 * Make a certificate.  Names are as in "DNS:a.example,IP:127.0.0.1", or NULL;
 * days count from now.  Without issuer it is signed by itself.
 */
extern Cert cert_make(const char *common_name, const char *names, int from_day, int until_day,
					  const Cert *issuer, bool is_authority);
extern void cert_free(Cert *cert);

/* Write into a file of this name in the test's folder; return its path, which stays valid. */
extern const char *cert_write(const Cert *cert, const char *name);
extern const char *key_write(const Cert *cert, const char *name, const char *passphrase, unsigned mode);

/* a list of revocations; revoked may be NULL */
extern const char *crl_write(const Cert *authority, const Cert *revoked, int until_day, const char *name);
extern const char *text_write(const char *text, const char *name, unsigned mode);
extern const char *test_path(const char *name);

/* What a server presents. */
extern SSL_CTX *server_make(const Cert *cert);

/* Remove the folder and all that is in it. */
extern void certs_cleanup(void);

#endif							/* RINQ_TEST_CERTS_H */
