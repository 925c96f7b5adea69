/*-------------------------------------------------------------------------
 *
 * sql/session.c
 *	  Sessions in SQL: having them, reading and changing their attributes.
 *
 * Sessions are Rinq's, and not the database's: what is done to them is done at
 * once, and no rollback undoes it.  What is refused, and when it is tried
 * again, is session_ref.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "backend/handler_signature.h"
#include "backend/parallel.h"
#include "backend/request_context.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/request_end.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/listen.h"
#include "sql/resultset.h"
#include "sql/session_ref.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(rinq_session);
PG_FUNCTION_INFO_V1(rinq_session_create);
PG_FUNCTION_INFO_V1(rinq_session_destroy);
PG_FUNCTION_INFO_V1(rinq_session_revision);
PG_FUNCTION_INFO_V1(rinq_session_get);
PG_FUNCTION_INFO_V1(rinq_session_get_many);
PG_FUNCTION_INFO_V1(rinq_session_update);
PG_FUNCTION_INFO_V1(rinq_session_update_jsonb);
PG_FUNCTION_INFO_V1(rinq_session_update_text);
PG_FUNCTION_INFO_V1(rinq_session_clear);
PG_FUNCTION_INFO_V1(rinq_session_on_response);
PG_FUNCTION_INFO_V1(rinq_source_attribute);

/*
 * rinq_session() returns rinq_session_id
 *
 * The session of this connection, which is made by its first use, and ends
 * with the connection, or with that of the peer to the broker.
 */
Datum
rinq_session(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;

	rinq_refuse_parallel(fcinfo);
	rinq_session_ref_own(rinq_require_connection(rinq_clock_ms() + rinq_default_timeout), &session);
	PG_RETURN_DATUM(CStringGetTextDatum(session.text));
}

/*
 * rinq_session_create() returns rinq_session_id
 *
 * Makes a session that lives until it is destroyed, or the peer's connection
 * to the broker ends.  It belongs to the current role.
 */
Datum
rinq_session_create(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationResult result;
	RinqRef		ref;
	char		text[RINQ_SESSION_ID_SIZE];

	rinq_refuse_parallel(fcinfo);
	memset(&session, 0, sizeof(session));
	session.text = "new";
	rinq_operate(RINQ_OP_CREATE, &session, NULL, &result);
	if (!rinq_get_ref(&result.fields, RINQ_OP_RESULT_REF, &ref))
		elog(ERROR, "missing id of a session");
	rinq_session_id_format(&ref.session, text, sizeof(text));
	PG_RETURN_DATUM(CStringGetTextDatum(text));
}

/*
 * rinq_session_destroy(session text) returns void
 *
 * Destroys a session; at a revision, only if it still is at that one.
 */
Datum
rinq_session_destroy(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_ref_argument(fcinfo, 0, &session);
	rinq_change_session(RINQ_OP_DESTROY, &session, NULL, &result);
	PG_RETURN_VOID();
}

/*
 * rinq_session_revision(session text) returns rinq_revision
 *
 * The current revision of a session; of the one of a revision, too.
 */
Datum
rinq_session_revision(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_ref_argument(fcinfo, 0, &session);
	rinq_operate(RINQ_OP_REVISION, &session, NULL, &result);
	PG_RETURN_DATUM(rinq_operation_ref_datum(&result));
}

/*
 * Get attributes; false, if that may be, when a value at the revision is not
 * known any more.
 */
static bool
get_attributes(const RinqSessionRef *session, const char *namespace, RinqAttribute *keys, int count,
			   bool may_be_stale, RinqAttribute **attributes)
{
	RinqOperationInput input;
	RinqOperationResult result;
	int			got;

	memset(&input, 0, sizeof(input));
	input.namespace = namespace;
	input.attributes = keys;
	input.count = count;
	if (!may_be_stale)
		rinq_operate(RINQ_OP_GET, session, &input, &result);
	else if (!rinq_operate_unless_stale(RINQ_OP_GET, session, &input, &result))
		return false;
	if (!rinq_attributes_unpack(rinq_get_bytes(&result.fields, RINQ_OP_RESULT_ATTRIBUTES),
								attributes, &got) || got != count)
		elog(ERROR, "malformed attributes");
	return true;
}

/*
 * rinq_session_get(session text, namespace text, key text) returns text
 *
 * The value of an attribute, at a revision or now; empty when it has none.
 */
Datum
rinq_session_get(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	char	   *namespace;
	RinqAttribute key;
	RinqAttribute *found;

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_session_ref_argument(fcinfo, 0, &session);
	memset(&key, 0, sizeof(key));
	key.key = rinq_attribute_text(rinq_text_argument(fcinfo, 2, "key"), "key");
	(void) get_attributes(&session, namespace, &key, 1, false, &found);
	PG_RETURN_DATUM(CStringGetTextDatum(rinq_text_from_wire(found->value)));
}

/*
 * rinq_session_get_many(session text, namespace text, keys text[]) returns
 * setof rinq_attribute
 *
 * Several attributes, all as of the same revision, in the order of their keys.
 */
Datum
rinq_session_get_many(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	char	   *namespace;
	RinqResultSet set;
	RinqAttribute *keys;
	RinqAttribute *found;
	Datum	   *texts;
	bool	   *nulls;
	int			count;
	int			i;

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_session_ref_argument(fcinfo, 0, &session);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("keys must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT,
					  &texts, &nulls, &count);
	keys = palloc0(Max(count, 1) * sizeof(RinqAttribute));
	for (i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("keys must not be null")));
		keys[i].key = rinq_attribute_text(TextDatumGetCString(texts[i]), "key");
	}
	rinq_resultset_begin(fcinfo, &set, 3);
	if (count > 0)
		(void) get_attributes(&session, namespace, keys, count, false, &found);
	for (i = 0; i < count; i++)
	{
		Datum		values[3];
		bool		isnull[3] = {false, false, false};

		values[0] = CStringGetTextDatum(rinq_text_from_wire(found[i].key));
		values[1] = CStringGetTextDatum(rinq_text_from_wire(found[i].value));
		values[2] = BoolGetDatum(found[i].frozen);
		rinq_resultset_put(&set, values, isnull);
	}
	return (Datum) 0;
}

static Datum
update_session(const RinqSessionRef *session, const char *namespace, RinqAttribute *attributes, int count)
{
	RinqOperationInput input;
	RinqOperationResult result;

	memset(&input, 0, sizeof(input));
	input.namespace = namespace;
	input.attributes = attributes;
	input.count = count;
	rinq_change_session(RINQ_OP_UPDATE, session, &input, &result);
	return rinq_operation_ref_datum(&result);
}

/* Read an attribute of an array of them. */
static void
read_row_attribute(HeapTupleHeader row, RinqAttribute *attribute)
{
	Datum		value;
	bool		isnull;

	memset(attribute, 0, sizeof(*attribute));
	value = GetAttributeByNum(row, 1, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the key of an attribute must not be null")));
	attribute->key = rinq_attribute_text(TextDatumGetCString(value), "key");
	value = GetAttributeByNum(row, 2, &isnull);
	attribute->value = isnull ? rinq_bytes("", 0) :
		rinq_attribute_text(TextDatumGetCString(value), "value");
	value = GetAttributeByNum(row, 3, &isnull);
	attribute->frozen = !isnull && DatumGetBool(value);
}

/*
 * rinq_session_update(session text, namespace text, variadic attributes
 * rinq_attribute[]) returns rinq_revision
 *
 * Sets attributes.  Returns the revision that the session has after it.
 */
Datum
rinq_session_update(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	char	   *namespace;
	ArrayType  *array;
	RinqAttribute *attributes;
	TypeCacheEntry *type;
	Datum	   *rows;
	bool	   *nulls;
	int			count;
	int			i;

	rinq_refuse_parallel(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_session_ref_argument(fcinfo, 0, &session);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("attributes must not be null")));
	array = PG_GETARG_ARRAYTYPE_P(2);
	type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	deconstruct_array(array, ARR_ELEMTYPE(array), type->typlen, type->typbyval, type->typalign,
					  &rows, &nulls, &count);
	attributes = palloc(Max(count, 1) * sizeof(RinqAttribute));
	for (i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("attributes must not be null")));
		read_row_attribute(DatumGetHeapTupleHeader(rows[i]), &attributes[i]);
	}
	PG_RETURN_DATUM(update_session(&session, namespace, attributes, count));
}

static Datum
update_from_json(FunctionCallInfo fcinfo, Jsonb *json)
{
	RinqSessionRef session;
	char	   *namespace = rinq_namespace_argument(fcinfo, 1);
	RinqAttribute *attributes;
	JsonbIterator *iterator;
	JsonbValue	value;
	JsonbIteratorToken token;
	int			count = 0;

	rinq_session_ref_argument(fcinfo, 0, &session);
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes must be an object")));
	attributes = palloc0(Max(JB_ROOT_COUNT(json), 1) * sizeof(RinqAttribute));
	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			attributes[count].key = rinq_attribute_text(pnstrdup(value.val.string.val,
																 value.val.string.len), "key");
		else if (token == WJB_VALUE)
			attributes[count++].value = rinq_attribute_value(&value);
	}
	return update_session(&session, namespace, attributes, count);
}

/*
 * rinq_session_update(session text, namespace text, attributes jsonb) returns
 * rinq_revision
 *
 * The same with an object: strings as they are, null as no value, all else in
 * its text form.
 */
Datum
rinq_session_update_jsonb(PG_FUNCTION_ARGS)
{
	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("attributes must not be null")));
	PG_RETURN_DATUM(update_from_json(fcinfo, PG_GETARG_JSONB_P(2)));
}

/*
 * rinq_session_update(session text, namespace text, attributes text) returns
 * rinq_revision
 *
 * The same with JSON in its text form, which is what a literal without a type
 * is.
 */
Datum
rinq_session_update_text(PG_FUNCTION_ARGS)
{
	char	   *text;
	Datum		json;

	rinq_refuse_parallel(fcinfo);
	text = rinq_text_argument(fcinfo, 2, "attributes");
	json = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
	PG_RETURN_DATUM(update_from_json(fcinfo, DatumGetJsonbP(json)));
}

/*
 * rinq_session_clear(session text, namespace text) returns rinq_revision
 *
 * Empties all attributes of a namespace.
 */
Datum
rinq_session_clear(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	memset(&input, 0, sizeof(input));
	input.namespace = rinq_namespace_argument(fcinfo, 1);
	rinq_session_ref_argument(fcinfo, 0, &session);
	rinq_change_session(RINQ_OP_CLEAR, &session, &input, &result);
	PG_RETURN_DATUM(rinq_operation_ref_datum(&result));
}

/*
 * rinq_session_on_response(session text, handler regprocedure) returns void
 *
 * Has responses to asynchronous calls of a session handled by a function, as
 * the current role; NULL for no longer.
 */
Datum
rinq_session_on_response(PG_FUNCTION_ARGS)
{
	RinqSessionRef session;
	RinqOperationInput input;
	RinqOperationResult result;

	rinq_refuse_parallel(fcinfo);
	rinq_session_argument(fcinfo, 0, &session);
	memset(&input, 0, sizeof(input));
	if (!PG_ARGISNULL(1))
		rinq_handler_input(PG_GETARG_OID(1), RINQ_WORK_RESPONSE, &input);
	rinq_operate(RINQ_OP_ON_RESPONSE, &session, &input, &result);
	PG_RETURN_VOID();
}

/* attributes of the source that were asked for, while its request is handled */
typedef struct Known
{
	struct Known *next;
	char	   *namespace;
	char	   *key;
	char	   *value;
} Known;

static MemoryContext known_context = NULL;
static Known *known = NULL;
static uint64 known_request = 0;

static void
forget_known(void)
{
	known = NULL;
	MemoryContextReset(known_context);
}

static char *
source_attribute(const char *namespace, const char *key)
{
	RinqSessionRef session;
	RinqAttribute wanted;
	RinqAttribute *found = NULL;

	memset(&session, 0, sizeof(session));
	session.text = pnstrdup(rinq_inherited.source.data, rinq_inherited.source.len);
	if (!rinq_ref_parse(session.text, strlen(session.text), &session.ref))
		elog(ERROR, "malformed source \"%s\"", session.text);
	memset(&wanted, 0, sizeof(wanted));
	wanted.key = rinq_attribute_text(key, "key");
	if (!get_attributes(&session, namespace, &wanted, 1, true, &found))
	{
		session.current = true;
		(void) get_attributes(&session, namespace, &wanted, 1, false, &found);
	}
	return rinq_text_from_wire(found->value);
}

/*
 * rinq_source_attribute(namespace text, key text) returns text
 *
 * In a handler, the value of an attribute of the session that sent the
 * request: at the request's revision if that is still known, else now.  The
 * same for the whole of the request.  NULL outside of handlers.
 */
Datum
rinq_source_attribute(PG_FUNCTION_ARGS)
{
	char	   *namespace;
	char	   *key;
	Known	   *entry;
	char	   *value;
	MemoryContext old;

	rinq_refuse_parallel_worker(fcinfo);
	namespace = rinq_namespace_argument(fcinfo, 0);
	key = rinq_text_argument(fcinfo, 1, "key");
	if (rinq_inherited.source.data == NULL)
		PG_RETURN_NULL();
	if (known_context == NULL)
		known_context = AllocSetContextCreate(TopMemoryContext, "rinq source attributes",
											  ALLOCSET_SMALL_SIZES);
	if (rinq_inherited.serial != known_request)
	{
		rinq_at_request_end(forget_known);
		forget_known();
		known_request = rinq_inherited.serial;
	}
	for (entry = known; entry != NULL; entry = entry->next)
	{
		if (strcmp(entry->key, key) == 0 && strcmp(entry->namespace, namespace) == 0)
			PG_RETURN_DATUM(CStringGetTextDatum(entry->value));
	}
	value = source_attribute(namespace, key);
	old = MemoryContextSwitchTo(known_context);
	entry = palloc(sizeof(Known));
	entry->namespace = pstrdup(namespace);
	entry->key = pstrdup(key);
	entry->value = pstrdup(value);
	entry->next = known;
	known = entry;
	MemoryContextSwitchTo(old);
	PG_RETURN_DATUM(CStringGetTextDatum(value));
}
