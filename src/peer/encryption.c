/*-------------------------------------------------------------------------
 *
 * encryption.c
 *	  What a broker's options and TLS have to do with each other: what is
 *	  demanded, what becomes of files that change, and a warning of plain text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "peer/encryption.h"
#include "peer/process.h"

/*
 * Set what TLS demands of one host of a broker, as texts of the broker's.  NULL
 * when it is reached in plain text.
 */
const RinqTlsConfig *
rinq_encryption_config(const RinqBroker *broker, int host_index, RinqTlsConfig *config)
{
	Assert(host_index >= 0 && host_index < broker->nhosts);
	memset(config, 0, sizeof(*config));
	switch (broker->sslmode)
	{
		case RINQ_SSL_DISABLE:
			return NULL;
		case RINQ_SSL_REQUIRE:
			config->verify = RINQ_TLS_VERIFY_NONE;
			break;
		case RINQ_SSL_VERIFY_CA:
			config->verify = RINQ_TLS_VERIFY_CA;
			break;
		case RINQ_SSL_VERIFY_FULL:
			config->verify = RINQ_TLS_VERIFY_FULL;
			break;
	}
	config->host = broker->hosts[host_index].host;
	config->rootcert = broker->sslrootcert;
	if (config->rootcert[0] == '\0' && broker->sslmode == RINQ_SSL_VERIFY_FULL)
		config->rootcert = "system";
	config->crl = broker->sslcrl;
	config->cert = broker->sslcert;
	config->key = broker->sslkey;
	config->min_version = broker->ssl_min_protocol_version;
	return config;
}

/* Tell how a connection is encrypted; texts are empty, and the time 0, when it is not. */
void
rinq_encryption_describe(const RinqConn *conn, RinqEncryption *out)
{
	int64		end = rinq_conn_tls_certificate_end(conn);

	strlcpy(out->version, rinq_conn_tls_version(conn), sizeof(out->version));
	strlcpy(out->cipher, rinq_conn_tls_cipher(conn), sizeof(out->cipher));
	out->certificate_end = end == 0 ? 0 : rinq_timestamp_of_ms(end * 1000);
}

/*
 * Warn when the connection takes passwords and messages out of this machine in
 * plain text, unless that was written to be wanted: once for each broker.
 */
void
rinq_encryption_check_plain(const RinqConn *conn, const RinqBroker *broker, const char *name)
{
	static char warned[RINQ_BROKER_DESCRIBE_SIZE];

	if (broker->sslmode != RINQ_SSL_DISABLE || broker->sslmode_given ||
		strcmp(warned, name) == 0 || !rinq_conn_leaves_machine(conn))
		return;
	strlcpy(warned, name, sizeof(warned));
	ereport(WARNING,
			(errmsg("rinq peer for database \"%s\" sends password and messages in plain text to broker %s",
					NameStr(rinq_peer.db->name), name),
			 errhint("Use \"amqps://\" or option \"sslmode\", or write \"sslmode=disable\" if the network between is trusted.")));
}

/* Tell that the files cannot be used for the next connection. */
static void
warn_of_files(const char *problem)
{
	ereport(WARNING,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("rinq peer for database \"%s\" cannot use its certificates: %s",
					NameStr(rinq_peer.db->name), problem),
			 errhint("The peer cannot connect again after its connection is lost.")));
}

/*
 * Look at files that a reload may have changed.  True, with the reason, when
 * the connection must not go on with what it was made with: it does not trust
 * the broker's certificate any more, or has another one of ours.  What is renewed
 * only is used from the next connection on, and what is unusable is told of.  Of
 * a connection that another one is to replace, only whom it trusts matters: the
 * other one comes with certificates of its own.
 */
bool
rinq_encryption_reload(const RinqConn *conn, const RinqBroker *broker, int host_index,
					   bool is_replaced, char *reason, size_t size)
{
	RinqTlsConfig config;

	if (rinq_encryption_config(broker, host_index, &config) == NULL)
		return false;
	switch (rinq_conn_tls_compare(conn, &config, reason, size))
	{
		case RINQ_TLS_UNTRUSTED:
			return true;
		case RINQ_TLS_OTHER_SUBJECT:
			return !is_replaced;
		case RINQ_TLS_UNUSABLE:
			if (!is_replaced)
				warn_of_files(reason);
			return false;
		case RINQ_TLS_LATER:
			ereport(DEBUG1,
					(errmsg_internal("rinq peer for database \"%s\" will use changed certificates in its next connection",
									 NameStr(rinq_peer.db->name))));
			return false;
		case RINQ_TLS_SAME:
			return false;
	}
	return false;
}
