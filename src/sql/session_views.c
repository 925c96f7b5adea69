/*-------------------------------------------------------------------------
 *
 * session_views.c
 *	  What the views rinq_sessions and rinq_session_attributes show.
 *
 * The peer tells of all sessions, in pages; those that are no business of the
 * current role are left out here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/parallel.h"
#include "backend/request_context.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "protocol/payload.h"
#include "sql/resultset.h"
#include "sql/session_ref.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rinq_list_sessions);
PG_FUNCTION_INFO_V1(rinq_list_attributes);
PG_FUNCTION_INFO_V1(rinq_list_subscriptions);

#define SESSION_COLUMNS 8
#define ATTRIBUTE_COLUMNS 7
#define SUBSCRIPTION_COLUMNS 2

/* take a fixed number of bytes off a page */
static void
take_page_bytes(RinqBytes *page, void *to, size_t len)
{
	if (page->len < len)
		elog(ERROR, "malformed list of sessions");
	memcpy(to, page->data, len);
	*page = rinq_bytes(page->data + len, page->len - len);
}

static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), role) || has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/*
 * Get the page behind a session, whose number becomes that of the last one on
 * it; its peer is that of all of them.  False when it is the last page.
 */
static bool
next_page(RinqOperation op, RinqSessionRef *session, RinqBytes *page)
{
	RinqOperationResult result;

	CHECK_FOR_INTERRUPTS();
	rinq_operate(op, session, NULL, &result);
	*page = result.payload;
	session->ref.session.seq = (uint32) strtoul(result.text, NULL, 10);
	return result.text[0] != '\0';
}

/*
 * Tell whether the peer is connected, and put its id into *session: without it
 * there are no sessions, and no reason to fail either.
 */
static bool
is_connected(RinqSessionRef *session)
{
	RinqDatabase *db;
	bool		connected;

	rinq_require_preloaded();
	memset(session, 0, sizeof(*session));
	session->text = "all";
	db = rinq_my_database();
	if (db == NULL)
		return false;
	SpinLockAcquire(&db->mutex);
	connected = db->status.net == RINQ_NET_CONNECTED;
	session->ref.session.peer = db->identity_id;
	SpinLockRelease(&db->mutex);
	return connected;
}

static Datum
id_datum(const RinqSessionRef *session, uint32 seq)
{
	RinqSessionId id = session->ref.session;
	char		text[RINQ_SESSION_ID_SIZE];

	id.seq = seq;
	rinq_session_id_format(&id, text, sizeof(text));
	return CStringGetTextDatum(text);
}

/* Take the namespaces that a session listens to. */
static Datum
take_namespaces(RinqBytes *page)
{
	uint32		count;
	Datum	   *names;
	uint32		i;

	take_page_bytes(page, &count, sizeof(count));
	if (count > page->len / sizeof(uint32))
		elog(ERROR, "malformed list of sessions");
	names = palloc(Max(count, 1) * sizeof(Datum));
	for (i = 0; i < count; i++)
	{
		uint32		len;

		take_page_bytes(page, &len, sizeof(len));
		if (len > page->len)
			elog(ERROR, "malformed list of sessions");
		names[i] = PointerGetDatum(cstring_to_text_with_len(page->data, (int) len));
		*page = rinq_bytes(page->data + len, page->len - len);
	}
	return PointerGetDatum(construct_array(names, (int) count, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_sessions(RinqResultSet *set, const RinqSessionRef *session, RinqBytes page)
{
	while (page.len > 0)
	{
		Datum		values[SESSION_COLUMNS];
		bool		nulls[SESSION_COLUMNS] = {false};
		uint32		seq;
		uint32		revision;
		Oid			role;
		int			pid;
		int			pending;
		int			kept;
		TimestampTz created;

		take_page_bytes(&page, &seq, sizeof(seq));
		take_page_bytes(&page, &revision, sizeof(revision));
		take_page_bytes(&page, &role, sizeof(role));
		take_page_bytes(&page, &pid, sizeof(pid));
		take_page_bytes(&page, &pending, sizeof(pending));
		take_page_bytes(&page, &kept, sizeof(kept));
		take_page_bytes(&page, &created, sizeof(created));
		values[6] = take_namespaces(&page);
		if (!may_see(role))
			continue;
		values[0] = id_datum(session, seq);
		values[1] = Int64GetDatum((int64) revision);
		values[2] = ObjectIdGetDatum(role);
		values[3] = Int32GetDatum(pid);
		nulls[3] = pid == 0;
		values[4] = TimestampTzGetDatum(created);
		values[5] = Int32GetDatum(pending);
		values[7] = Int32GetDatum(kept);
		rinq_resultset_put(set, values, nulls);
	}
}

/*
 * rinq_list_sessions() returns setof record
 *
 * The sessions of this peer that the current role may see.
 */
Datum
rinq_list_sessions(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqSessionRef session;
	RinqBytes	page;
	bool		more;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, SESSION_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	do
	{
		more = next_page(RINQ_OP_LIST_SESSIONS, &session, &page);
		put_sessions(&set, &session, page);
	} while (more);
	return (Datum) 0;
}

static void
put_attributes(RinqResultSet *set, const RinqSessionRef *session, RinqBytes page)
{
	while (page.len > 0)
	{
		Datum		values[ATTRIBUTE_COLUMNS];
		bool		nulls[ATTRIBUTE_COLUMNS] = {false};
		RinqBytes	namespace;
		RinqAttribute *attribute;
		uint32		seq;
		uint32		len;
		Oid			role;
		int			count;

		take_page_bytes(&page, &seq, sizeof(seq));
		take_page_bytes(&page, &role, sizeof(role));
		take_page_bytes(&page, &len, sizeof(len));
		if (len > page.len)
			elog(ERROR, "malformed list of sessions");
		namespace = rinq_bytes(page.data, len);
		page = rinq_bytes(page.data + len, page.len - len);
		take_page_bytes(&page, &len, sizeof(len));
		if (len > page.len ||
			!rinq_attributes_unpack(rinq_bytes(page.data, len), &attribute, &count) || count != 1)
			elog(ERROR, "malformed list of sessions");
		page = rinq_bytes(page.data + len, page.len - len);
		if (!may_see(role))
			continue;
		values[0] = id_datum(session, seq);
		values[1] = CStringGetTextDatum(rinq_text_from_wire(namespace));
		values[2] = CStringGetTextDatum(rinq_message_from_wire(attribute->key));
		values[3] = CStringGetTextDatum(rinq_message_from_wire(attribute->value));
		values[4] = BoolGetDatum(attribute->frozen);
		values[5] = Int64GetDatum((int64) attribute->created);
		values[6] = Int64GetDatum((int64) attribute->updated);
		rinq_resultset_put(set, values, nulls);
	}
}

/*
 * rinq_list_attributes() returns setof record
 *
 * Their attributes.
 */
Datum
rinq_list_attributes(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqSessionRef session;
	RinqBytes	page;
	bool		more;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, ATTRIBUTE_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	do
	{
		more = next_page(RINQ_OP_LIST_ATTRIBUTES, &session, &page);
		put_attributes(&set, &session, page);
	} while (more);
	return (Datum) 0;
}

/*
 * rinq_list_subscriptions() returns setof record
 *
 * The names of durable subscriptions that have a session, each with that; of
 * those that the current role may see.
 */
Datum
rinq_list_subscriptions(PG_FUNCTION_ARGS)
{
	RinqResultSet set;
	RinqSessionRef session;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, SUBSCRIPTION_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	rinq_operate(RINQ_OP_LIST_SUBSCRIPTIONS, &session, NULL, &result);
	while (result.payload.len > 0)
	{
		Datum		values[SUBSCRIPTION_COLUMNS];
		bool		nulls[SUBSCRIPTION_COLUMNS] = {false};
		uint32		len;
		uint32		seq;
		Oid			role;

		take_page_bytes(&result.payload, &len, sizeof(len));
		if (len > result.payload.len)
			elog(ERROR, "malformed list of subscriptions");
		values[0] = PointerGetDatum(cstring_to_text_with_len(result.payload.data, (int) len));
		result.payload = rinq_bytes(result.payload.data + len, result.payload.len - len);
		take_page_bytes(&result.payload, &seq, sizeof(seq));
		take_page_bytes(&result.payload, &role, sizeof(role));
		if (!may_see(role))
			continue;
		values[1] = id_datum(&session, seq);
		rinq_resultset_put(&set, values, nulls);
	}
	return (Datum) 0;
}
