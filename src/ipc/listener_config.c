/*-------------------------------------------------------------------------
 *
 * listener_config.c
 *	  Handing the listeners and durable subscriptions of a database, and the
 *	  options of its broker, from the reader to the peer.
 *
 * Overwrite what has held a password before it is given back: memory of the
 * payload area is used again for messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/listener_config.h"
#include "lib/stringinfo.h"
#include "protocol/packed.h"

/* a configuration in the payload area: three lists, one behind the other */
typedef struct PackedConfig
{
	uint32		listeners;		/* bytes of each */
	uint32		subscriptions;
	uint32		server;
	RinqPeerId	mailbox;
	bool		mailbox_used;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} PackedConfig;

static RinqBytes
config_text_bytes(const char *text)
{
	return text == NULL ? rinq_bytes(NULL, 0) : rinq_bytes_str(text);
}

/* Copy a text; return NULL when it is absent. */
static char *
copy_config_text(const RinqFields *fields, int field)
{
	RinqBytes	text = rinq_get_bytes(fields, field);

	return text.data == NULL ? NULL : pnstrdup(text.data, text.len);
}

/* Copy bytes; they are absent when they were. */
static RinqBytes
copy_config_bytes(const RinqFields *fields, int field)
{
	RinqBytes	bytes = rinq_get_bytes(fields, field);
	char	   *copy;

	if (bytes.data == NULL)
		return bytes;
	copy = palloc(bytes.len);
	memcpy(copy, bytes.data, bytes.len);
	return rinq_bytes(copy, bytes.len);
}

static void
put_policy(RinqFields *fields, int field, const RinqRetryPolicy *policy)
{
	rinq_put_fixed(fields, field, RINQ_FIELD_BYTES, policy, sizeof(*policy));
}

/* Get a policy; none when it is absent. */
static void
get_policy(const RinqFields *fields, int field, RinqRetryPolicy *policy)
{
	if (!rinq_get_fixed(fields, field, RINQ_FIELD_BYTES, policy, sizeof(*policy)))
		memset(policy, 0, sizeof(*policy));
}

static void
pack_listener(StringInfo list, const RinqListener *listener)
{
	RinqFields	fields;

	rinq_fields_init(&fields, RINQ_KIND_LISTENER);
	rinq_put_bytes(&fields, RINQ_LISTENER_NAMESPACE, config_text_bytes(listener->namespace));
	rinq_put_bytes(&fields, RINQ_LISTENER_HANDLER, config_text_bytes(listener->handler));
	rinq_put_oid(&fields, RINQ_LISTENER_ROLE, listener->role);
	rinq_put_oid(&fields, RINQ_LISTENER_OWNER, listener->owner);
	rinq_put_uint32(&fields, RINQ_LISTENER_MAX_CONCURRENT, (uint32) listener->max_concurrent);
	rinq_put_flag(&fields, RINQ_LISTENER_DEDUPLICATE, listener->deduplicate);
	rinq_put_uint32(&fields, RINQ_LISTENER_TIMEOUT, (uint32) listener->timeout);
	put_policy(&fields, RINQ_LISTENER_RETRY, &listener->retry);
	rinq_put_int64(&fields, RINQ_LISTENER_DUE, listener->due);
	rinq_put_bytes(&fields, RINQ_LISTENER_ORDER_BY, listener->order_by);
	rinq_put_bytes(&fields, RINQ_LISTENER_PROBLEM, config_text_bytes(listener->problem));
	rinq_fields_append(list, &fields);
}

static RinqListener *
unpack_listener(RinqBytes *list)
{
	RinqListener *listener = palloc0(sizeof(RinqListener));
	RinqFields	fields;

	if (!rinq_fields_read(&fields, RINQ_KIND_LISTENER, list))
		elog(ERROR, "corrupt configuration in rinq's shared memory");
	listener->namespace = copy_config_text(&fields, RINQ_LISTENER_NAMESPACE);
	listener->handler = copy_config_text(&fields, RINQ_LISTENER_HANDLER);
	listener->role = rinq_get_oid(&fields, RINQ_LISTENER_ROLE);
	listener->owner = rinq_get_oid(&fields, RINQ_LISTENER_OWNER);
	listener->max_concurrent = (int32) rinq_get_uint32(&fields, RINQ_LISTENER_MAX_CONCURRENT);
	listener->deduplicate = rinq_get_flag(&fields, RINQ_LISTENER_DEDUPLICATE);
	listener->timeout = (int32) rinq_get_uint32(&fields, RINQ_LISTENER_TIMEOUT);
	get_policy(&fields, RINQ_LISTENER_RETRY, &listener->retry);
	listener->due = rinq_get_int64(&fields, RINQ_LISTENER_DUE);
	listener->order_by = copy_config_bytes(&fields, RINQ_LISTENER_ORDER_BY);
	listener->problem = copy_config_text(&fields, RINQ_LISTENER_PROBLEM);
	return listener;
}

static void
pack_subscription(StringInfo list, const RinqDurableSubscription *subscription)
{
	const RinqListener *listener = &subscription->listener;
	RinqFields	fields;

	rinq_fields_init(&fields, RINQ_KIND_SUBSCRIPTION);
	rinq_put_bytes(&fields, RINQ_SUBSCRIPTION_NAME, config_text_bytes(subscription->name));
	rinq_put_bytes(&fields, RINQ_SUBSCRIPTION_NAMESPACE, config_text_bytes(listener->namespace));
	rinq_put_bytes(&fields, RINQ_SUBSCRIPTION_HANDLER, config_text_bytes(listener->handler));
	rinq_put_oid(&fields, RINQ_SUBSCRIPTION_ROLE, listener->role);
	rinq_put_oid(&fields, RINQ_SUBSCRIPTION_OWNER, listener->owner);
	rinq_put_bytes(&fields, RINQ_SUBSCRIPTION_PROBLEM, config_text_bytes(listener->problem));
	rinq_put_bytes(&fields, RINQ_SUBSCRIPTION_ATTRIBUTES, subscription->attributes);
	put_policy(&fields, RINQ_SUBSCRIPTION_RETRY, &listener->retry);
	rinq_put_int64(&fields, RINQ_SUBSCRIPTION_DUE, listener->due);
	rinq_fields_append(list, &fields);
}

static RinqDurableSubscription *
unpack_subscription(RinqBytes *list)
{
	RinqDurableSubscription *subscription = palloc0(sizeof(RinqDurableSubscription));
	RinqListener *listener = &subscription->listener;
	RinqFields	fields;

	if (!rinq_fields_read(&fields, RINQ_KIND_SUBSCRIPTION, list))
		elog(ERROR, "corrupt configuration in rinq's shared memory");
	subscription->name = copy_config_text(&fields, RINQ_SUBSCRIPTION_NAME);
	listener->namespace = copy_config_text(&fields, RINQ_SUBSCRIPTION_NAMESPACE);
	listener->handler = copy_config_text(&fields, RINQ_SUBSCRIPTION_HANDLER);
	listener->role = rinq_get_oid(&fields, RINQ_SUBSCRIPTION_ROLE);
	listener->owner = rinq_get_oid(&fields, RINQ_SUBSCRIPTION_OWNER);
	listener->problem = copy_config_text(&fields, RINQ_SUBSCRIPTION_PROBLEM);
	get_policy(&fields, RINQ_SUBSCRIPTION_RETRY, &listener->retry);
	listener->due = rinq_get_int64(&fields, RINQ_SUBSCRIPTION_DUE);
	subscription->attributes = copy_config_bytes(&fields, RINQ_SUBSCRIPTION_ATTRIBUTES);
	return subscription;
}

static void
pack_server(StringInfo list, const RinqServerConfig *server)
{
	RinqFields	fields;
	ListCell   *lc;

	rinq_fields_init(&fields, RINQ_KIND_SERVER);
	rinq_put_bytes(&fields, RINQ_SERVER_NAME, config_text_bytes(server->name));
	rinq_put_bytes(&fields, RINQ_SERVER_PROBLEM, config_text_bytes(server->problem));
	rinq_fields_append(list, &fields);
	foreach(lc, server->options)
	{
		const RinqServerOption *option = lfirst(lc);

		rinq_fields_init(&fields, RINQ_KIND_SERVER_OPTION);
		rinq_put_bytes(&fields, RINQ_SERVER_OPTION_NAME, config_text_bytes(option->name));
		rinq_put_bytes(&fields, RINQ_SERVER_OPTION_VALUE, config_text_bytes(option->value));
		rinq_fields_append(list, &fields);
	}
}

static RinqServerOption *
unpack_server_option(RinqBytes *list)
{
	RinqServerOption *option = palloc0(sizeof(RinqServerOption));
	RinqFields	fields;

	if (!rinq_fields_read(&fields, RINQ_KIND_SERVER_OPTION, list))
		elog(ERROR, "corrupt configuration in rinq's shared memory");
	option->name = copy_config_text(&fields, RINQ_SERVER_OPTION_NAME);
	option->value = copy_config_text(&fields, RINQ_SERVER_OPTION_VALUE);
	return option;
}

static void
unpack_server(RinqBytes *list, RinqServerConfig *server)
{
	RinqFields	fields;

	if (!rinq_fields_read(&fields, RINQ_KIND_SERVER, list))
		elog(ERROR, "corrupt configuration in rinq's shared memory");
	server->name = copy_config_text(&fields, RINQ_SERVER_NAME);
	server->problem = copy_config_text(&fields, RINQ_SERVER_PROBLEM);
	while (list->len > 0)
		server->options = lappend(server->options, unpack_server_option(list));
}

/*
 * Pack the listeners, and the subscriptions as far as there is room for them:
 * without a configuration, listeners would not be served either.
 */
static void
pack_lists(const RinqConfig *config, StringInfo listeners, StringInfo subscriptions)
{
	Size		limit = (Size) rinq_payload_memory * 1024 * 1024 / 4;
	int			left_out = 0;
	ListCell   *lc;

	foreach(lc, config->listeners)
		pack_listener(listeners, lfirst(lc));
	foreach(lc, config->durable)
	{
		const RinqDurableSubscription *subscription = lfirst(lc);

		if ((Size) listeners->len + subscriptions->len + subscription->attributes.len > limit)
			left_out++;
		else
			pack_subscription(subscriptions, subscription);
	}
	if (left_out > 0)
		ereport(LOG,
				(errmsg("rinq leaves out %d subscriptions", left_out),
				 errdetail("All subscriptions together may take a quarter of \"rinq.payload_memory\".")));
}

/*
 * Writes a configuration into the payload area.
 */
dsa_pointer
rinq_config_pack(const RinqConfig *config)
{
	StringInfoData listeners;
	StringInfoData subscriptions;
	StringInfoData server;
	PackedConfig *packed;
	dsa_pointer result;

	initStringInfo(&listeners);
	initStringInfo(&subscriptions);
	initStringInfo(&server);
	pack_lists(config, &listeners, &subscriptions);
	pack_server(&server, &config->server);
	result = dsa_allocate_extended(rinq_dsa(),
								   offsetof(PackedConfig, data) + listeners.len + subscriptions.len + server.len,
								   DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("no room for the configuration in rinq's payload memory"),
				 errhint("Increase \"rinq.payload_memory\".")));
	packed = dsa_get_address(rinq_dsa(), result);
	packed->listeners = (uint32) listeners.len;
	packed->subscriptions = (uint32) subscriptions.len;
	packed->server = (uint32) server.len;
	packed->mailbox = config->mailbox;
	packed->mailbox_used = config->mailbox_used;
	memcpy(packed->data, listeners.data, listeners.len);
	memcpy(packed->data + listeners.len, subscriptions.data, subscriptions.len);
	memcpy(packed->data + listeners.len + subscriptions.len, server.data, server.len);
	explicit_bzero(server.data, server.len);
	pfree(listeners.data);
	pfree(subscriptions.data);
	pfree(server.data);
	return result;
}

static Size
packed_config_size(const PackedConfig *packed)
{
	return offsetof(PackedConfig, data) + (Size) packed->listeners + packed->subscriptions + packed->server;
}

/*
 * Give back a configuration that no process reads any more.
 */
void
rinq_config_free(dsa_pointer config)
{
	PackedConfig *packed;

	if (!DsaPointerIsValid(config))
		return;
	packed = dsa_get_address(rinq_dsa(), config);
	explicit_bzero(packed, packed_config_size(packed));
	dsa_free(rinq_dsa(), config);
}

/*
 * Make a reading of the catalog known to the launcher and the peer.
 */
void
rinq_config_publish(RinqDatabase *db, Oid dboid, const RinqReading *reading)
{
	dsa_pointer unused = reading->config;
	NameData	name;
	bool		resumed = false;

	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (db->oid == dboid)
	{
		unused = db->config;
		db->config = reading->config;
		db->config_serial++;
		/* "absent" may be out of date already, when more is wanted */
		db->presence = reading->presence == RINQ_ABSENT && reading->as_of != db->read_wanted ?
			RINQ_UNKNOWN : reading->presence;
		db->read_done = reading->as_of;
		resumed = db->identities.suspended != RINQ_NOT_SUSPENDED &&
			reading->identities.suspended == RINQ_NOT_SUSPENDED;
		db->identities = reading->identities;
		if (db->presence == RINQ_ABSENT || db->identities.suspended != RINQ_NOT_SUSPENDED)
			db->stop = true;	/* the launcher sees to the rest */
	}
	name = db->name;
	LWLockRelease(rinq_shared->lock);

	rinq_config_free(unused);
	if (resumed && reading->presence == RINQ_PRESENT)
		ereport(LOG,
				(errmsg("rinq does not suspend database \"%s\" any more",
						NameStr(name))));
	ConditionVariableBroadcast(&db->changed);
	rinq_wake_launcher();
	rinq_wake_peer(db);
}

/* Return the packed configuration, NULL when there is none, and its serial; the lock is held. */
static const PackedConfig *
newest_packed_config(RinqDatabase *db, uint32 *serial, Size *size)
{
	const PackedConfig *packed;

	Assert(LWLockHeldByMe(rinq_shared->lock));
	*serial = db->config_serial;
	*size = 0;
	if (!DsaPointerIsValid(db->config))
		return NULL;
	packed = dsa_get_address(rinq_dsa(), db->config);
	*size = packed_config_size(packed);
	return packed;
}

/*
 * Copy the newest configuration; return NULL when there is none.  What it needs
 * is allocated without the lock, and the copy is made unless that is too little
 * by then.
 */
static PackedConfig *
copy_packed_config(RinqDatabase *db, uint32 *serial)
{
	PackedConfig *copy = NULL;
	Size		room = 0;
	Size		size;

	(void) rinq_dsa();			/* attaching allocates, too */
	for (;;)
	{
		const PackedConfig *packed;

		LWLockAcquire(rinq_shared->lock, LW_SHARED);
		packed = newest_packed_config(db, serial, &size);
		if (packed != NULL && size <= room)
			memcpy(copy, packed, size);
		LWLockRelease(rinq_shared->lock);
		if (packed != NULL && size <= room)
			return copy;
		if (copy != NULL)
			pfree(copy);
		if (packed == NULL)
			return NULL;
		copy = palloc(size);
		room = size;
	}
}

/*
 * Read the newest configuration into the current memory context, and its serial
 * number; false when there is none, since the database is not to be served.
 */
bool
rinq_config_fetch(RinqDatabase *db, RinqConfig *config, uint32 *serial)
{
	PackedConfig *packed = copy_packed_config(db, serial);
	RinqBytes	list;

	config->listeners = NIL;
	config->durable = NIL;
	memset(&config->server, 0, sizeof(config->server));
	memset(&config->mailbox, 0, sizeof(config->mailbox));
	config->mailbox_used = false;
	if (packed == NULL)
		return false;
	config->mailbox = packed->mailbox;
	config->mailbox_used = packed->mailbox_used;
	list = rinq_bytes(packed->data, packed->listeners);
	while (list.len > 0)
		config->listeners = lappend(config->listeners, unpack_listener(&list));
	list = rinq_bytes(packed->data + packed->listeners, packed->subscriptions);
	while (list.len > 0)
		config->durable = lappend(config->durable, unpack_subscription(&list));
	list = rinq_bytes(packed->data + packed->listeners + packed->subscriptions, packed->server);
	unpack_server(&list, &config->server);
	explicit_bzero(packed, packed_config_size(packed));
	pfree(packed);
	return true;
}
