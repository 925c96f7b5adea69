/*-------------------------------------------------------------------------
 *
 * tls_internal.h
 *	  What the files of TLS share.
 *
 *	tls_files.c		reading files
 *	tls_trust.c		whom to trust
 *	tls_context.c	all of that, in a context
 *	tls.c			one connection
 *	tls_explain.c	what went wrong, in words
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_TLS_INTERNAL_H
#define RINQ_AMQP_TLS_INTERNAL_H

#include <string.h>
#include <sys/stat.h>

#include "amqp/openssl_compat.h"
#include "amqp/tls.h"

#define RINQ_TLS_DIGEST_SIZE	32
#define RINQ_TLS_FIRST_BYTES	8

struct RinqTlsContext
{
	SSL_CTX    *ssl_ctx;
	RinqTlsVerify verify;		/* with what a rootcert adds */
	int			min_version;
	char	   *host;
	char	   *rootcert;
	char	   *crl;
	char	   *cert;
	unsigned char trust_digest[RINQ_TLS_DIGEST_SIZE];	/* of rootcert and crl */
	unsigned char own_digest[RINQ_TLS_DIGEST_SIZE]; /* of cert and key */
};

struct RinqTls
{
	RinqTlsContext *context;
	SSL		   *ssl;
	int			fd;
	bool		up;				/* the first handshake is done */
	bool		broken;			/* it must not be used any more */
	bool		read_wants_write;
	bool		write_wants_read;
	bool		dry;			/* the latest read found too little to go on */
	bool		over_budget;	/* the latest read was stopped */
	size_t		budget;			/* bytes that the present read may still take */
	bool		eof;
	int			read_errno;		/* of the socket */
	int			write_errno;
	bool		asked_for_certificate;	/* by the broker */
	uint64_t	bytes_in;
	uint64_t	bytes_out;
	unsigned char first[RINQ_TLS_FIRST_BYTES];	/* of all that came */
	char		error[RINQ_TLS_ERROR_SIZE];

	/* of the certificate that was refused, if one was */
	int			verify_error;
	int			verify_depth;
	char		verify_subject[256];
	char		verify_issuer[256];
	char		verify_from[40];
	char		verify_until[40];
	char		verify_names[256];
};

/* Tell whether trust is left to what the system has. */
static inline bool
rinq_tls_trusts_system(const RinqTlsContext *context)
{
	return strcmp(context->rootcert, "system") == 0;
}

/* What all steps of making a context need. */
typedef struct RinqTlsLoading
{
	const RinqTlsConfig *config;
	RinqTlsContext *context;
	char	   *error;
	size_t		error_size;
} RinqTlsLoading;

/* A file that was opened, and its text once that was read. */
typedef struct RinqTlsFile
{
	const char *path;
	int			fd;				/* -1 is none */
	struct stat st;
	char	   *data;
	size_t		len;
} RinqTlsFile;

/* tls_files.c */
extern bool rinq_tls_refuse(RinqTlsLoading * l, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
extern const char *rinq_tls_library_reason(void);
extern int	rinq_tls_no_passphrase(char *buf, int size, int rwflag, void *asked);
extern bool rinq_tls_open_file(RinqTlsLoading * l, const char *path, bool is_key, RinqTlsFile * file);
extern bool rinq_tls_read_file(RinqTlsLoading * l, RinqTlsFile * file);
extern void rinq_tls_close_file(RinqTlsFile * file);
extern bool rinq_tls_add_digest(RinqTlsLoading * l, unsigned char *digest, const void *data, size_t len);

/* tls_trust.c */
extern bool rinq_tls_load_trust(RinqTlsLoading * l);
extern bool rinq_tls_load_system(RinqTlsContext *context);

/* tls_context.c */
extern bool rinq_tls_is_address(const char *host);

/* tls_explain.c */
extern void rinq_tls_note_certificate(RinqTls *tls, X509_STORE_CTX *store);
extern void rinq_tls_explain(RinqTls *tls, unsigned long error);
extern void rinq_tls_describe_trust(const RinqTlsContext *context, int verify_error, X509 *cert,
									char *text, size_t size);
extern const char *rinq_tls_version_name(int version);

#endif							/* RINQ_AMQP_TLS_INTERNAL_H */
