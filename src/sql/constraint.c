/*-------------------------------------------------------------------------
 *
 * sql/constraint.c
 *	  The type rinq_constraint, and the functions that build constraints.
 *
 * A value is the constraint's CBOR form, which was checked when it was made,
 * so that constraints are put together by writing them one behind another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "cbor/cbor_jsonb.h"
#include "cbor/stream.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "protocol/constraint.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(rinq_constraint_in);
PG_FUNCTION_INFO_V1(rinq_constraint_out);
PG_FUNCTION_INFO_V1(rinq_constraint_recv);
PG_FUNCTION_INFO_V1(rinq_constraint_send);
PG_FUNCTION_INFO_V1(rinq_constraint_to_jsonb);
PG_FUNCTION_INFO_V1(rinq_constraint_from_jsonb);
PG_FUNCTION_INFO_V1(rinq_constraint_eq);
PG_FUNCTION_INFO_V1(rinq_none);
PG_FUNCTION_INFO_V1(rinq_equal);
PG_FUNCTION_INFO_V1(rinq_not_equal);
PG_FUNCTION_INFO_V1(rinq_not);
PG_FUNCTION_INFO_V1(rinq_and);
PG_FUNCTION_INFO_V1(rinq_or);
PG_FUNCTION_INFO_V1(rinq_within);

static void
check_size(size_t len)
{
	if (len > RINQ_CONSTRAINT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("constraint is too large"),
				 errdetail("It takes %zu bytes in CBOR, and may take %d.",
						   len, RINQ_CONSTRAINT_MAX_SIZE)));
}

static bytea *
constraint_value(StringInfo cbor)
{
	check_size(cbor->len);
	return rinq_bytes_to_bytea(rinq_bytes(cbor->data, cbor->len));
}

static bytea *
encode_constraint(const RinqConstraint *constraint)
{
	StringInfoData cbor;

	initStringInfo(&cbor);
	rinq_constraint_encode(&cbor, constraint);
	return constraint_value(&cbor);
}

static RinqConstraint *
decode_constraint(RinqBytes data)
{
	const char *problem;
	RinqConstraint *constraint;

	check_size(data.len);
	constraint = rinq_constraint_decode(data, &problem);
	if (constraint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid constraint"),
				 errdetail_internal("The value cannot be used: %s.", problem)));
	return constraint;
}

static RinqBytes
argument_bytes(FunctionCallInfo fcinfo, int n)
{
	bytea	   *value = PG_GETARG_BYTEA_PP(n);

	return rinq_bytes(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Count the characters that come before a byte. */
static int
count_characters(RinqBytes text, size_t position)
{
	int			count = 0;
	size_t		i;

	for (i = 0; i < position && i < text.len; i++)
		count += ((unsigned char) text.data[i] & 0xC0) != 0x80;
	return count;
}

/*
 * Return a constraint in its text form.
 */
RinqConstraint *
rinq_constraint_argument(const char *text)
{
	RinqBytes	wire = rinq_text_to_wire(text);
	const char *problem;
	size_t		position;
	RinqConstraint *constraint = rinq_constraint_parse(wire, &problem, &position);

	if (constraint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid constraint \"%s\"", text),
				 errdetail_internal("At character %d: %s.",
									count_characters(wire, position) + 1,
									problem),
				 strchr(text, '{') == NULL ?
				 errhint("A constraint is written in braces: {tenant=acme}, {tenant=acme, !muted}, or {*} for all sessions.") : 0));
	return constraint;
}

/*
 * rinq_constraint_in(cstring) returns rinq_constraint
 */
Datum
rinq_constraint_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(encode_constraint(rinq_constraint_argument(PG_GETARG_CSTRING(0))));
}

/*
 * rinq_constraint_out(rinq_constraint) returns cstring
 */
Datum
rinq_constraint_out(PG_FUNCTION_ARGS)
{
	StringInfoData text;

	initStringInfo(&text);
	rinq_constraint_print(&text, decode_constraint(argument_bytes(fcinfo, 0)));
	PG_RETURN_CSTRING(rinq_text_from_wire(rinq_bytes(text.data, text.len)));
}

/*
 * rinq_constraint_recv(internal) returns rinq_constraint
 *
 * The binary form is the CBOR.
 */
Datum
rinq_constraint_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			len = message->len - message->cursor;

	PG_RETURN_BYTEA_P(encode_constraint(decode_constraint(rinq_bytes(pq_getmsgbytes(message, len), len))));
}

/*
 * rinq_constraint_send(rinq_constraint) returns bytea
 */
Datum
rinq_constraint_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(PG_GETARG_BYTEA_P_COPY(0));
}

/*
 * rinq_constraint_to_jsonb(rinq_constraint) returns jsonb
 *
 * The map that is sent, as JSON.
 */
Datum
rinq_constraint_to_jsonb(PG_FUNCTION_ARGS)
{
	RinqBytes	data = argument_bytes(fcinfo, 0);

	PG_RETURN_JSONB_P(rinq_cbor_to_jsonb((const uint8 *) data.data, data.len));
}

/*
 * rinq_constraint_from_jsonb(jsonb) returns rinq_constraint
 */
Datum
rinq_constraint_from_jsonb(PG_FUNCTION_ARGS)
{
	StringInfoData cbor;

	initStringInfo(&cbor);
	rinq_cbor_append_jsonb(&cbor, PG_GETARG_JSONB_P(0));
	PG_RETURN_BYTEA_P(encode_constraint(decode_constraint(rinq_bytes(cbor.data, cbor.len))));
}

/*
 * rinq_constraint_eq(rinq_constraint, rinq_constraint) returns boolean
 *
 * Are they the same?  Others may mean the same, too.
 */
Datum
rinq_constraint_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rinq_bytes_equal(argument_bytes(fcinfo, 0), argument_bytes(fcinfo, 1)));
}

/*
 * rinq_none() returns rinq_constraint
 *
 * Matches every session.
 */
Datum
rinq_none(PG_FUNCTION_ARGS)
{
	RinqConstraint constraint;

	memset(&constraint, 0, sizeof(constraint));
	constraint.kind = RINQ_CONSTRAINT_NONE;
	PG_RETURN_BYTEA_P(encode_constraint(&constraint));
}

static Datum
make_comparison(FunctionCallInfo fcinfo, RinqConstraintKind kind)
{
	RinqConstraint constraint;

	memset(&constraint, 0, sizeof(constraint));
	constraint.kind = kind;
	constraint.key = rinq_text_to_wire(rinq_text_argument(fcinfo, 0, "key"));
	constraint.value = PG_NARGS() < 2 || PG_ARGISNULL(1) ? rinq_bytes("", 0) :
		rinq_text_to_wire(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_BYTEA_P(encode_constraint(&constraint));
}

/*
 * rinq_equal(key text, value text) returns rinq_constraint
 * rinq_empty(key text) returns rinq_constraint
 */
Datum
rinq_equal(PG_FUNCTION_ARGS)
{
	return make_comparison(fcinfo, RINQ_CONSTRAINT_EQUAL);
}

/*
 * rinq_not_equal(key text, value text) returns rinq_constraint
 * rinq_not_empty(key text) returns rinq_constraint
 */
Datum
rinq_not_equal(PG_FUNCTION_ARGS)
{
	return make_comparison(fcinfo, RINQ_CONSTRAINT_NOT_EQUAL);
}

/*
 * Return a constraint after reading it again: only that tells how deeply it is
 * nested.
 */
static Datum
check_constraint_depth(StringInfo cbor)
{
	(void) decode_constraint(rinq_bytes(cbor->data, cbor->len));
	PG_RETURN_BYTEA_P(constraint_value(cbor));
}

static void
append_argument(StringInfo cbor, Datum value)
{
	bytea	   *term = DatumGetByteaPP(value);

	appendBinaryStringInfo(cbor, VARDATA_ANY(term), VARSIZE_ANY_EXHDR(term));
}

/* combine an array of constraints */
static Datum
combine_constraints(FunctionCallInfo fcinfo, int n, const char *operator, const char *namespace)
{
	StringInfoData cbor;
	ArrayType  *array;
	Datum	   *terms;
	bool	   *nulls;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	int			count;
	int			i;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("constraints must not be null")));
	array = PG_GETARG_ARRAYTYPE_P(n);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &terms, &nulls, &count);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at least one constraint is needed")));
	initStringInfo(&cbor);
	rinq_cbor_write_map(&cbor, namespace == NULL ? 2 : 3);
	rinq_cbor_write_text(&cbor, rinq_bytes_str("o"));
	rinq_cbor_write_text(&cbor, rinq_bytes_str(operator));
	rinq_cbor_write_text(&cbor, rinq_bytes_str("t"));
	rinq_cbor_write_array(&cbor, count);
	for (i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("constraints must not be null")));
		append_argument(&cbor, terms[i]);
	}
	if (namespace != NULL)
	{
		rinq_cbor_write_text(&cbor, rinq_bytes_str("v"));
		rinq_cbor_write_text(&cbor, rinq_bytes_str(namespace));
	}
	return check_constraint_depth(&cbor);
}

/*
 * rinq_not(rinq_constraint) returns rinq_constraint
 */
Datum
rinq_not(PG_FUNCTION_ARGS)
{
	StringInfoData cbor;

	initStringInfo(&cbor);
	rinq_cbor_write_map(&cbor, 2);
	rinq_cbor_write_text(&cbor, rinq_bytes_str("o"));
	rinq_cbor_write_text(&cbor, rinq_bytes_str("!"));
	rinq_cbor_write_text(&cbor, rinq_bytes_str("t"));
	rinq_cbor_write_array(&cbor, 1);
	append_argument(&cbor, PG_GETARG_DATUM(0));
	return check_constraint_depth(&cbor);
}

/*
 * rinq_and(variadic rinq_constraint[]) returns rinq_constraint
 */
Datum
rinq_and(PG_FUNCTION_ARGS)
{
	return combine_constraints(fcinfo, 0, "&", NULL);
}

/*
 * rinq_or(variadic rinq_constraint[]) returns rinq_constraint
 */
Datum
rinq_or(PG_FUNCTION_ARGS)
{
	return combine_constraints(fcinfo, 0, "|", NULL);
}

/*
 * rinq_within(namespace text, variadic rinq_constraint[]) returns
 * rinq_constraint
 */
Datum
rinq_within(PG_FUNCTION_ARGS)
{
	return combine_constraints(fcinfo, 1, "ns", rinq_namespace_argument(fcinfo, 0));
}
