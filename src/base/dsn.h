/*-------------------------------------------------------------------------
 *
 * dsn.h
 *	  The address of a broker: amqp://user:password@host:port/vhost?options
 *
 * Responsible for taking the text apart and for showing it without its
 * secrets.  Does not resolve host names.  Plain C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_DSN_H
#define RINQ_AMQP_DSN_H

#include <stdbool.h>
#include <stddef.h>

/* AMQP and DNS both stop at 255 bytes. */
#define RINQ_DSN_PART_SIZE		256

/* Room for "[host]:port/vhost" with every byte percent-encoded */
#define RINQ_DSN_DESCRIBE_SIZE	(6 * RINQ_DSN_PART_SIZE + 16)

/*
 * The parts, percent-decoded.  No pointers: the structure is self-contained,
 * so that it may be copied, and wiped with rinq_dsn_wipe() afterwards.
 */
typedef struct RinqDsn
{
	char		user[RINQ_DSN_PART_SIZE];
	char		password[RINQ_DSN_PART_SIZE];
	char		host[RINQ_DSN_PART_SIZE];	/* IPv6 without the brackets */
	char		vhost[RINQ_DSN_PART_SIZE];
	int			port;
	int			heartbeat;		/* seconds, 0 = off; -1 = not given */
	int			connection_timeout; /* milliseconds; -1 = not given */
} RinqDsn;

/*
 * Take text (zero-terminated) apart.  On failure returns false, wipes *out,
 * and puts an explanation into err that quotes neither the password nor the
 * user name.  An empty text is the default broker: guest at localhost:5672.
 */
extern bool rinq_dsn_parse(const char *text, RinqDsn *out,
						   char *err, size_t errsize);

/*
 * Write "host:port/vhost", terminated, and return buf.  The default virtual
 * host "/" is shown as nothing ("host:port/"); characters with a meaning in
 * an address or outside printable ASCII are percent-encoded.
 */
extern char *rinq_dsn_describe(const RinqDsn *dsn, char *buf, size_t size);

/* Overwrite the structure in a way the compiler does not optimise away. */
extern void rinq_dsn_wipe(RinqDsn *dsn);

#endif							/* RINQ_AMQP_DSN_H */
