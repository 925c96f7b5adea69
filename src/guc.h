/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The extension's settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_GUC_H
#define RINQ_GUC_H

#include "postgres.h"

/* fixed at server start */
extern int	rinq_max_databases;
extern bool rinq_start_suspended;
extern bool rinq_standby;
extern int	rinq_max_calls;
extern int	rinq_payload_memory;	/* MB */

/* reloadable */
extern const char *rinq_amqp_dsn;	/* with its password: never print it */
extern const char *rinq_amqp_dsn_problem;	/* why there is none, or NULL */
extern char rinq_amqp_dsn_refused[];	/* why a reloaded value is not used;
										 * empty: it is */
extern char *rinq_amqp_password_file;	/* empty: the password is in the DSN */
extern int	rinq_amqp_heartbeat;	/* s */
extern int	rinq_amqp_connection_timeout;	/* ms */
extern int	rinq_command_workers;
extern int	rinq_prefetch;
extern int	rinq_redeclare_interval;
extern int	rinq_declare_exchanges;
extern int	rinq_session_prefetch;
extern int	rinq_executor_idle_timeout; /* ms */
extern int	rinq_max_namespaces;
extern int	rinq_max_payload;	/* kB */
extern int	rinq_max_async_calls;
extern int	rinq_session_memory;	/* MB */
extern int	rinq_buffer_notifications;
extern int	rinq_notification_memory;	/* MB */
extern int	rinq_notification_retention;	/* s */
extern int	rinq_session_cache; /* MB */
extern int	rinq_prune_interval;	/* s */
extern int	rinq_send_buffer;	/* MB */
extern int	rinq_max_outbox;
extern int	rinq_outbox_check_interval; /* s */
extern int	rinq_send_attempts;
extern int	rinq_retry_delay;	/* ms */
extern int	rinq_max_attempts;
extern int	rinq_dead_letter_retention; /* s; 0 is for ever */
extern int	rinq_dedup_retention;	/* s */
extern int	rinq_key_retention; /* s */
extern int	rinq_result_retention;	/* s */
extern int	rinq_source_retention;	/* s */
extern int	rinq_mailbox_patience;	/* ms */
extern int	rinq_dedup_max_requests;
extern int	rinq_dedup_max_size;	/* MB */
extern int	rinq_shutdown_timeout;	/* ms */
extern char *rinq_product;
extern char *rinq_databases;

/* what rinq_declare_exchanges says */
typedef enum RinqDeclareExchanges
{
	RINQ_DECLARE_PASSIVE,		/* the exchanges have to exist */
	RINQ_DECLARE_ON
} RinqDeclareExchanges;

/* bytes of a trace id, which travels in a property */
#define RINQ_MAX_TRACE_LEN 255

/* per session */
extern int	rinq_default_timeout;	/* ms */
extern int	rinq_max_timeout;	/* ms; 0 is none */
extern int	rinq_handler_timeout;	/* ms; 0 is none */
extern char *rinq_trace_setting;	/* NULL or empty: none */
extern bool rinq_validate_raw;

extern void rinq_define_settings(void);

/* bytes a payload may have, in either direction */
extern size_t rinq_payload_limit(void);

/* tell whether rinq.databases lets the extension serve this database */
extern bool rinq_database_is_served(const char *datname);

#endif							/* RINQ_GUC_H */
