/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The extension's settings: their definitions, checks and defaults.
 *
 * rinq.amqp_dsn holds a password, and PostgreSQL writes the values of changed
 * settings to the log and shows them in several views.  So the value that
 * PostgreSQL keeps is always the same placeholder; the real one travels in
 * the setting's "extra" data, and SHOW prints it without its credentials.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "guc.h"

#include "base/broker.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

/* what PostgreSQL stores, logs and hands to parallel workers */
#define DSN_PLACEHOLDER "(hidden)"

int			rinq_max_databases = 8;
bool		rinq_start_suspended = false;
bool		rinq_standby = false;
int			rinq_max_calls = 1024;
int			rinq_payload_memory = 128;
const char *rinq_amqp_dsn = NULL;
const char *rinq_amqp_dsn_problem = NULL;
char		rinq_amqp_dsn_refused[1024] = "";
char	   *rinq_amqp_password_file = NULL;
int			rinq_amqp_heartbeat = 20;
int			rinq_amqp_connection_timeout = 10000;
int			rinq_command_workers = 4;
int			rinq_prefetch = 0;
int			rinq_redeclare_interval = 15000;
int			rinq_declare_exchanges = RINQ_DECLARE_ON;
int			rinq_session_prefetch = 64;
int			rinq_executor_idle_timeout = 60000;
int			rinq_max_namespaces = 10000;
int			rinq_max_payload = 16384;
int			rinq_max_async_calls = 256;
int			rinq_send_buffer = 32;
int			rinq_max_outbox = 1000000;
int			rinq_outbox_check_interval = 60;
int			rinq_send_attempts = 10;
int			rinq_retry_delay = 1000;
int			rinq_max_attempts = 5;
int			rinq_session_memory = 256;
int			rinq_buffer_notifications = 1000;
int			rinq_notification_memory = 64;
int			rinq_notification_retention = 3600;
int			rinq_session_cache = 32;
int			rinq_prune_interval = 180;
int			rinq_dead_letter_retention = 0;
int			rinq_dedup_retention = 86400;
int			rinq_key_retention = 86400;
int			rinq_result_retention = 86400;
int			rinq_source_retention = 86400;
int			rinq_mailbox_patience = 120000;
int			rinq_dedup_max_requests = 10000000;
int			rinq_dedup_max_size = 1024;
int			rinq_shutdown_timeout = 5000;
char	   *rinq_product = NULL;
char	   *rinq_databases = NULL;
int			rinq_default_timeout = 5000;
int			rinq_max_timeout = 0;
int			rinq_handler_timeout = 0;
bool		rinq_validate_raw = true;

char	   *rinq_trace_setting = NULL;

static char *dsn_placeholder = NULL;

static const struct config_enum_entry declare_exchanges_options[] = {
	{"passive", RINQ_DECLARE_PASSIVE, false},
	{"on", RINQ_DECLARE_ON, false},
	{"true", RINQ_DECLARE_ON, true},
	{"yes", RINQ_DECLARE_ON, true},
	{"1", RINQ_DECLARE_ON, true},
	{NULL, 0, false}
};

/* the "extra" of rinq.amqp_dsn */
typedef struct DsnExtra
{
	bool		valid;
	char		text[FLEXIBLE_ARRAY_MEMBER];	/* the DSN, or what is wrong
												 * with it */
} DsnExtra;

static bool
set_dsn(char **newval, void **extra, bool valid, const char *text)
{
	DsnExtra   *secret = rinq_guc_malloc(offsetof(DsnExtra, text) + strlen(text) + 1);
	char	   *shown = rinq_guc_malloc(sizeof(DSN_PLACEHOLDER));

	if (secret == NULL || shown == NULL)
	{
		rinq_guc_free(secret);
		rinq_guc_free(shown);
		return false;
	}
	secret->valid = valid;
	strcpy(secret->text, text);
	strcpy(shown, DSN_PLACEHOLDER);
	rinq_guc_free(*newval);
	*newval = shown;
	*extra = secret;
	return true;
}

static bool
check_dsn(char **newval, void **extra, GucSource source)
{
	RinqBroker	broker;
	char		errbuf[512];

	/* a parallel worker is given the placeholder; it has no use for the DSN */
	if (strcmp(*newval, DSN_PLACEHOLDER) == 0)
		return true;

	if (rinq_broker_parse(*newval, &broker, errbuf, sizeof(errbuf)))
	{
		rinq_broker_wipe(&broker);
		rinq_amqp_dsn_refused[0] = '\0';
		return set_dsn(newval, extra, true, *newval);
	}

	/*
	 * When the server starts, there is no value that could stay in use but
	 * the default, with which peers would turn up at some other broker.
	 */
	if (process_shared_preload_libraries_in_progress)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"rinq.amqp_dsn\""),
				 errdetail_internal("%s", errbuf),
				 errhint("No peer connects to anything until the value is put right and the settings are reloaded.")));
		return set_dsn(newval, extra, false, errbuf);
	}

	/* a peer shows it, since PostgreSQL only writes it to the log */
	snprintf(rinq_amqp_dsn_refused, sizeof(rinq_amqp_dsn_refused),
			 "\"rinq.amqp_dsn\" stays what it was, since its new value is invalid: %s", errbuf);

	/* replaces PostgreSQL's own message, which would quote the value */
	GUC_check_errcode(ERRCODE_INVALID_PARAMETER_VALUE);
	GUC_check_errmsg("invalid value for parameter \"rinq.amqp_dsn\"");
	GUC_check_errdetail("%s", errbuf);
	return false;
}

static void
assign_dsn(const char *newval, void *extra)
{
	const DsnExtra *secret = extra;

	rinq_amqp_dsn = secret != NULL && secret->valid ? secret->text : NULL;
	rinq_amqp_dsn_problem = secret != NULL && !secret->valid ? secret->text : NULL;
}

static const char *
show_dsn(void)
{
	static char buf[1024];
	RinqBroker	broker;
	char		errbuf[512];

	if (rinq_amqp_dsn_problem != NULL)
		return "(invalid)";
	if (rinq_amqp_dsn == NULL ||
		!rinq_broker_parse(rinq_amqp_dsn, &broker, errbuf, sizeof(errbuf)))
		return DSN_PLACEHOLDER;
	strlcpy(buf, broker.sslmode == RINQ_SSL_DISABLE ? "amqp://" : "amqps://", sizeof(buf));
	rinq_broker_describe_all(&broker, buf + strlen(buf), sizeof(buf) - strlen(buf));
	rinq_broker_wipe(&broker);
	return buf;
}

static bool
check_trace_id(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && strlen(*newval) > RINQ_MAX_TRACE_LEN)
	{
		GUC_check_errdetail("A trace id may have up to %d bytes.", RINQ_MAX_TRACE_LEN);
		return false;
	}
	return true;
}

static bool
check_product(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && strlen(*newval) > 1000)
	{
		GUC_check_errdetail("The product name may have up to 1000 bytes.");
		return false;
	}
	return true;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *raw = pstrdup(*newval);
	List	   *names = NIL;
	bool		ok = SplitIdentifierString(raw, ',', &names);

	list_free(names);
	pfree(raw);
	if (!ok && strcmp(*newval, "*") != 0)
	{
		GUC_check_errdetail("It is a comma-separated list of database names, or \"*\".");
		return false;
	}
	return true;
}

/*
 * Return the size that a payload may have: every one has to fit into the
 * payload memory beside others on their way, or it would be waited for without
 * end.
 */
size_t
rinq_payload_limit(void)
{
	return Min((size_t) rinq_max_payload * 1024,
			   (size_t) rinq_payload_memory * 1024 * 1024 / 4);
}

bool
rinq_database_is_served(const char *datname)
{
	char	   *raw;
	List	   *names = NIL;
	ListCell   *lc;
	bool		found = false;

	if (rinq_databases == NULL || strcmp(rinq_databases, "*") == 0)
		return true;

	raw = pstrdup(rinq_databases);
	if (SplitIdentifierString(raw, ',', &names))
	{
		foreach(lc, names)
		{
			if (strcmp((const char *) lfirst(lc), datname) == 0)
				found = true;
		}
	}
	list_free(names);
	pfree(raw);
	return found;
}

/*
 * Define the sizes of shared memory, which only the server's start can choose.
 */
static void
define_server_settings(void)
{
	DefineCustomIntVariable("rinq.max_databases",
							"Sets the number of databases that can be Rinq peers at the same time.",
							NULL, &rinq_max_databases,
							8, 1, 256, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("rinq.start_suspended",
							 "Starts all databases suspended, until rinq_adopt() is called in each.",
							 "For servers that run from copies of others.",
							 &rinq_start_suspended,
							 false, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("rinq.standby",
							 "Runs peers on a standby, which serve the namespaces whose listeners say so.",
							 "Their handlers only read; what is to be written, or sent durably, is refused.",
							 &rinq_standby,
							 false, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_calls",
							"Sets the number of calls that one database can have in flight.",
							"Further calls are refused until one has ended.",
							&rinq_max_calls,
							1024, 16, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.payload_memory",
							"Sets the shared memory set aside for messages too large for a fixed slot.",
							"It holds the payloads on their way between backends, peers and executors.",
							&rinq_payload_memory,
							128, 8, 65536, PGC_POSTMASTER, GUC_UNIT_MB, NULL, NULL, NULL);
}

static void
define_network_settings(void)
{
	DefineCustomStringVariable("rinq.amqp_dsn",
							   "Sets the broker to connect to, as amqp://user:password@host:port/vhost.",
							   "SHOW prints it without user and password.",
							   &dsn_placeholder,
							   "amqp://localhost/", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY,
							   check_dsn, assign_dsn, show_dsn);
	DefineCustomStringVariable("rinq.amqp_password_file",
							   "Sets the file that holds the password for the broker.",
							   "Only the server's user may have access to it; relative paths start at the data directory.",
							   &rinq_amqp_password_file,
							   "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.amqp_heartbeat",
							"Sets the interval of heartbeats that the peer proposes to the broker.",
							"A broker that is silent for twice this time is taken for lost; 0 turns heartbeats off.",
							&rinq_amqp_heartbeat,
							20, 0, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.amqp_connection_timeout",
							"Sets the time that connecting to the broker may take, handshake included.",
							NULL, &rinq_amqp_connection_timeout,
							10000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("rinq.product",
							   "Sets the product name that the peer reports to the broker.",
							   NULL, &rinq_product,
							   "", PGC_SIGHUP, 0, check_product, NULL, NULL);
	DefineCustomStringVariable("rinq.databases",
							   "Sets the databases that may become Rinq peers.",
							   "A comma-separated list of names; \"*\" stands for all that have the extension.",
							   &rinq_databases,
							   "*", PGC_SIGHUP, 0, check_databases, NULL, NULL);
}

static void
define_work_settings(void)
{
	DefineCustomIntVariable("rinq.command_workers",
							"Sets the number of handlers that one database runs at the same time.",
							"Each needs one of max_worker_processes while it exists.",
							&rinq_command_workers,
							4, 1, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.prefetch",
							"Sets the number of requests of a namespace that the broker sends ahead.",
							"0 means four for each of rinq.command_workers.",
							&rinq_prefetch,
							0, 0, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.redeclare_interval",
							"Sets the time after which exchanges, queues and bindings are declared again.",
							"0 means never.",
							&rinq_redeclare_interval,
							15000, 0, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("rinq.declare_exchanges",
							 "Sets whether the exchanges of the network are declared, or only looked for.",
							 "With \"passive\", they have to be there.",
							 &rinq_declare_exchanges,
							 RINQ_DECLARE_ON, declare_exchanges_options, PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.session_prefetch",
							"Sets the number of responses, and of notifications, that the broker sends ahead.",
							NULL, &rinq_session_prefetch,
							64, 1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.executor_idle_timeout",
							"Sets the time after which an executor without work ends.",
							NULL, &rinq_executor_idle_timeout,
							60000, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_namespaces",
							"Sets the number of namespaces that one database can call.",
							"Each has a durable queue on the broker from its first call on.",
							&rinq_max_namespaces,
							10000, 1, 1000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_payload",
							"Sets the size that a payload may have, sent or received.",
							"At most a quarter of \"rinq.payload_memory\" is used.",
							&rinq_max_payload,
							16384, 1, 524288, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_async_calls",
							"Sets the number of asynchronous calls that one connection can have.",
							"The oldest result that was not awaited is dropped for a further one.",
							&rinq_max_async_calls,
							256, 1, 65536, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.session_memory",
							"Sets the memory for the sessions of one database.",
							"Of its peer; what would exceed it is refused.",
							&rinq_session_memory,
							256, 1, 1048576, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.notification_buffer",
							"Sets the number of notifications that are buffered for each session to fetch.",
							"The oldest is dropped for a further one.",
							&rinq_buffer_notifications,
							1000, 1, 1000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.notification_memory",
							"Sets the memory of one database for notifications that are buffered for sessions to fetch.",
							"The session with the most makes room for further ones.",
							&rinq_notification_memory,
							64, 1, 1048576, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.notification_retention",
							"Sets how long notifications are stored that are too long for NOTIFY.",
							NULL, &rinq_notification_retention,
							3600, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.session_cache",
							"Sets the memory for what is known about sessions of other peers.",
							"What was used least recently is forgotten first.",
							&rinq_session_cache,
							32, 0, 1048576, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.prune_interval",
							"Sets how often unused sessions of other peers are forgotten.",
							"Those that were not used for twice this time.",
							&rinq_prune_interval,
							180, 1, 86400, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.send_buffer",
							"Sets the memory for messages that were committed, and are not sent yet.",
							"It is part of \"rinq.payload_memory\", for each database; and limits what one transaction can send from memory.",
							&rinq_send_buffer,
							32, 1, 65536, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_outbox",
							"Sets the number of durable messages that can wait to be sent.",
							"rinq_execute refuses further ones.",
							&rinq_max_outbox,
							1000000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.key_retention",
							"Sets how long it is remembered that a key was used for a message.",
							"The second use of a key in that time sends nothing.",
							&rinq_key_retention,
							86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.outbox_check_interval",
							"Sets how often the outbox is compared with what the peer knows of it.",
							"While nothing is sent and nothing waits, a tenth as often.",
							&rinq_outbox_check_interval,
							60, 1, 86400, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.send_attempts",
							"Sets how often a durable message is sent that the broker does not take.",
							"Then it is set aside, and shown by the view rinq_outbox_dead_letter.",
							&rinq_send_attempts,
							10, 1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.retry_delay",
							"Sets the time until the second attempt; it doubles with each further one.",
							NULL, &rinq_retry_delay,
							1000, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_attempts",
							"Sets how often a request is handled that the broker keeps delivering.",
							"Then it is answered with an error and kept in rinq_inbox_dead_letter; 0 is no limit.",
							&rinq_max_attempts,
							5, 0, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.dead_letter_retention",
							"Sets how long requests are kept that were set aside.",
							"In rinq_inbox_dead_letter; 0 is until they are deleted.",
							&rinq_dead_letter_retention,
							0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.dedup_retention",
							"Sets how long it is remembered that a request was handled.",
							"Of listeners that deduplicate; and how long attempts are counted.",
							&rinq_dedup_retention,
							86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.dedup_max_requests",
							"Sets the number of requests that one database remembers as handled.",
							"Roughly; the oldest are forgotten for further ones.",
							&rinq_dedup_max_requests,
							10000000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.dedup_max_size",
							"Sets the size of all responses that one database keeps of handled requests.",
							"Roughly; the oldest are dropped for further ones, and the requests still remembered.",
							&rinq_dedup_max_size,
							1024, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.shutdown_timeout",
							"Sets the time that running handlers have to end when the peer stops.",
							"Then they are rolled back, and their requests given back to the broker.",
							&rinq_shutdown_timeout,
							5000, 0, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("rinq.trace_id",
							   "Sets the trace id of messages sent by this session.",
							   "When empty, it is that of the request being handled, or the message's own id.",
							   &rinq_trace_setting,
							   "", PGC_USERSET, 0, check_trace_id, NULL, NULL);
	DefineCustomIntVariable("rinq.default_timeout",
							"Sets the time a call waits for its response when none is given.",
							NULL, &rinq_default_timeout,
							5000, 1, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.max_timeout",
							"Sets the time that a call may wait for its response, whatever timeout it gives.",
							"0 is no limit.",
							&rinq_max_timeout,
							0, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.handler_timeout",
							"Sets the time that a handler may take whose listener has no timeout of its own.",
							"0 is no limit.",
							&rinq_handler_timeout,
							0, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("rinq.validate_raw",
							 "Checks that raw payloads are well-formed CBOR, sent or received.",
							 NULL, &rinq_validate_raw,
							 true, PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_durable_settings(void)
{
	DefineCustomIntVariable("rinq.result_retention",
							"Sets how long the outcome of a durable call is kept that has no handler.",
							NULL, &rinq_result_retention,
							86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.source_retention",
							"Sets how long the attributes of a durable message are kept after it is settled.",
							"One that is executed is settled when the broker has it, a call when it has an outcome.",
							&rinq_source_retention,
							86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rinq.mailbox_patience",
							"Sets how long another server may have this database's mailbox until it takes another one.",
							"It has to be longer than a broker takes to notice that a connection is lost.",
							&rinq_mailbox_patience,
							120000, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

void
rinq_define_settings(void)
{
	/* without preloading, nothing would use these, and they cannot be added */
	if (process_shared_preload_libraries_in_progress)
		define_server_settings();
	define_network_settings();
	define_work_settings();
	define_durable_settings();
	MarkGUCPrefixReserved("rinq");
}
