/*-------------------------------------------------------------------------
 *
 * codec.h
 *	  librabbitmq's headers, wherever this version of it keeps them.
 *
 * Only the codec functions of the library are used (encoding and decoding of
 * methods and properties, memory pools); its sockets, waiting and remote calls
 * can block without bound.  Private to this directory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_CODEC_H
#define RINQ_AMQP_CODEC_H

#include "base/bytes.h"

#if defined(__has_include)
#if __has_include(<rabbitmq-c/amqp.h>)
#define RINQ_RABBITMQ_C_SUBDIR
#endif
#endif

#ifdef RINQ_RABBITMQ_C_SUBDIR
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#ifndef RINQ_LINK_LIBRARIES

/* what is used of the library, still called by its names (../library.h) */
typedef struct RinqAmqpFunctions
{
	__typeof__(&amqp_decode_method) decode_method;
	__typeof__(&amqp_encode_method) encode_method;
	__typeof__(&amqp_encode_properties) encode_properties;
	__typeof__(&init_amqp_pool) init_pool;
	__typeof__(&empty_amqp_pool) empty_pool;
	__typeof__(&recycle_amqp_pool) recycle_pool;
} RinqAmqpFunctions;

extern RinqAmqpFunctions rinq_amqp;

#define amqp_decode_method rinq_amqp.decode_method
#define amqp_encode_method rinq_amqp.encode_method
#define amqp_encode_properties rinq_amqp.encode_properties
#define init_amqp_pool rinq_amqp.init_pool
#define empty_amqp_pool rinq_amqp.empty_pool
#define recycle_amqp_pool rinq_amqp.recycle_pool

#endif

#define RINQ_NO_AMQP_BYTES ((amqp_bytes_t) {0, NULL})
#define RINQ_NO_AMQP_TABLE ((amqp_table_t) {0, NULL})

/* Convert bytes to the library's byte strings, which are not const, but encoding only reads them. */
static inline amqp_bytes_t
rinq_to_amqp(RinqBytes b)
{
	amqp_bytes_t result;

	result.len = b.len;
	result.bytes = (void *) b.data;
	return result;
}

static inline RinqBytes
rinq_from_amqp(amqp_bytes_t b)
{
	return rinq_bytes(b.bytes != NULL ? (const char *) b.bytes : "", b.len);
}

#endif							/* RINQ_AMQP_CODEC_H */
