/*-------------------------------------------------------------------------
 *
 * listener_config.c
 *	  Handing the listeners and durable subscriptions of a database from the
 *	  reader to the peer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "guc.h"
#include "ipc/listener_config.h"
#include "lib/stringinfo.h"

static void
append_config_text(StringInfo buf, const char *text)
{
	uint32		len = text == NULL ? PG_UINT32_MAX : (uint32) strlen(text);

	appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
	if (text != NULL)
		appendBinaryStringInfo(buf, text, (int) len);
}

static const char *
take_config_bytes(const char **p, const char *end, size_t len)
{
	const char *start = *p;

	Assert(start <= end);
	if ((size_t) (end - start) < len)
		elog(ERROR, "corrupt configuration in rinq's shared memory");
	*p += len;
	return start;
}

static char *
take_text(const char **p, const char *end)
{
	uint32		len;

	memcpy(&len, take_config_bytes(p, end, sizeof(len)), sizeof(len));
	if (len == PG_UINT32_MAX)
		return NULL;
	return pnstrdup(take_config_bytes(p, end, len), len);
}

static void
append_listener(StringInfo buf, const RinqListener *listener)
{
	appendBinaryStringInfo(buf, (const char *) &listener->role, sizeof(Oid));
	appendBinaryStringInfo(buf, (const char *) &listener->owner, sizeof(Oid));
	appendBinaryStringInfo(buf, (const char *) &listener->max_concurrent, sizeof(int32));
	appendStringInfoChar(buf, listener->deduplicate ? 1 : 0);
	append_config_text(buf, listener->namespace);
	append_config_text(buf, listener->handler);
	append_config_text(buf, listener->problem);
}

static void
take_listener(const char **p, const char *end, RinqListener *listener)
{
	memcpy(&listener->role, take_config_bytes(p, end, sizeof(Oid)), sizeof(Oid));
	memcpy(&listener->owner, take_config_bytes(p, end, sizeof(Oid)), sizeof(Oid));
	memcpy(&listener->max_concurrent, take_config_bytes(p, end, sizeof(int32)), sizeof(int32));
	listener->deduplicate = *take_config_bytes(p, end, 1) != 0;
	listener->namespace = take_text(p, end);
	listener->handler = take_text(p, end);
	listener->problem = take_text(p, end);
}

/*
 * Write a configuration into the payload area.
 */
dsa_pointer
rinq_config_pack(const RinqConfig *config)
{
	StringInfoData buf;
	ListCell   *lc;
	uint32		total = 0;
	uint32		count = (uint32) list_length(config->listeners);
	dsa_pointer result;
	Size		limit = (Size) rinq_payload_memory * 1024 * 1024 / 4;
	int			left_out = 0;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (char *) &total, sizeof(total));
	appendBinaryStringInfo(&buf, (char *) &count, sizeof(count));
	foreach(lc, config->listeners)
		append_listener(&buf, lfirst(lc));
	foreach(lc, config->durable)
	{
		RinqDurableSubscription *durable = lfirst(lc);
		uint32		len = (uint32) durable->attributes.len;

		/* without a configuration, listeners would not be served either */
		if (buf.len + durable->attributes.len > limit)
		{
			left_out++;
			continue;
		}
		append_config_text(&buf, durable->name);
		append_listener(&buf, &durable->listener);
		appendBinaryStringInfo(&buf, (char *) &len, sizeof(len));
		if (len > 0)
			appendBinaryStringInfo(&buf, durable->attributes.data, (int) len);
	}
	if (left_out > 0)
		ereport(LOG,
				(errmsg("rinq leaves out %d subscriptions", left_out),
				 errdetail("All subscriptions together may take a quarter of \"rinq.payload_memory\".")));
	total = (uint32) buf.len;
	memcpy(buf.data, &total, sizeof(total));

	result = dsa_allocate_extended(rinq_dsa(), total, DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("no room for the configuration in rinq's payload memory"),
				 errhint("Increase \"rinq.payload_memory\".")));
	Assert(total >= sizeof(total) + sizeof(count));
	memcpy(dsa_get_address(rinq_dsa(), result), buf.data, total);
	pfree(buf.data);
	return result;
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
		if (db->identities.suspended != RINQ_NOT_SUSPENDED)
			db->stop = true;	/* the launcher sees to the rest */
	}
	name = db->name;
	LWLockRelease(rinq_shared->lock);

	if (DsaPointerIsValid(unused))
		dsa_free(rinq_dsa(), unused);
	if (resumed && reading->presence == RINQ_PRESENT)
		ereport(LOG,
				(errmsg("rinq does not suspend database \"%s\" any more",
						NameStr(name))));
	ConditionVariableBroadcast(&db->changed);
	rinq_wake_launcher();
	rinq_wake_peer(db);
}

/*
 * Read the newest configuration into the current memory context, and its
 * serial number.
 */
void
rinq_config_fetch(RinqDatabase *db, RinqConfig *config, uint32 *serial)
{
	char	   *copy = NULL;
	uint32		total = 0;
	uint32		count;
	const char *p;
	const char *end;

	config->listeners = NIL;
	config->durable = NIL;
	LWLockAcquire(rinq_shared->lock, LW_SHARED);
	*serial = db->config_serial;
	if (DsaPointerIsValid(db->config))
	{
		const char *packed = dsa_get_address(rinq_dsa(), db->config);

		memcpy(&total, packed, sizeof(total));
		copy = palloc(total);
		memcpy(copy, packed, total);
	}
	LWLockRelease(rinq_shared->lock);
	if (copy == NULL)
		return;

	p = copy + sizeof(total);
	end = copy + total;
	memcpy(&count, take_config_bytes(&p, end, sizeof(count)), sizeof(count));
	for (; count > 0; count--)
	{
		RinqListener *listener = palloc(sizeof(RinqListener));

		take_listener(&p, end, listener);
		config->listeners = lappend(config->listeners, listener);
	}
	while (p < end)
	{
		RinqDurableSubscription *durable = palloc(sizeof(RinqDurableSubscription));
		uint32		len;

		durable->name = take_text(&p, end);
		take_listener(&p, end, &durable->listener);
		memcpy(&len, take_config_bytes(&p, end, sizeof(len)), sizeof(len));
		durable->attributes = rinq_bytes(palloc(len + 1), len);
		if (len > 0)
			memcpy((char *) durable->attributes.data, take_config_bytes(&p, end, len), len);
		config->durable = lappend(config->durable, durable);
	}
	pfree(copy);
}
