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

#include "../bytes.h"

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

/* The library's byte strings are not const, but encoding only reads them. */
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
