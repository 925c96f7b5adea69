/*-------------------------------------------------------------------------
 *
 * broker_options.h
 *	  Where a broker is, and how to log in there: its options, one by one.
 *
 * Explanations of what is wrong name the part and never repeat it, as the text
 * around a misplaced delimiter may well be the password.  Plain C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_BROKER_OPTIONS_H
#define RINQ_BASE_BROKER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#define RINQ_BROKER_MAX_HOSTS	16

/* AMQP and DNS both stop at 255 bytes. */
#define RINQ_BROKER_PART_SIZE	256

/* More than the first frame of a login can carry, by the defaults of brokers. */
#define RINQ_PASSWORD_SIZE		8192

#define RINQ_BROKER_PATH_SIZE	1024

/* The meanings are libpq's. */
typedef enum RinqSslMode
{
	RINQ_SSL_DISABLE,
	RINQ_SSL_REQUIRE,
	RINQ_SSL_VERIFY_CA,
	RINQ_SSL_VERIFY_FULL
} RinqSslMode;

typedef struct RinqBrokerHost
{
	char		host[RINQ_BROKER_PART_SIZE];	/* IPv6 without the brackets */
	int			port;			/* 0: not given, see rinq_broker_port() */
} RinqBrokerHost;

/*
 * The options.  No pointers: the structure is self-contained, so that it may be
 * copied, and wiped with rinq_broker_wipe() afterwards.
 */
typedef struct RinqBroker
{
	int			nhosts;			/* at least 1 */
	RinqBrokerHost hosts[RINQ_BROKER_MAX_HOSTS];
	bool		load_balance_random;	/* try them in random order */
	char		vhost[RINQ_BROKER_PART_SIZE];
	char		user[RINQ_BROKER_PART_SIZE];
	char		password[RINQ_PASSWORD_SIZE];
	bool		password_given;
	char		passfile[RINQ_BROKER_PATH_SIZE];	/* file with the password;
													 * empty: none */
	int			heartbeat;		/* seconds, 0 = off; -1 = not given */
	int			connection_timeout; /* milliseconds; -1 = not given */
	RinqSslMode sslmode;
	bool		sslmode_given;
	char		sslrootcert[RINQ_BROKER_PATH_SIZE]; /* or "system" */
	char		sslcert[RINQ_BROKER_PATH_SIZE];
	char		sslkey[RINQ_BROKER_PATH_SIZE];
	char		sslcrl[RINQ_BROKER_PATH_SIZE];
	int			ssl_min_protocol_version;	/* 0x0303 is TLS 1.2 */
	bool		ssl_min_protocol_given;
	bool		sasl_external;	/* log in by the client certificate */
} RinqBroker;

/* The default broker: guest at localhost. */
extern void rinq_broker_init(RinqBroker *broker);

/*
 * Set one option by its name, as in an address after "?" and as in CREATE
 * SERVER.  When that is impossible, return false with an explanation.
 */
extern bool rinq_broker_set_option(RinqBroker *broker, const char *name, const char *value,
								   char *err, size_t errsize);

/* Return the name of an option by number, from 0 on, or NULL when there are no more. */
extern const char *rinq_broker_option_name(int number);

/* Replace the hosts by those of a list: "a:5671,b,[::1]:5672". */
extern bool rinq_broker_parse_hosts(RinqBroker *broker, const char *list,
									char *err, size_t errsize);

/*
 * Tell whether the options suit each other, when all are set; of an address,
 * rinq_broker_parse() has found that out.
 */
extern bool rinq_broker_check(const RinqBroker *broker, char *err, size_t errsize);

/* Return the port of a host: that given, or the standard one, 5672, with TLS 5671. */
extern int	rinq_broker_port(const RinqBroker *broker, int host_index);

/* Overwrite the structure in a way the compiler does not optimise away. */
extern void rinq_broker_wipe(RinqBroker *broker);

/*
 * Parse a list of hosts as rinq_broker_parse_hosts() does, of which each is
 * percent-encoded or not.
 */
extern bool rinq_broker_parse_host_list(RinqBroker *broker, const char *text, size_t len,
										bool encoded, char *err, size_t errsize);

/* Decode text[0..len), which has percent signs; "part" says what it is. */
extern bool rinq_broker_decode(const char *text, size_t len, const char *part,
							   char *out, size_t size, char *err, size_t errsize);

#endif							/* RINQ_BASE_BROKER_OPTIONS_H */
