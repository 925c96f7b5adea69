/*-------------------------------------------------------------------------
 *
 * cares.h
 *	  The header of c-ares, and what is used of it.
 *
 * Only for peer/resolver.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_CARES_H
#define RINQ_PEER_CARES_H

#include <ares.h>

#if defined(ARES_VERSION) && ARES_VERSION < 0x011000
#error "rinq needs c-ares 1.16 or newer"
#endif

#ifndef RINQ_LINK_LIBRARIES

/* still called by their names (base/library.h) */
typedef struct RinqCaresFunctions
{
	__typeof__(&ares_library_init) library_init;
	__typeof__(&ares_init_options) init_options;
	__typeof__(&ares_set_servers_ports_csv) set_servers;
	__typeof__(&ares_getaddrinfo) get_addresses;
	__typeof__(&ares_freeaddrinfo) free_addresses;
	__typeof__(&ares_process_fd) process_fd;
	__typeof__(&ares_timeout) timeout;
	__typeof__(&ares_cancel) cancel;
	__typeof__(&ares_destroy) destroy;
	__typeof__(&ares_strerror) error_text;
} RinqCaresFunctions;

extern RinqCaresFunctions rinq_cares;

#define ares_library_init rinq_cares.library_init
#define ares_init_options rinq_cares.init_options
#define ares_set_servers_ports_csv rinq_cares.set_servers
#define ares_getaddrinfo rinq_cares.get_addresses
#define ares_freeaddrinfo rinq_cares.free_addresses
#define ares_process_fd rinq_cares.process_fd
#define ares_timeout rinq_cares.timeout
#define ares_cancel rinq_cares.cancel
#define ares_destroy rinq_cares.destroy
#define ares_strerror rinq_cares.error_text

#endif

#endif							/* RINQ_PEER_CARES_H */
