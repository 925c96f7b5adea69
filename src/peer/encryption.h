/*-------------------------------------------------------------------------
 *
 * encryption.h
 *	  What a broker's options and TLS have to do with each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_ENCRYPTION_H
#define RINQ_PEER_ENCRYPTION_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/broker.h"
#include "ipc/shared.h"

extern const RinqTlsConfig *rinq_encryption_config(const RinqBroker *broker, int host_index,
												   RinqTlsConfig *config);
extern void rinq_encryption_describe(const RinqConn *conn, RinqEncryption *out);
extern void rinq_encryption_check_plain(const RinqConn *conn, const RinqBroker *broker, const char *name);
extern bool rinq_encryption_reload(const RinqConn *conn, const RinqBroker *broker, int host_index,
								   bool is_replaced, char *reason, size_t size);

#endif							/* RINQ_PEER_ENCRYPTION_H */
