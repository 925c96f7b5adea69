/*-------------------------------------------------------------------------
 *
 * build.c
 *	  Writes a jsonb value from the decoder's tape.
 *
 * The stored form is written in one pass into one allocation, byte for byte
 * as JsonbValueToJsonb() would write it.  This is several times faster than
 * pushJsonbValue(), and has none of its size limits below those of jsonb.
 *
 * Duplicate keys are found here, because here the keys get sorted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/internal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/memutils.h"

/* A key while the keys of one object are being sorted. */
typedef struct KeyEntry
{
	uint64		order;			/* length, then the first four bytes */
	const char *text;
	uint32		index;			/* of the key on the tape */
} KeyEntry;

/* how much of a duplicate key an error message shows */
#define MAX_KEY_SHOWN	64

static char *build_container(const RinqTapeItem *tape, uint32 index, char *dst);

static inline int
compare_keys(const KeyEntry *a, const KeyEntry *b)
{
	size_t		len = a->order >> 32;

	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	return len <= 4 ? 0 : memcmp(a->text + 4, b->text + 4, len - 4);
}

#define ST_SORT sort_keys
#define ST_ELEMENT_TYPE KeyEntry
#define ST_COMPARE(a, b) compare_keys(a, b)
#define ST_SCOPE static
#define ST_CHECK_FOR_INTERRUPTS
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

static inline KeyEntry
make_key(const RinqTapeItem *tape, uint32 index)
{
	const RinqTapeItem *item = &tape[index];
	KeyEntry	key;
	uint32		prefix = 0;

	Assert(item->kind == RINQ_TAPE_STRING);
	memcpy(&prefix, item->u.text, Min(item->len, sizeof(prefix)));
	key.order = ((uint64) item->len << 32) | pg_hton32(prefix);
	key.text = item->u.text;
	key.index = index;
	return key;
}

static inline uint32
next_sibling(const RinqTapeItem *tape, uint32 index)
{
	uint32		kind = tape[index].kind;

	if (kind == RINQ_TAPE_ARRAY || kind == RINQ_TAPE_OBJECT)
		return tape[index].u.tree.next;
	return index + 1;
}

/* Move to the next multiple of four, with zeros in between. */
static inline char *
align_to_int(char *dst)
{
	while ((uintptr_t) dst % sizeof(int32) != 0)
		*dst++ = '\0';
	return dst;
}

static void
too_large(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("total size of jsonb %s exceeds the maximum of %d bytes",
					what, JENTRY_OFFLENMASK)));
}

/*
 * Fill the entry of child number i, which ends at `end`; the data of all
 * children starts at `data`.
 */
static inline void
set_entry(JEntry *entry, uint32 i, uint32 type, const char *data,
		  const char *start, const char *end, const char *what)
{
	Size		total = end - data;

	if (unlikely(total > JENTRY_OFFLENMASK))
		too_large(what);
	if (i % JB_OFFSET_STRIDE == 0)
		*entry = type | (uint32) total | JENTRY_HAS_OFF;
	else
		*entry = type | (uint32) (end - start);
}

/*
 * Write a value; returns its end and sets *type to its JEntry type bits.
 */
static char *
build_value(const RinqTapeItem *tape, uint32 index, char *dst, uint32 *type)
{
	const RinqTapeItem *item = &tape[index];

	switch ((RinqTapeKind) item->kind)
	{
		case RINQ_TAPE_NULL:
			*type = JENTRY_ISNULL;
			return dst;
		case RINQ_TAPE_FALSE:
			*type = JENTRY_ISBOOL_FALSE;
			return dst;
		case RINQ_TAPE_TRUE:
			*type = JENTRY_ISBOOL_TRUE;
			return dst;
		case RINQ_TAPE_STRING:
			*type = JENTRY_ISSTRING;
			memcpy(dst, item->u.text, item->len);
			return dst + item->len;
		case RINQ_TAPE_UINT:
			*type = JENTRY_ISNUMERIC;
			dst = align_to_int(dst);
			return dst + rinq_numeric_put(dst, false, item->u.integer, 0, 0);
		case RINQ_TAPE_NINT:
			*type = JENTRY_ISNUMERIC;
			dst = align_to_int(dst);
			return dst + rinq_numeric_put(dst, true, (uint128) item->u.integer + 1, 0, 0);
		case RINQ_TAPE_DOUBLE:
			*type = JENTRY_ISNUMERIC;
			dst = align_to_int(dst);
			return dst + rinq_numeric_put_double(dst, item->u.real);
		case RINQ_TAPE_NUMERIC:
			*type = JENTRY_ISNUMERIC;
			dst = align_to_int(dst);
			memcpy(dst, item->u.text, item->len);
			return dst + item->len;
		case RINQ_TAPE_ARRAY:
		case RINQ_TAPE_OBJECT:
			*type = JENTRY_ISCONTAINER;
			return build_container(tape, index, align_to_int(dst));
		case RINQ_TAPE_BIG_POSITIVE:
		case RINQ_TAPE_BIG_NEGATIVE:
			break;
	}
	elog(ERROR, "unexpected CBOR item kind %u", item->kind);
	return NULL;				/* keep compiler quiet */
}

static char *
build_array(const RinqTapeItem *tape, uint32 index, char *dst)
{
	uint32		count = tape[index].len;
	JsonbContainer *jc = (JsonbContainer *) dst;
	char	   *data = (char *) &jc->children[count];

	Assert(tape[index].kind == RINQ_TAPE_ARRAY);
	jc->header = count | JB_FARRAY;
	dst = data;
	index++;
	for (uint32 i = 0; i < count; i++)
	{
		char	   *start = dst;
		uint32		type;

		CHECK_FOR_INTERRUPTS();
		dst = build_value(tape, index, dst, &type);
		set_entry(&jc->children[i], i, type, data, start, dst, "array elements");
		index = next_sibling(tape, index);
	}
	return dst;
}

static void
duplicate_key(const RinqTapeItem *tape, uint32 object, uint32 key)
{
	const char *text = tape[key].u.text;
	int			len = tape[key].len;
	int			shown = len;

	if (len > MAX_KEY_SHOWN)
		shown = pg_mbcliplen(text, len, MAX_KEY_SHOWN);

	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_JSON_OBJECT_KEY_VALUE),
			 errmsg("duplicate key in CBOR map at byte %u", tape[object].u.tree.offset),
			 errdetail("Key \"%.*s\"%s occurs more than once.",
					   shown, text, shown < len ? "..." : "")));
}

/*
 * Tell whether the keys are already in jsonb's order.  Our own output is, and
 * so is that of everybody who sorts keys by length first.
 */
static bool
keys_are_sorted(const RinqTapeItem *tape, uint32 object)
{
	uint32		index = object + 1;
	KeyEntry	last = make_key(tape, index);

	for (uint32 i = 1; i < tape[object].len; i++)
	{
		KeyEntry	key;
		int			order;

		index = next_sibling(tape, index + 1);
		key = make_key(tape, index);
		order = compare_keys(&last, &key);
		if (order == 0)
			duplicate_key(tape, object, index);
		if (order > 0)
			return false;
		last = key;
	}
	return true;
}

static KeyEntry *
sorted_keys(const RinqTapeItem *tape, uint32 object)
{
	uint32		count = tape[object].len;
	uint32		index = object + 1;
	KeyEntry   *keys = MemoryContextAllocHuge(CurrentMemoryContext,
											  (Size) count * sizeof(KeyEntry));

	for (uint32 i = 0; i < count; i++)
	{
		keys[i] = make_key(tape, index);
		index = next_sibling(tape, index + 1);
	}
	sort_keys(keys, count);

	for (uint32 i = 1; i < count; i++)
	{
		if (compare_keys(&keys[i - 1], &keys[i]) == 0)
			duplicate_key(tape, object, keys[i].index);
	}
	return keys;
}

/*
 * Build an object: all keys come first, then all values in the same order.
 */
static char *
build_object(const RinqTapeItem *tape, uint32 object, char *dst)
{
	uint32		count = tape[object].len;
	JsonbContainer *jc = (JsonbContainer *) dst;
	char	   *data = (char *) &jc->children[(Size) count * 2];
	KeyEntry   *keys = NULL;
	uint32		index = object + 1;

	jc->header = count | JB_FOBJECT;
	dst = data;
	if (count > 1 && !keys_are_sorted(tape, object))
		keys = sorted_keys(tape, object);

	for (uint32 i = 0; i < count; i++)
	{
		char	   *start = dst;
		const RinqTapeItem *key = &tape[keys ? keys[i].index : index];

		memcpy(dst, key->u.text, key->len);
		dst += key->len;
		set_entry(&jc->children[i], i, JENTRY_ISSTRING, data, start, dst,
				  "object elements");
		if (!keys)
			index = next_sibling(tape, index + 1);
	}

	index = object + 1;
	for (uint32 i = 0; i < count; i++)
	{
		char	   *start = dst;
		uint32		value = (keys ? keys[i].index : index) + 1;
		uint32		type;

		CHECK_FOR_INTERRUPTS();
		dst = build_value(tape, value, dst, &type);
		set_entry(&jc->children[i + count], i + count, type, data, start, dst,
				  "object elements");
		if (!keys)
			index = next_sibling(tape, value);
	}

	if (keys)
		pfree(keys);
	return dst;
}

static char *
build_container(const RinqTapeItem *tape, uint32 index, char *dst)
{
	Assert((uintptr_t) dst % sizeof(int32) == 0);
	check_stack_depth();
	if (tape[index].kind == RINQ_TAPE_ARRAY)
		return build_array(tape, index, dst);
	return build_object(tape, index, dst);
}

/*
 * Build the value of a complete tape.  `bound` is the sum of the bounds of
 * its items.
 */
Jsonb *
rinq_cbor_build(const RinqTapeItem *tape, uint64 bound)
{
	Jsonb	   *result;
	char	   *end;
	Size		size;

	/* header of the value, and of the array that a scalar is stored in */
	size = VARHDRSZ + sizeof(uint32) + bound;

	/*
	 * The bound is less than four times the actual size, so whatever exceeds
	 * one allocation exceeds the limit of jsonb, too.
	 */
	if (size > MaxAllocSize)
		too_large("array elements");

	result = palloc(size);
	if (tape[0].kind == RINQ_TAPE_ARRAY || tape[0].kind == RINQ_TAPE_OBJECT)
		end = build_container(tape, 0, (char *) &result->root);
	else
	{
		char	   *data = (char *) &result->root.children[1];
		uint32		type;

		result->root.header = 1 | JB_FARRAY | JB_FSCALAR;
		end = build_value(tape, 0, data, &type);
		set_entry(&result->root.children[0], 0, type, data, data, end,
				  "array elements");
	}

	Assert(end <= (char *) result + size);
	SET_VARSIZE(result, end - (char *) result);
	return result;
}
