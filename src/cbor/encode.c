/*-------------------------------------------------------------------------
 *
 * encode.c
 *	  jsonb to CBOR: walks the containers and writes texts and heads.
 *
 * The on-disk containers are read in place, which costs a fraction of what
 * JsonbIterator does.  Numbers are written by cbor/numeric_out.c.  All heads
 * have their shortest form and definite lengths, and members keep jsonb's
 * order, so equal objects give equal bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/cbor_jsonb.h"
#include "cbor/internal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

static void append_container(StringInfo out, const JsonbContainer *jc, int depth);

/*
 * Append a text string, converted to UTF-8.
 */
static void
append_string(StringInfo out, const char *s, size_t len)
{
	const char *utf8 = s;
	unsigned char *p;

	if (GetDatabaseEncoding() != PG_UTF8 && !rinq_is_plain_ascii(s, len))
	{
		utf8 = pg_server_to_any(s, (int) len, PG_UTF8);
		if (utf8 != s)
			len = strlen(utf8);
	}

	p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX + len);
	out->len += cbor_encode_string_start(len, p, RINQ_CBOR_HEAD_MAX);
	memcpy(out->data + out->len, utf8, len);
	out->len += len;

	if (utf8 != s)
		pfree(unconstify(char *, utf8));
}

/*
 * Append one child of a container: its entry says what it is, `base` +
 * `offset` is where it starts and `len` what it takes, padding included.
 */
static void
append_child(StringInfo out, JEntry entry, const char *base, uint32 offset,
			 uint32 len, int depth)
{
	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			append_string(out, base + offset, len);
			break;
		case JENTRY_ISNUMERIC:
			{
				uint32		pad = INTALIGN(offset) - offset;

				rinq_cbor_append_numeric(out, base + offset + pad,
										 len > pad ? len - pad : 0);
				break;
			}
		case JENTRY_ISCONTAINER:
			append_container(out, (const JsonbContainer *) (base + INTALIGN(offset)),
							 depth + 1);
			break;
		case JENTRY_ISBOOL_TRUE:
		case JENTRY_ISBOOL_FALSE:
			{
				unsigned char *p = rinq_cbor_reserve(out, 1);

				out->len += cbor_encode_bool(JBE_ISBOOL_TRUE(entry), p, 1);
				break;
			}
		case JENTRY_ISNULL:
			{
				unsigned char *p = rinq_cbor_reserve(out, 1);

				out->len += cbor_encode_null(p, 1);
				break;
			}
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("invalid entry in jsonb value")));
	}
}

/*
 * Step over a child: returns its length and moves the offset behind it.
 */
static inline uint32
next_child(JEntry entry, uint32 *offset)
{
	uint32		start = *offset;

	JBE_ADVANCE_OFFSET(*offset, entry);
	return *offset - start;
}

static void
append_array(StringInfo out, const JsonbContainer *jc, int depth)
{
	uint32		count = JsonContainerSize(jc);
	const char *base = (const char *) &jc->children[count];
	uint32		offset = 0;

	for (uint32 i = 0; i < count; i++)
	{
		JEntry		entry = jc->children[i];
		uint32		start = offset;
		uint32		len = next_child(entry, &offset);

		CHECK_FOR_INTERRUPTS();
		append_child(out, entry, base, start, len, depth);
	}
}

/*
 * Append an object.  All keys come first, then all values: walk both in step.
 */
static void
append_object(StringInfo out, const JsonbContainer *jc, int depth)
{
	uint32		count = JsonContainerSize(jc);
	const char *base = (const char *) &jc->children[(Size) count * 2];
	uint32		key_offset = 0;
	uint32		value_offset = 0;

	for (uint32 i = 0; i < count; i++)
		JBE_ADVANCE_OFFSET(value_offset, jc->children[i]);

	for (uint32 i = 0; i < count; i++)
	{
		JEntry		entry = jc->children[i + count];
		uint32		start = key_offset;
		uint32		len = next_child(jc->children[i], &key_offset);

		CHECK_FOR_INTERRUPTS();
		append_string(out, base + start, len);

		start = value_offset;
		len = next_child(entry, &value_offset);
		append_child(out, entry, base, start, len, depth);
	}
}

static void
append_container(StringInfo out, const JsonbContainer *jc, int depth)
{
	unsigned char *p;

	check_stack_depth();
	if (depth > RINQ_CBOR_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb value is nested too deeply for CBOR"),
				 errdetail("At most %d levels of arrays and objects are supported.",
						   RINQ_CBOR_MAX_DEPTH)));

	p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);
	if (JsonContainerIsObject(jc))
	{
		out->len += cbor_encode_map_start(JsonContainerSize(jc), p, RINQ_CBOR_HEAD_MAX);
		append_object(out, jc, depth);
	}
	else
	{
		out->len += cbor_encode_array_start(JsonContainerSize(jc), p, RINQ_CBOR_HEAD_MAX);
		append_array(out, jc, depth);
	}
}

void
rinq_cbor_append_jsonb(StringInfo out, const Jsonb *jb)
{
	const JsonbContainer *root = &jb->root;

	/*
	 * CBOR rarely takes more than jsonb does, so one reservation spares
	 * nearly all documents the repeated doubling.
	 */
	(void) rinq_cbor_reserve(out, Min((Size) VARSIZE(jb) + 64,
									  MaxAllocSize - 2 - out->len));

	/* a scalar is stored as an array of one element */
	if (JsonContainerIsScalar(root))
		append_array(out, root, 0);
	else
		append_container(out, root, 1);

	out->data[out->len] = '\0';
}
