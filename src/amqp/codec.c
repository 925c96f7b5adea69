/*-------------------------------------------------------------------------
 *
 * codec.c
 *	  Loading librabbitmq.
 *
 *-------------------------------------------------------------------------
 */
#include "amqp/codec.h"
#include "base/library.h"

#ifdef RINQ_LINK_LIBRARIES

bool
rinq_amqp_load(char *error, size_t error_size)
{
	(void) error;
	(void) error_size;
	return true;
}

#else

RinqAmqpFunctions rinq_amqp;

/* some that librabbitmq calls itself are here only to be checked */
static void *unused;

_Static_assert(sizeof(RINQ_RABBITMQ_SONAME) > 1, "the Makefile did not find librabbitmq.so");

#define ENTRY(name, field) {name, (void **) &rinq_amqp.field}
#define CHECKED(name) {name, &unused}

static const RinqLibraryFunction functions[] = {
	ENTRY("amqp_decode_method", decode_method),
	ENTRY("amqp_encode_method", encode_method),
	ENTRY("amqp_encode_properties", encode_properties),
	ENTRY("init_amqp_pool", init_pool),
	ENTRY("empty_amqp_pool", empty_pool),
	ENTRY("recycle_amqp_pool", recycle_pool),
	CHECKED("amqp_encode_table"),
	CHECKED("amqp_decode_table"),
	CHECKED("amqp_pool_alloc"),
	CHECKED("amqp_pool_alloc_bytes")
};

bool
rinq_amqp_load(char *error, size_t error_size)
{
	return rinq_library_load(RINQ_RABBITMQ_SONAME, functions,
							 sizeof(functions) / sizeof(functions[0]), error, error_size);
}

#endif
