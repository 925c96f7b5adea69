/*-------------------------------------------------------------------------
 *
 * cbor/library.c
 *	  Loading libcbor.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/library.h"
#include "cbor/internal.h"

#ifdef RINQ_LINK_LIBRARIES

bool
rinq_cbor_load(char *error, size_t error_size)
{
	return true;
}

#else

RinqCborFunctions rinq_cbor_functions;

StaticAssertDecl(sizeof(RINQ_CBOR_SONAME) > 1, "the Makefile did not find libcbor.so");

#define ENTRY(name, field) {name, (void **) &rinq_cbor_functions.field}

static const RinqLibraryFunction functions[] = {
	ENTRY("cbor_stream_decode", stream_decode),
	ENTRY("cbor_encode_uint", encode_uint),
	ENTRY("cbor_encode_negint", encode_negint),
	ENTRY("cbor_encode_bytestring_start", encode_bytestring_start),
	ENTRY("cbor_encode_string_start", encode_string_start),
	ENTRY("cbor_encode_array_start", encode_array_start),
	ENTRY("cbor_encode_map_start", encode_map_start),
	ENTRY("cbor_encode_tag", encode_tag),
	ENTRY("cbor_encode_bool", encode_bool),
	ENTRY("cbor_encode_null", encode_null),
	ENTRY("cbor_encode_double", encode_double)
};

bool
rinq_cbor_load(char *error, size_t error_size)
{
	return rinq_library_load(RINQ_CBOR_SONAME, functions, lengthof(functions), error, error_size);
}

#endif
