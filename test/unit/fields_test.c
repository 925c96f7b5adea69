/*-------------------------------------------------------------------------
 *
 * fields_test.c
 *	  Typed fields: what was packed is read again, and nothing else is.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "base/fields.h"
#include "check.h"

enum
{
	KIND = 7,
	OTHER_KIND
};

enum
{
	NAME = RINQ_FIRST_FIELD(KIND),
	EMPTY,
	MISSING,
	FLAG,
	OFF,
	NUMBER,
	TIME,
	ROLE,
	REF,
	ID,
	KIND_END
};

RINQ_CHECK_FIELDS(KIND, KIND_END);

/* bytes that are packed: a kind, a number of fields, and all of each field */
#define SAMPLE_SIZE (2 + (2 + 4 + 5) + (2 + 4) + 2 * (2 + 1) + (2 + 4) + (2 + 8) + (2 + 4) + \
					 (2 + sizeof(RinqRef)) + (2 + sizeof(RinqMessageId)))

static RinqMessageId sample_id;

static void
make_sample(RinqFields *fields)
{
	memset(&sample_id, 0, sizeof(sample_id));
	rinq_message_id_parse("58AEE146-191C.45@3#7", 20, &sample_id);
	rinq_fields_init(fields, KIND);
	rinq_put_bytes(fields, NAME, rinq_bytes("ab\0de", 5));
	rinq_put_bytes(fields, EMPTY, rinq_bytes("", 0));
	rinq_put_bytes(fields, MISSING, rinq_bytes(NULL, 0));
	rinq_put_flag(fields, FLAG, true);
	rinq_put_flag(fields, OFF, false);
	rinq_put_uint32(fields, NUMBER, UINT32_MAX);
	rinq_put_int64(fields, TIME, INT64_MIN);
	rinq_put_oid(fields, ROLE, 10);
	rinq_put_ref(fields, REF, &sample_id.ref);
	rinq_put_message_id(fields, ID, &sample_id);
}

static void
check_sample(const RinqFields *fields)
{
	RinqRef		ref;
	RinqMessageId id;

	CHECK_INT(rinq_get_bytes(fields, NAME).len, 5);
	CHECK(memcmp(rinq_get_bytes(fields, NAME).data, "ab\0de", 5) == 0);
	CHECK_BYTES(rinq_get_bytes(fields, EMPTY), "");
	CHECK_BYTES(rinq_get_bytes(fields, MISSING), NULL);
	CHECK(rinq_get_flag(fields, FLAG));
	CHECK(!rinq_get_flag(fields, OFF));
	CHECK_INT(rinq_get_uint32(fields, NUMBER), UINT32_MAX);
	CHECK_INT(rinq_get_int64(fields, TIME), INT64_MIN);
	CHECK_INT(rinq_get_oid(fields, ROLE), 10);
	CHECK(rinq_get_ref(fields, REF, &ref) && rinq_ref_equal(&ref, &sample_id.ref));
	CHECK(rinq_get_message_id(fields, ID, &id) && rinq_message_id_equal(&id, &sample_id));
}

/* packs into memory of just the right size, so that a sanitizer sees one byte too many */
static RinqBytes
pack(const RinqFields *fields)
{
	size_t		size = rinq_fields_size(fields);
	char	   *packed = malloc(size);

	rinq_fields_write(fields, packed);
	return rinq_bytes(packed, size);
}

static void
test_round_trip(void)
{
	RinqFields	fields;
	RinqFields	again;
	RinqBytes	packed;
	RinqBytes	rest;

	make_sample(&fields);
	check_sample(&fields);
	packed = pack(&fields);
	CHECK_INT(packed.len, SAMPLE_SIZE);
	rest = packed;
	CHECK(rinq_fields_read(&again, KIND, &rest));
	CHECK_INT(rest.len, 0);
	check_sample(&again);
	free((char *) packed.data);
}

/* what was not put is absent: no bytes, no flag, 0, no id */
static void
test_absent(void)
{
	RinqFields	fields;
	RinqRef		ref;
	RinqMessageId id;
	RinqBytes	packed;
	RinqBytes	rest;

	rinq_fields_init(&fields, KIND);
	packed = rest = pack(&fields);
	CHECK_INT(packed.len, 2);
	CHECK(rinq_fields_read(&fields, KIND, &rest));
	CHECK(rinq_get_bytes(&fields, NAME).data == NULL);
	CHECK(!rinq_get_flag(&fields, FLAG));
	CHECK_INT(rinq_get_uint32(&fields, NUMBER), 0);
	CHECK_INT(rinq_get_int64(&fields, TIME), 0);
	CHECK_INT(rinq_get_oid(&fields, ROLE), 0);
	CHECK(!rinq_get_ref(&fields, REF, &ref));
	CHECK(!rinq_get_message_id(&fields, ID, &id));
	free((char *) packed.data);

	/* put again as nothing */
	make_sample(&fields);
	rinq_put_bytes(&fields, NAME, rinq_bytes(NULL, 0));
	CHECK(rinq_get_bytes(&fields, NAME).data == NULL);
	CHECK_INT(rinq_fields_size(&fields), SAMPLE_SIZE - (2 + 4 + 5));
}

/* all kinds of fields one after another, and what is behind them is left */
static void
test_list(void)
{
	RinqFields	fields;
	RinqBytes	one;
	RinqBytes	rest;
	char	   *list;
	int			i;

	make_sample(&fields);
	one = pack(&fields);
	list = malloc(3 * one.len);
	for (i = 0; i < 3; i++)
		memcpy(list + i * one.len, one.data, one.len);
	rest = rinq_bytes(list, 3 * one.len);
	for (i = 0; i < 3; i++)
	{
		CHECK(rinq_fields_read(&fields, KIND, &rest));
		check_sample(&fields);
		CHECK_INT(rest.len, (2 - i) * one.len);
	}
	CHECK(!rinq_fields_read(&fields, KIND, &rest));
	free(list);
	free((char *) one.data);
}

static bool
reads(const char *packed, size_t len)
{
	RinqFields	fields;
	RinqBytes	rest;
	char	   *exact = malloc(len > 0 ? len : 1);
	bool		read;
	int			i;

	memcpy(exact, packed, len);
	rest = rinq_bytes(exact, len);
	read = rinq_fields_read(&fields, KIND, &rest);
	for (i = 0; i < RINQ_MAX_FIELDS; i++)
	{
		/* refused, it has none; and nothing that it has lies outside */
		if (!read)
			CHECK_INT(fields.type[i], RINQ_FIELD_ABSENT);
		else if (rinq_field_is_bytes(&fields, i))
			CHECK(fields.value[i].bytes.data >= exact &&
				  fields.value[i].bytes.data + fields.value[i].bytes.len <= exact + len);
	}
	free(exact);
	return read;
}

static void
test_truncated(void)
{
	RinqFields	fields;
	RinqBytes	packed;
	size_t		len;

	make_sample(&fields);
	packed = pack(&fields);
	for (len = 0; len < packed.len; len++)
		CHECK(!reads(packed.data, len));
	CHECK(reads(packed.data, len));
	free((char *) packed.data);
}

static void
test_refused(void)
{
	CHECK(reads("\007\000", 2));
	CHECK(!reads("\010\000", 2));	/* another kind */
	CHECK(!reads("\007\001", 2));	/* fewer fields than it says */
	CHECK(!reads("\007\377", 2));
	CHECK(reads("\007\001\003\002\001", 5));
	CHECK(!reads("\007\001\003\002\002", 5));	/* a flag that is neither */
	CHECK(!reads("\007\001\003\000\001", 5));	/* an absent field is not
												 * packed */
	CHECK(!reads("\007\001\003\010\001", 5));	/* no type */
	CHECK(!reads("\007\001\003\377\001", 5));
	CHECK(!reads("\007\001\024\002\001", 5));	/* no field of any kind */
	CHECK(!reads("\007\001\377\002\001", 5));
	CHECK(!reads("\007\002\003\002\001\003\002\001", 8));	/* twice the same */
	CHECK(!reads("\007\002\004\002\001\003\002\001", 8));	/* out of order */
	CHECK(reads("\007\001\000\001\000\000\000\000", 8));
	CHECK(!reads("\007\001\000\001\001\000\000\000", 8));	/* longer than all there
															 * is */
	CHECK(!reads("\007\001\000\001\377\377\377\377a", 9));
	CHECK(!reads("\007\001\000\001\377\377\377\177a", 9));
}

/* any damage to one byte is refused, or read within bounds */
static void
test_damaged(void)
{
	RinqFields	fields;
	RinqBytes	packed;
	char	   *copy;
	size_t		at;
	int			change;

	make_sample(&fields);
	packed = pack(&fields);
	copy = malloc(packed.len);
	for (at = 0; at < packed.len; at++)
	{
		for (change = 1; change < 256; change++)
		{
			memcpy(copy, packed.data, packed.len);
			copy[at] = (char) (copy[at] ^ change);
			(void) reads(copy, packed.len);
		}
	}
	free(copy);
	free((char *) packed.data);
}

/* a copy does not need what it was made of */
static void
test_move(void)
{
	RinqFields	fields;
	RinqBytes	packed;
	RinqBytes	rest;
	char	   *copy;
	size_t		size;

	make_sample(&fields);
	packed = rest = pack(&fields);
	CHECK(rinq_fields_read(&fields, KIND, &rest));
	size = rinq_fields_bytes(&fields);
	CHECK_INT(size, 5 + sizeof(RinqRef) + sizeof(RinqMessageId));
	copy = malloc(size);
	CHECK(rinq_fields_move(&fields, copy) == copy + size);
	memset((char *) packed.data, 0xFF, packed.len);
	free((char *) packed.data);
	check_sample(&fields);
	free(copy);
}

int
main(void)
{
	test_round_trip();
	test_absent();
	test_list();
	test_truncated();
	test_refused();
	test_damaged();
	test_move();
	return check_summary();
}
