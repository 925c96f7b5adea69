/*-------------------------------------------------------------------------
 *
 * tls_explain.c
 *	  What went wrong with TLS, in words for an administrator.
 *
 * Names in certificates come from the other side: they are quoted in printable
 * ASCII, and short.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "amqp/tls_internal.h"

static void explain_as(RinqTls *tls, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));

static void
explain_as(RinqTls *tls, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(tls->error, sizeof(tls->error), fmt, args);
	va_end(args);
}

const char *
rinq_tls_version_name(int version)
{
	switch (version)
	{
		case TLS1_VERSION:
			return "TLSv1";
		case TLS1_1_VERSION:
			return "TLSv1.1";
		case TLS1_2_VERSION:
			return "TLSv1.2";
		case TLS1_3_VERSION:
			return "TLSv1.3";
		default:
			return "unknown";
	}
}

/* ---------------- names and dates ---------------- */

static void
keep_printable(char *text)
{
	for (; *text != '\0'; text++)
	{
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

/* Write a name like "CN=broker,O=Example". */
static void
describe_name(const X509_NAME *name, char *text, size_t size)
{
	BIO		   *bio = BIO_new(BIO_s_mem());
	int			len = 0;

	if (bio != NULL && name != NULL &&
		X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_UTF8_CONVERT) >= 0)
		len = BIO_read(bio, text, (int) size - 1);
	text[len > 0 ? len : 0] = '\0';
	keep_printable(text);
	BIO_free(bio);
	if (text[0] == '\0')
		snprintf(text, size, "(no name)");
}

static void
describe_time(const ASN1_TIME *at, char *text, size_t size)
{
	struct tm	tm;

	if (ASN1_TIME_to_tm(at, &tm) != 1 || strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		snprintf(text, size, "an unreadable date");
}

/* Append one of the names that a certificate is for. */
static void
append_host_name(char *text, size_t size, const char *name, size_t len)
{
	size_t		used = strlen(text);

	snprintf(text + used, size - used, "%s\"%.*s\"", used > 0 ? ", " : "", (int) (len < 80 ? len : 80), name);
}

static void
append_general_name(char *text, size_t size, const GENERAL_NAME *name)
{
	char		address[INET6_ADDRSTRLEN];

	if (name->type == GEN_DNS)
		append_host_name(text, size, (const char *) ASN1_STRING_get0_data(name->d.dNSName),
						 (size_t) ASN1_STRING_length(name->d.dNSName));
	else if (name->type == GEN_IPADD)
	{
		int			len = ASN1_STRING_length(name->d.iPAddress);

		if ((len == 4 || len == 16) &&
			inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name->d.iPAddress),
					  address, sizeof(address)) != NULL)
			append_host_name(text, size, address, strlen(address));
	}
}

/* Write the hosts that a certificate is for, or its subject when it names none. */
static void
describe_hosts(X509 *cert, char *text, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	text[0] = '\0';
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		append_general_name(text, size, sk_GENERAL_NAME_value(names, i));
	GENERAL_NAMES_free(names);
	keep_printable(text);
	if (text[0] == '\0')
	{
		char		subject[200];

		describe_name(X509_get_subject_name(cert), subject, sizeof(subject));
		append_host_name(text, size, subject, strlen(subject));
	}
}

/* ---------------- certificates ---------------- */

/*
 * Keep what there is to say of a certificate that does not pass.  The first is
 * the cause; what follows is about the same.
 */
void
rinq_tls_note_certificate(RinqTls *tls, X509_STORE_CTX *store)
{
	X509	   *cert = X509_STORE_CTX_get_current_cert(store);

	if (tls->verify_error != X509_V_OK)
		return;
	tls->verify_error = X509_STORE_CTX_get_error(store);
	tls->verify_depth = X509_STORE_CTX_get_error_depth(store);
	if (cert == NULL)
		return;
	describe_name(X509_get_subject_name(cert), tls->verify_subject, sizeof(tls->verify_subject));
	describe_name(X509_get_issuer_name(cert), tls->verify_issuer, sizeof(tls->verify_issuer));
	describe_time(X509_get0_notBefore(cert), tls->verify_from, sizeof(tls->verify_from));
	describe_time(X509_get0_notAfter(cert), tls->verify_until, sizeof(tls->verify_until));
	describe_hosts(cert, tls->verify_names, sizeof(tls->verify_names));
}

/* Write whom the context trusts. */
static void
describe_authorities(const RinqTlsContext *context, char *text, size_t size)
{
	if (rinq_tls_trusts_system(context))
		snprintf(text, size, "the system trusts (sslrootcert \"system\")");
	else
		snprintf(text, size, "file \"%.200s\" names (sslrootcert)", context->rootcert);
}

/*
 * Explain what is wrong with a certificate as a sentence about it; subject and
 * issuer say which one.  False when there is nothing better than the library's
 * words.
 */
static bool
describe_unknown(const RinqTlsContext *context, int verify_error, const char *issuer,
				 char *text, size_t size)
{
	char		authorities[256];

	switch (verify_error)
	{
		case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
			describe_authorities(context, authorities, sizeof(authorities));
			snprintf(text, size, "is signed by itself, and is none that %s", authorities);
			return true;
		case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
		case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
		case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
			describe_authorities(context, authorities, sizeof(authorities));
			snprintf(text, size, "is signed by unknown authority \"%s\", which is none that %s",
					 issuer, authorities);
			return true;
		case X509_V_ERR_CERT_REVOKED:
			snprintf(text, size, "was revoked, as file \"%.200s\" says (sslcrl)", context->crl);
			return true;
		case X509_V_ERR_UNABLE_TO_GET_CRL:
			snprintf(text, size, "cannot be looked up: file \"%.200s\" has no revocation list of authority \"%s\" (sslcrl)",
					 context->crl, issuer);
			return true;
		case X509_V_ERR_CRL_HAS_EXPIRED:
			snprintf(text, size, "cannot be looked up: the revocation list in file \"%.200s\" has expired (sslcrl)",
					 context->crl);
			return true;
		case X509_V_ERR_CRL_NOT_YET_VALID:
			snprintf(text, size, "cannot be looked up: the revocation list in file \"%.200s\" is not valid yet (sslcrl)",
					 context->crl);
			return true;
		default:
			return false;
	}
}

/* Explain why a certificate that was fine is not trusted any more. */
void
rinq_tls_describe_trust(const RinqTlsContext *context, int verify_error, X509 *cert,
						char *text, size_t size)
{
	char		issuer[256] = "(unknown)";
	char		what[RINQ_TLS_ERROR_SIZE - 64];

	if (cert != NULL)
		describe_name(X509_get_issuer_name(cert), issuer, sizeof(issuer));
	if (!describe_unknown(context, verify_error, issuer, what, sizeof(what)))
		snprintf(what, sizeof(what), "does not pass: %s", X509_verify_cert_error_string(verify_error));
	snprintf(text, size, "the broker's certificate %s", what);
}

/* Tell whether the chain as such is not accepted, and not one certificate of it. */
static bool
is_about_trust(int verify_error)
{
	return verify_error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
		verify_error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT ||
		verify_error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
}

static void
explain_certificate(RinqTls *tls)
{
	char		which[320] = "its certificate";
	char		what[RINQ_TLS_ERROR_SIZE - 400];

	if (tls->verify_depth > 0 && !is_about_trust(tls->verify_error))
		snprintf(which, sizeof(which), "the certificate of its authority \"%.200s\"", tls->verify_subject);
	switch (tls->verify_error)
	{
		case X509_V_ERR_CERT_HAS_EXPIRED:
			explain_as(tls, "%s has expired: it was valid until %s", which, tls->verify_until);
			break;
		case X509_V_ERR_CERT_NOT_YET_VALID:
			explain_as(tls, "%s is not yet valid: it will be from %s on", which, tls->verify_from);
			break;
		case X509_V_ERR_HOSTNAME_MISMATCH:
			explain_as(tls, "%s is for another host: it names %s, and not \"%.200s\"",
					   which, tls->verify_names, tls->context->host);
			break;
		case X509_V_ERR_IP_ADDRESS_MISMATCH:
			/* it may name the same as a host's name, which does not count */
			explain_as(tls, "%s is for another host: it names %s, and not \"%.200s\" as an IP address",
					   which, tls->verify_names, tls->context->host);
			break;
		default:
			if (describe_unknown(tls->context, tls->verify_error, tls->verify_issuer, what, sizeof(what)))
				explain_as(tls, "%s %s", which, what);
			else
				explain_as(tls, "%s does not pass: %s", which,
						   X509_verify_cert_error_string(tls->verify_error));
			break;
	}
}

/* ---------------- what the broker says ---------------- */

/* Explain that the broker wants another certificate of ours than it got, or one at all. */
static void
explain_own_certificate(RinqTls *tls, int alert)
{
	if (tls->context->cert[0] == '\0')
		explain_as(tls, "the broker demands a client certificate, and sslcert is not given");
	else
		explain_as(tls, "the broker refused the client certificate of file \"%.200s\": %s",
				   tls->context->cert, SSL_alert_desc_string_long(alert));
}

static void
explain_no_common_protocol(RinqTls *tls)
{
	explain_as(tls, "no common protocol version: at least %s is demanded here (ssl_min_protocol_version), and the broker has none of these",
			   rinq_tls_version_name(tls->context->min_version));
}

static void
explain_alert(RinqTls *tls, int alert)
{
	switch (alert)
	{
		case SSL_AD_PROTOCOL_VERSION:
			explain_no_common_protocol(tls);
			break;
		case SSL_AD_CERTIFICATE_REQUIRED:
		case SSL_AD_BAD_CERTIFICATE:
		case SSL_AD_UNSUPPORTED_CERTIFICATE:
		case SSL_AD_CERTIFICATE_REVOKED:
		case SSL_AD_CERTIFICATE_EXPIRED:
		case SSL_AD_CERTIFICATE_UNKNOWN:
		case SSL_AD_UNKNOWN_CA:
			explain_own_certificate(tls, alert);
			break;
		case SSL_AD_HANDSHAKE_FAILURE:
			if (tls->asked_for_certificate)
				explain_own_certificate(tls, alert);
			else
				explain_as(tls, "the broker refused the handshake: it has no cipher or key exchange in common with this OpenSSL");
			break;
		case SSL_AD_UNRECOGNIZED_NAME:
			explain_as(tls, "the broker does not know the host name \"%.200s\"", tls->context->host);
			break;
		default:
			explain_as(tls, "the broker ended TLS: %s", SSL_alert_desc_string_long(alert));
			break;
	}
}

/* Tell whether what came first is no TLS; what it is then, is said. */
static bool
explain_first_bytes(RinqTls *tls)
{
	uint64_t	len = tls->bytes_in;

	if (tls->up || len == 0 || tls->first[0] == SSL3_RT_HANDSHAKE || tls->first[0] == SSL3_RT_ALERT)
		return false;
	if (memcmp(tls->first, "AMQP", len < 4 ? (size_t) len : 4) == 0)
		explain_as(tls, "the broker does not speak TLS on this port, but AMQP in plain text");
	else
		explain_as(tls, "the server does not speak TLS on this port");
	return true;
}

/* Explain an error of the library, which may be 0: none was told. */
void
rinq_tls_explain(RinqTls *tls, unsigned long error)
{
	int			alert = rinq_ssl_alert(error);
	const char *reason;

	if (tls->error[0] != '\0' || explain_first_bytes(tls))
		return;
	if (alert != 0)
	{
		explain_alert(tls, alert);
		return;
	}
	if (ERR_GET_LIB(error) == ERR_LIB_SSL)
	{
		switch (ERR_GET_REASON(error))
		{
			case SSL_R_CERTIFICATE_VERIFY_FAILED:
				if (tls->verify_error != X509_V_OK)
				{
					explain_certificate(tls);
					return;
				}
				break;
			case SSL_R_UNSUPPORTED_PROTOCOL:
			case SSL_R_NO_PROTOCOLS_AVAILABLE:
			case SSL_R_VERSION_TOO_LOW:
				explain_no_common_protocol(tls);
				return;
			default:
				break;
		}
	}
	reason = error != 0 ? ERR_reason_error_string(error) : NULL;
	explain_as(tls, "%s", reason != NULL ? reason : "OpenSSL gives no reason");
	keep_printable(tls->error);
}
