/*-------------------------------------------------------------------------
 *
 * cares.c
 *	  Loading c-ares.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/library.h"
#include "peer/cares.h"

#ifdef RINQ_LINK_LIBRARIES

bool
rinq_cares_load(char *error, size_t error_size)
{
	return true;
}

#else

RinqCaresFunctions rinq_cares;

StaticAssertDecl(sizeof(RINQ_CARES_SONAME) > 1, "the Makefile did not find libcares.so");

#define ENTRY(name, field) {name, (void **) &rinq_cares.field}

static const RinqLibraryFunction functions[] = {
	ENTRY("ares_library_init", library_init),
	ENTRY("ares_init_options", init_options),
	ENTRY("ares_set_servers_ports_csv", set_servers),
	ENTRY("ares_getaddrinfo", get_addresses),
	ENTRY("ares_freeaddrinfo", free_addresses),
	ENTRY("ares_process_fd", process_fd),
	ENTRY("ares_timeout", timeout),
	ENTRY("ares_cancel", cancel),
	ENTRY("ares_destroy", destroy),
	ENTRY("ares_strerror", error_text)
};

bool
rinq_cares_load(char *error, size_t error_size)
{
	return rinq_library_load(RINQ_CARES_SONAME, functions, lengthof(functions), error, error_size);
}

#endif
