/*-------------------------------------------------------------------------
 *
 * protocol/payload.c
 *	  Payloads and texts on their way between SQL and the wire.
 *
 * The conversion itself is cbor/cbor_jsonb.h's; here are the rules of the protocol
 * around it: nil is an empty body, and a payload has a largest size.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/namespace.h"
#include "cbor/cbor_jsonb.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "protocol/payload.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static bool
is_json_null(const Jsonb *json)
{
	return JB_ROOT_IS_SCALAR(json) && JB_ROOT_COUNT(json) == 1 &&
		JBE_ISNULL(json->root.children[0]);
}

/*
 * Raise an error unless a payload of this size, in bytes, may be sent.
 */
void
rinq_check_payload_size(size_t len)
{
	if (len > rinq_payload_limit())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %zu bytes exceeds \"rinq.max_payload\"", len),
				 errdetail("At most %zu bytes are allowed, by that setting or as a quarter of \"rinq.payload_memory\".",
						   rinq_payload_limit())));
}

/*
 * Make a payload a body; nil, which is SQL's NULL as well as JSON's, is an
 * empty one.  The bytes are palloc'd.
 */
RinqBytes
rinq_payload_from_jsonb(const Jsonb *json)
{
	StringInfoData buf;

	if (json == NULL || is_json_null(json))
		return rinq_bytes("", 0);

	initStringInfo(&buf);
	rinq_cbor_append_jsonb(&buf, json);
	rinq_check_payload_size((size_t) buf.len);
	return rinq_bytes(buf.data, (size_t) buf.len);
}

/*
 * Return the payload in a body, NULL for nil.
 */
Jsonb *
rinq_payload_to_jsonb(RinqBytes body)
{
	Jsonb	   *json;

	if (body.len == 0)
		return NULL;
	json = rinq_cbor_to_jsonb((const uint8 *) body.data, body.len);
	return is_json_null(json) ? NULL : json;
}

/*
 * Make a payload that is CBOR already a body; nil is NULL or no bytes.  The
 * result points into "raw", detoasted if need be.
 */
RinqBytes
rinq_payload_from_raw(bytea *raw)
{
	RinqBytes	body;

	if (raw == NULL)
		return rinq_bytes("", 0);
	body = rinq_bytea_bytes(DatumGetByteaPP(PointerGetDatum(raw)));
	rinq_check_payload_size(body.len);
	if (body.len > 0 && rinq_validate_raw)
		rinq_cbor_check((const uint8 *) body.data, body.len);
	return body;
}

/*
 * Return the CBOR in a body, NULL for nil.
 */
bytea *
rinq_payload_to_raw(RinqBytes body)
{
	if (body.len == 0)
		return NULL;
	if (body.len > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %zu bytes is too large for bytea", body.len)));
	if (rinq_validate_raw)
		rinq_cbor_check((const uint8 *) body.data, body.len);
	return rinq_bytes_to_bytea(body);
}

/*
 * Convert text that came from the network, palloc'd; raise an error for
 * bytes that are not UTF-8, or have no equivalent in the database's encoding.
 */
char *
rinq_text_from_wire(RinqBytes text)
{
	char	   *converted;

	if (text.data == NULL)
		return NULL;
	(void) pg_verify_mbstr(PG_UTF8, text.data, (int) text.len, false);
	converted = pg_any_to_server(text.data, (int) text.len, PG_UTF8);
	if (converted == text.data)
		converted = pnstrdup(text.data, text.len);
	return converted;
}

/*
 * Convert text that came from the network to a value of type text; it must not
 * be absent.
 */
Datum
rinq_text_datum(RinqBytes text)
{
	return CStringGetTextDatum(rinq_text_from_wire(text));
}

/*
 * Convert text that only people read, as rinq_text_from_wire does: but what is
 * not UTF-8, or has no equivalent, becomes a question mark instead of an error
 * that would hide what the text is about.
 */
char *
rinq_message_from_wire(RinqBytes text)
{
	int			encoding = GetDatabaseEncoding();
	int			len = (int) text.len;
	const char *p = text.data;
	Oid			conversion = InvalidOid;
	StringInfoData buf;

	if (text.data == NULL)
		return NULL;
	if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII)
		conversion = FindDefaultConversionProc(PG_UTF8, encoding);

	initStringInfo(&buf);
	while (len > 0)
	{
		int			width = Min(pg_encoding_mblen(PG_UTF8, p), len);
		char		converted[MAX_MULTIBYTE_CHAR_LEN * 4 + 1];
		bool		ok = pg_verify_mbstr(PG_UTF8, p, width, true);

		if (!ok)
			width = 1;
		if (!ok || (IS_HIGHBIT_SET(*p) && OidIsValid(conversion) &&
					pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
												  (unsigned char *) unconstify(char *, p), width,
												  (unsigned char *) converted,
												  sizeof(converted), true) != width))
			appendStringInfoChar(&buf, '?');
		else if (IS_HIGHBIT_SET(*p) && OidIsValid(conversion))
			appendStringInfoString(&buf, converted);
		else
			appendBinaryStringInfo(&buf, p, width);
		p += width;
		len -= width;
	}
	return buf.data;
}

/*
 * Convert text of this database to UTF-8, which all text on the network is.
 */
RinqBytes
rinq_text_to_wire(const char *text)
{
	return rinq_bytes_str(pg_server_to_any(text, (int) strlen(text), PG_UTF8));
}

/*
 * Make text that anyone may have sent fit to be logged: printable ASCII of
 * bounded length.  Returns buf.
 */
const char *
rinq_text_for_display(RinqBytes text, char buf[RINQ_DISPLAY_LEN])
{
	size_t		len = Min(text.len, RINQ_DISPLAY_LEN - 1);
	size_t		i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text.data[i];

		buf[i] = (c >= 0x20 && c < 0x7f) ? (char) c : '?';
	}
	buf[len] = '\0';
	if (text.len > len)
		strcpy(buf + len - 3, "...");
	return buf;
}

/*
 * Copy bytes into the current memory context; absent ones stay absent.
 */
RinqBytes
rinq_bytes_copy(RinqBytes bytes)
{
	char	   *copy;

	if (bytes.data == NULL)
		return bytes;
	copy = palloc_extended(Max(bytes.len, 1), MCXT_ALLOC_HUGE);
	if (bytes.len > 0)
		memcpy(copy, bytes.data, bytes.len);
	return rinq_bytes(copy, bytes.len);
}

/*
 * Return the bytes in a value of type bytea, which is not compressed or stored
 * apart.
 */
RinqBytes
rinq_bytea_bytes(bytea *value)
{
	return rinq_bytes(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/*
 * Copy bytes into a value of type bytea, which is empty when they are absent.
 */
bytea *
rinq_bytes_to_bytea(RinqBytes bytes)
{
	bytea	   *value = palloc(VARHDRSZ + bytes.len);

	SET_VARSIZE(value, VARHDRSZ + bytes.len);
	if (bytes.len > 0)
		memcpy(VARDATA(value), bytes.data, bytes.len);
	return value;
}
