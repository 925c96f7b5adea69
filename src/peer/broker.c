/*-------------------------------------------------------------------------
 *
 * broker.c
 *	  Which broker the peer is to connect to: what the database's foreign server
 *	  says of it, or else the settings; and the password from a file.
 *
 * A server that cannot be used is no reason to use the settings: the peer then
 * keeps the connection that it has, and makes no other one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "ipc/shared.h"
#include "peer/broker.h"
#include "peer/credentials.h"
#include "utils/memutils.h"

/* as the reader found it, in TopMemoryContext */
static RinqServerConfig configured;

static bool
is_same_text(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

static bool
is_configured(const RinqServerConfig *config)
{
	ListCell   *one;
	ListCell   *other;

	if (!is_same_text(config->name, configured.name) ||
		!is_same_text(config->problem, configured.problem) ||
		list_length(config->options) != list_length(configured.options))
		return false;
	forboth(one, config->options, other, configured.options)
	{
		const RinqServerOption *a = lfirst(one);
		const RinqServerOption *b = lfirst(other);

		if (!is_same_text(a->name, b->name) || !is_same_text(a->value, b->value))
			return false;
	}
	return true;
}

/* Free a configuration, and overwrite its secrets. */
static void
forget_server(RinqServerConfig *config)
{
	ListCell   *lc;

	foreach(lc, config->options)
	{
		RinqServerOption *option = lfirst(lc);

		explicit_bzero(unconstify(char *, option->value), strlen(option->value));
		pfree(unconstify(char *, option->value));
		pfree(unconstify(char *, option->name));
	}
	list_free_deep(config->options);
	if (config->name != NULL)
		pfree(config->name);
	if (config->problem != NULL)
		pfree(config->problem);
	memset(config, 0, sizeof(*config));
}

/*
 * Take over what the reader has found, which is in TopMemoryContext; false when it
 * is what there was.
 */
bool
rinq_peer_broker_configure(RinqServerConfig *config)
{
	if (is_configured(config))
	{
		forget_server(config);
		return false;
	}
	forget_server(&configured);
	configured = *config;
	return true;
}

/*
 * Return the name of the foreign server, empty when there is none.
 */
const char *
rinq_peer_broker_server(void)
{
	return configured.name == NULL ? "" : configured.name;
}

/*
 * Say why no foreign server can be used; NULL when one can, or there is none.
 */
const char *
rinq_peer_broker_problem(void)
{
	return configured.problem;
}

/* Set the options of the foreign server. */
static bool
read_server_options(RinqBroker *broker, char *error, size_t size)
{
	char		problem[RINQ_LAST_ERROR_LEN];
	bool		ok = true;
	ListCell   *lc;

	rinq_broker_init(broker);
	foreach(lc, configured.options)
	{
		const RinqServerOption *option = lfirst(lc);

		ok = ok && rinq_broker_set_option(broker, option->name, option->value, problem, sizeof(problem));
	}
	ok = ok && rinq_broker_check(broker, problem, sizeof(problem));
	if (!ok)
		snprintf(error, size, "server \"%s\" cannot be used: %s", configured.name, problem);
	return ok;
}

/* Read what says where the broker is. */
static bool
read_broker_options(RinqBroker *broker, char *error, size_t size)
{
	char		problem[RINQ_LAST_ERROR_LEN];

	if (configured.problem != NULL)
	{
		strlcpy(error, configured.problem, size);
		return false;
	}
	if (configured.name != NULL)
		return read_server_options(broker, error, size);
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
 * belongs to the address or the server, or else that of the setting, which is
 * not for servers.
 */
static bool
use_password_file(RinqBroker *broker, char *error, size_t size)
{
	bool		own = broker->passfile[0] != '\0';
	const char *path = own ? broker->passfile :
		configured.name == NULL ? rinq_amqp_password_file : NULL;
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
	if (read_broker_options(broker, error, size) && use_password_file(broker, error, size))
		return true;
	rinq_broker_wipe(broker);
	return false;
}
