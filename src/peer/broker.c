/*-------------------------------------------------------------------------
 *
 * broker.c
 *	  Which broker the peer is to connect to: what the settings say of it, and
 *	  the password from a file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "ipc/shared.h"
#include "peer/broker.h"
#include "peer/credentials.h"

static bool
read_settings(RinqBroker *broker, char *error, size_t size)
{
	char		problem[RINQ_LAST_ERROR_LEN];

	if (rinq_amqp_dsn_problem != NULL)
	{
		snprintf(error, size, "\"rinq.amqp_dsn\" is invalid: %s", rinq_amqp_dsn_problem);
		return false;
	}
	if (rinq_amqp_dsn == NULL || !rinq_broker_parse(rinq_amqp_dsn, broker, problem, sizeof(problem)))
	{
		strlcpy(error, "\"rinq.amqp_dsn\" is not set", size);
		return false;
	}
	return true;
}

/*
 * Take the password from a file, in place of one that is written: the one that
 * belongs to the address, or else that of the setting.
 */
static bool
use_password_file(RinqBroker *broker, char *error, size_t size)
{
	bool		own = broker->passfile[0] != '\0';
	const char *path = own ? broker->passfile : rinq_amqp_password_file;
	char		problem[RINQ_LAST_ERROR_LEN];

	if (path == NULL || path[0] == '\0')
		return true;
	if (!rinq_password_read(path, broker->password, sizeof(broker->password), problem, sizeof(problem)))
	{
		snprintf(error, size, "no password from \"%s\": %s",
				 own ? "passfile" : "rinq.amqp_password_file", problem);
		return false;
	}
	return true;
}

/*
 * Find the broker, with the password.  On failure return false with an error,
 * and the broker wiped.
 */
bool
rinq_peer_broker(RinqBroker *broker, char *error, size_t size)
{
	if (read_settings(broker, error, size) && use_password_file(broker, error, size))
		return true;
	rinq_broker_wipe(broker);
	return false;
}
