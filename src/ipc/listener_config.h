/*-------------------------------------------------------------------------
 *
 * listener_config.h
 *	  What the reader found in a database, handed to the peer through shared
 *	  memory: the namespaces it listens to, its durable subscriptions, and
 *	  where its broker is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_IPC_LISTENER_CONFIG_H
#define RINQ_IPC_LISTENER_CONFIG_H

#include "postgres.h"

#include "base/bytes.h"
#include "ipc/shared.h"
#include "nodes/pg_list.h"
#include "protocol/retry_policy.h"

typedef struct RinqListener
{
	char	   *namespace;
	char	   *handler;		/* as the text of a regprocedure */
	char	   *channel;		/* of LISTEN and NOTIFY, in place of a handler */
	Oid			role;			/* that it runs as */
	Oid			owner;			/* of the function, when it was registered */
	int32		max_concurrent; /* requests that run at a time; 0 is no limit */
	bool		deduplicate;
	int32		timeout;		/* ms that a handler may take; 0: as the
								 * setting says */
	RinqRetryPolicy retry;		/* of commands, or of a subscription's
								 * notifications, that have failed */
	RinqBytes	order_by;		/* path of the value in a payload of which one
								 * is handled at a time, each element with a
								 * zero byte behind it; empty: of none */
	int64		due;			/* when the first one of these that waits in
								 * the inbox is due, on the monotonic clock; 0
								 * is none */
	char	   *problem;		/* why it cannot be served; NULL when it can */
} RinqListener;

/* bytes that the name of a subscription may have, and its attributes as text */
#define RINQ_MAX_SUBSCRIPTION_NAME 200
#define RINQ_MAX_SUBSCRIPTION_SIZE 65536

/* bytes of a path that requests are ordered by, in UTF-8, with those behind its elements */
#define RINQ_MAX_ORDER_BY 1000

/* a session that is made at each connect, and listens to notifications */
typedef struct RinqDurableSubscription
{
	char	   *name;
	RinqListener listener;		/* the subscription's namespace, and the
								 * function that handles them */
	RinqBytes	attributes;		/* of the session, in that namespace
								 * (protocol/attribute.h); absent: they cannot
								 * be sent, so that there is no session */
} RinqDurableSubscription;

/* an option of base/broker.h */
typedef struct RinqServerOption
{
	const char *name;
	const char *value;			/* in UTF-8; may be a secret */
} RinqServerOption;

/*
 * The foreign server that says where the broker is.  With neither a name nor a
 * problem there is none, and the settings say so.
 */
typedef struct RinqServerConfig
{
	char	   *name;
	char	   *problem;		/* why it cannot be used; NULL when it can */
	List	   *options;		/* of RinqServerOption; none with a problem */
} RinqServerConfig;

typedef struct RinqConfig
{
	List	   *listeners;		/* of RinqListener */
	List	   *durable;		/* of RinqDurableSubscription */
	RinqServerConfig server;
	RinqPeerId	mailbox;		/* of the database; zero is none */
	bool		mailbox_used;	/* something hangs on it */
} RinqConfig;

/* all that the reader finds in a database */
typedef struct RinqReading
{
	RinqPresence presence;
	dsa_pointer config;			/* packed; none of a database that is not
								 * served */
	RinqIdentities identities;
	uint32		as_of;			/* what read_wanted was before the catalog was
								 * read */
} RinqReading;

extern dsa_pointer rinq_config_pack(const RinqConfig *config);
extern void rinq_config_publish(RinqDatabase *db, Oid dboid, const RinqReading *reading);
extern void rinq_config_free(dsa_pointer config);
extern bool rinq_config_fetch(RinqDatabase *db, RinqConfig *config, uint32 *serial);

#endif							/* RINQ_IPC_LISTENER_CONFIG_H */
