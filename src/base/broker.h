/*-------------------------------------------------------------------------
 *
 * broker.h
 *	  Where a broker is, and how to log in there, as an address:
 *	  amqp://user:password@host:port,host:port/vhost?option=value
 *
 * Responsible for taking the text apart, and for showing a broker without its
 * secrets.  Does not resolve host names, and reads no files.  Plain C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_BROKER_H
#define RINQ_BASE_BROKER_H

#include "base/broker_options.h"

/* Room for "[host]:port/vhost" with every byte percent-encoded */
#define RINQ_BROKER_DESCRIBE_SIZE	(6 * RINQ_BROKER_PART_SIZE + 16)

/*
 * Take an address apart.  On failure return false, wipe *broker, and put an
 * explanation into err.  An empty text is the default broker.
 */
extern bool rinq_broker_parse(const char *address, RinqBroker *broker,
							  char *err, size_t errsize);

/*
 * Write "host:port/vhost", terminated, and return buf.  The default virtual
 * host "/" is shown as nothing ("host:port/"); characters with a meaning in
 * an address or outside printable ASCII are percent-encoded.
 */
extern char *rinq_broker_describe(const RinqBroker *broker, int host_index,
								  char *buf, size_t size);

/*
 * Write the same with all hosts, "host:port,host:port/vhost", and return buf;
 * those that there is no room for are left out.
 */
extern char *rinq_broker_describe_all(const RinqBroker *broker, char *buf, size_t size);

/*
 * Return which of the hosts is described like this; -1 when none is.
 */
extern int	rinq_broker_find_host(const RinqBroker *broker, const char *description);

#endif							/* RINQ_BASE_BROKER_H */
