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

/* take the first of a list that the peer has made */
static void
take_row(RinqBytes *list, RinqKind kind, RinqFields *fields)
{
	if (!rinq_fields_read(fields, kind, list))
		elog(ERROR, "malformed list of sessions");
}

static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), role) || has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/*
 * Get the page behind a session, whose number becomes that of the last one on
 * it.  False when it is the last page.
 */
static bool
next_page(RinqOperation op, const RinqSessionRef *session, uint32 *after, RinqBytes *page)
{
	RinqOperationInput input;
	RinqOperationResult result;

	CHECK_FOR_INTERRUPTS();
	memset(&input, 0, sizeof(input));
	input.after = *after;
	rinq_operate(op, session, &input, &result);
	*page = rinq_get_bytes(&result.fields, RINQ_OP_RESULT_ROWS);
	*after = rinq_get_uint32(&result.fields, RINQ_OP_RESULT_LAST);
	return *after != 0;
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
namespaces_datum(RinqBytes list)
{
	int			size = 16;
	int			count = 0;
	Datum	   *names = palloc(size * sizeof(Datum));

	while (list.len > 0)
	{
		RinqFields	fields;
		RinqBytes	name;

		take_row(&list, RINQ_KIND_NAMESPACE, &fields);
		name = rinq_get_bytes(&fields, RINQ_NAMESPACE_NAME);
		if (count == size)
		{
			size *= 2;
			names = repalloc(names, size * sizeof(Datum));
		}
		names[count++] = PointerGetDatum(cstring_to_text_with_len(name.data, (int) name.len));
	}
	return PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_sessions(RinqResultSet *set, const RinqSessionRef *session, RinqBytes page)
{
	while (page.len > 0)
	{
		Datum		values[SESSION_COLUMNS];
		bool		nulls[SESSION_COLUMNS] = {false};
		RinqFields	fields;
		Oid			role;
		uint32		pid;

		take_row(&page, RINQ_KIND_SESSION, &fields);
		role = rinq_get_oid(&fields, RINQ_SESSION_ROLE);
		if (!may_see(role))
			continue;
		pid = rinq_get_uint32(&fields, RINQ_SESSION_PID);
		values[0] = id_datum(session, rinq_get_uint32(&fields, RINQ_SESSION_NUMBER));
		values[1] = Int64GetDatum((int64) rinq_get_uint32(&fields, RINQ_SESSION_REVISION));
		values[2] = ObjectIdGetDatum(role);
		values[3] = Int32GetDatum((int32) pid);
		nulls[3] = pid == 0;
		values[4] = TimestampTzGetDatum(rinq_get_int64(&fields, RINQ_SESSION_CREATED));
		values[5] = Int32GetDatum((int32) rinq_get_uint32(&fields, RINQ_SESSION_PENDING));
		values[6] = namespaces_datum(rinq_get_bytes(&fields, RINQ_SESSION_NAMESPACES));
		values[7] = Int32GetDatum((int32) rinq_get_uint32(&fields, RINQ_SESSION_BUFFERED));
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
	uint32		after = 0;
	bool		more;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, SESSION_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	do
	{
		more = next_page(RINQ_OP_LIST_SESSIONS, &session, &after, &page);
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
		RinqFields	fields;
		RinqAttribute *attribute;
		int			count;

		take_row(&page, RINQ_KIND_SESSION_ATTRIBUTE, &fields);
		if (!rinq_attributes_unpack(rinq_get_bytes(&fields, RINQ_SESSION_ATTRIBUTE_ATTRIBUTE),
									&attribute, &count) || count != 1)
			elog(ERROR, "malformed list of sessions");
		if (!may_see(rinq_get_oid(&fields, RINQ_SESSION_ATTRIBUTE_ROLE)))
			continue;
		values[0] = id_datum(session, rinq_get_uint32(&fields, RINQ_SESSION_ATTRIBUTE_SESSION));
		values[1] = CStringGetTextDatum(rinq_text_from_wire(rinq_get_bytes(&fields,
																		   RINQ_SESSION_ATTRIBUTE_NAMESPACE)));
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
	uint32		after = 0;
	bool		more;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, ATTRIBUTE_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	do
	{
		more = next_page(RINQ_OP_LIST_ATTRIBUTES, &session, &after, &page);
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
	RinqBytes	list;

	rinq_refuse_parallel(fcinfo);
	rinq_resultset_begin(fcinfo, &set, SUBSCRIPTION_COLUMNS);
	if (!is_connected(&session))
		return (Datum) 0;
	rinq_operate(RINQ_OP_LIST_SUBSCRIPTIONS, &session, NULL, &result);
	list = rinq_get_bytes(&result.fields, RINQ_OP_RESULT_ROWS);
	while (list.len > 0)
	{
		Datum		values[SUBSCRIPTION_COLUMNS];
		bool		nulls[SUBSCRIPTION_COLUMNS] = {false};
		RinqFields	fields;
		RinqBytes	name;

		take_row(&list, RINQ_KIND_SUBSCRIBER, &fields);
		if (!may_see(rinq_get_oid(&fields, RINQ_SUBSCRIBER_ROLE)))
			continue;
		name = rinq_get_bytes(&fields, RINQ_SUBSCRIBER_NAME);
		values[0] = PointerGetDatum(cstring_to_text_with_len(name.data, (int) name.len));
		values[1] = id_datum(&session, rinq_get_uint32(&fields, RINQ_SUBSCRIBER_SESSION));
		rinq_resultset_put(&set, values, nulls);
	}
	return (Datum) 0;
}
