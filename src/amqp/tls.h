/*-------------------------------------------------------------------------
 *
 * tls.h
 *	  TLS over the socket of a connection, without ever waiting for it.
 *
 * A RinqTlsContext is what was read from files: authorities, revocations, our
 * certificate and key.  A RinqTls is one connection's state.  Plain C; nothing
 * outside this directory sees OpenSSL.
 *
 * Nothing here asks for a passphrase, raises SIGPIPE, or waits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_TLS_H
#define RINQ_AMQP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for an explanation. */
#define RINQ_TLS_ERROR_SIZE	640

/* What is demanded of the broker's certificate. */
typedef enum RinqTlsVerify
{
	RINQ_TLS_VERIFY_NONE,		/* nothing, unless there is a rootcert */
	RINQ_TLS_VERIFY_CA,			/* signed by an authority that is trusted */
	RINQ_TLS_VERIFY_FULL		/* and issued for this host */
} RinqTlsVerify;

/*
 * None of the texts may be NULL; "" is: not given.  Files are read when a
 * context is made of this.
 */
typedef struct RinqTlsConfig
{
	RinqTlsVerify verify;
	const char *host;			/* as configured: a name, or an address
								 * without brackets */
	const char *rootcert;		/* file, or "system" */
	const char *crl;			/* file; then each certificate is looked up */
	const char *cert;			/* file with our certificate and its chain */
	const char *key;			/* file with its key; "" is that of cert */
	int			min_version;	/* as on the wire: 0x0303 is TLS 1.2 */
} RinqTlsConfig;

typedef struct RinqTlsContext RinqTlsContext;
typedef struct RinqTls RinqTls;

typedef enum RinqIoResult
{
	RINQ_IO_DONE,
	RINQ_IO_AGAIN,				/* nothing more without waiting */
	RINQ_IO_EOF,				/* the other side has closed */
	RINQ_IO_FAILED				/* errno says why, unless there are words for
								 * it */
} RinqIoResult;

/*
 * Read the files.  On failure return NULL with an explanation that quotes
 * nothing of what is in them.
 */
extern RinqTlsContext *rinq_tls_context_new(const RinqTlsConfig *config,
											char *error, size_t size);
extern void rinq_tls_context_free(RinqTlsContext *context);

/* NULL when out of memory.  The context is taken over, also then. */
extern RinqTls *rinq_tls_new(RinqTlsContext *context);

/* Say goodbye, as far as the socket takes that.  Does not close the socket. */
extern void rinq_tls_goodbye(RinqTls *tls);
extern void rinq_tls_free(RinqTls *tls);

/* Begin with a connected socket, which is non-blocking and stays the caller's. */
extern bool rinq_tls_start(RinqTls *tls, int fd);

/*
 * Each of these does what can be done at once.  A failure is explained by
 * rinq_tls_error(), or if that is empty, by errno.  After sending has failed,
 * receiving may get on: the broker may have said why.
 */
extern RinqIoResult rinq_tls_handshake(RinqTls *tls);
extern RinqIoResult rinq_tls_receive(RinqTls *tls, void *buf, size_t room, size_t *received);
extern RinqIoResult rinq_tls_send(RinqTls *tls, const void *data, size_t len, size_t *sent);

extern bool rinq_tls_is_up(const RinqTls *tls); /* the handshake is done */
extern const char *rinq_tls_error(const RinqTls *tls);

/* Tell whether receiving would get on without more input from the socket. */
extern bool rinq_tls_has_more(const RinqTls *tls);

/* What to wait for besides what the caller has itself to send and receive. */
extern bool rinq_tls_wants_write(const RinqTls *tls);
extern bool rinq_tls_holds_read(const RinqTls *tls);	/* till it may be
														 * written */
extern bool rinq_tls_holds_write(const RinqTls *tls);	/* till something was
														 * read */

/* Count the bytes that came and went, for signs of life. */
extern uint64_t rinq_tls_bytes_in(const RinqTls *tls);
extern uint64_t rinq_tls_bytes_out(const RinqTls *tls);

/* "" and 0 before the handshake is done. */
extern const char *rinq_tls_version(const RinqTls *tls);
extern const char *rinq_tls_cipher(const RinqTls *tls);
extern int64_t rinq_tls_certificate_end(const RinqTls *tls);	/* seconds since 1970 */

typedef enum RinqTlsChange
{
	RINQ_TLS_SAME,
	RINQ_TLS_LATER,				/* other files, for the next connection */
	RINQ_TLS_OTHER_SUBJECT,		/* our certificate is another one's: to the
								 * broker, that is another user */
	RINQ_TLS_UNTRUSTED,			/* the broker's certificate would not pass */
	RINQ_TLS_UNUSABLE			/* the files are not fit for a connection */
} RinqTlsChange;

/*
 * Read the files again, and compare with what the connection was made with.
 * The explanation is for the last three.
 */
extern RinqTlsChange rinq_tls_compare(const RinqTls *tls, const RinqTlsConfig *config,
									  char *error, size_t size);

#endif							/* RINQ_AMQP_TLS_H */
