/*-------------------------------------------------------------------------
 *
 * openssl_compat.h
 *	  OpenSSL's headers, and what differs between its versions 3.0 and later.
 *
 * The library is linked as the server's own code links it, whose functions come
 * first in the common space of names and carry versions in their names; so it
 * is not loaded like the others (base/library.h).  Private to this directory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_AMQP_OPENSSL_COMPAT_H
#define RINQ_AMQP_OPENSSL_COMPAT_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

/* 3.0 has the new name of what was SSL_get_peer_certificate */
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#define SSL_get1_peer_certificate SSL_get_peer_certificate
#endif

/* Tell the number of the alert that an error of the library stands for, 0 when it is none. */
static inline int
rinq_ssl_alert(unsigned long error)
{
	int			reason = ERR_GET_REASON(error);

	if (ERR_GET_LIB(error) != ERR_LIB_SSL || reason <= SSL_AD_REASON_OFFSET || reason > SSL_AD_REASON_OFFSET + 255)
		return 0;
	return reason - SSL_AD_REASON_OFFSET;
}

#endif							/* RINQ_AMQP_OPENSSL_COMPAT_H */
