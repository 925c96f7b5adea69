/*-------------------------------------------------------------------------
 *
 * sess_message.c
 *	  The bodies of requests and responses in the namespace "_sess", by which
 *	  peers work on each other's sessions (section 5 of the protocol).
 *
 * They are maps with short keys.  Unknown keys are passed over, and missing
 * ones stand for zero or nothing, as in the reference peer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/stream.h"
#include "protocol/sess_message.h"

/* make room for another element of a list */
static void *
grow_list(void *list, int count, Size element)
{
	/* full at each power of two from 16 on */
	if (count == 0)
		return palloc(16 * element);
	if (count >= 16 && (count & (count - 1)) == 0)
		return repalloc_huge(list, (Size) count * 2 * element);
	return list;
}

/*
 * Tell whether another element may be read.  All lists count together: one
 * that is repeated takes the place of what was there before, and costs as much
 * again.
 */
static bool
may_read_element(RinqCborReader *reader, RinqSessBody *body)
{
	if (++body->num_elements > RINQ_MAX_ATTRIBUTES)
		reader->failed = true;
	return !reader->failed;
}

/* Read a key of a map, as text; false at its end. */
static bool
next_key(RinqCborReader *reader, uint64 *left, RinqBytes *key)
{
	RinqCborReader start;

	if (!rinq_cbor_more(reader, left))
		return false;
	start = *reader;
	if (rinq_cbor_read_text(reader, key))
		return true;

	/* a key of another type is an unknown one */
	*reader = start;
	*key = rinq_bytes("", 0);
	return rinq_cbor_skip(reader);
}

static void
read_sess_attribute(RinqCborReader *reader, RinqAttribute *attribute)
{
	uint64		left;
	RinqBytes	key;

	memset(attribute, 0, sizeof(*attribute));
	attribute->key = rinq_bytes("", 0);
	attribute->value = rinq_bytes("", 0);
	if (!rinq_cbor_enter(reader, RINQ_CBOR_MAP, &left))
		return;
	while (next_key(reader, &left, &key))
	{
		if (rinq_bytes_are(key, "k"))
			(void) rinq_cbor_read_text(reader, &attribute->key);
		else if (rinq_bytes_are(key, "v"))
			(void) rinq_cbor_read_text(reader, &attribute->value);
		else if (rinq_bytes_are(key, "f"))
			(void) rinq_cbor_read_bool(reader, &attribute->frozen);
		else if (rinq_bytes_are(key, "cr"))
			(void) rinq_cbor_read_uint32(reader, &attribute->created);
		else if (rinq_bytes_are(key, "ur"))
			(void) rinq_cbor_read_uint32(reader, &attribute->updated);
		else
			(void) rinq_cbor_skip(reader);
	}
}

static void
read_sess_attributes(RinqCborReader *reader, RinqSessBody *body)
{
	uint64		left;

	body->num_attributes = 0;
	if (!rinq_cbor_enter(reader, RINQ_CBOR_ARRAY, &left))
		return;
	while (rinq_cbor_more(reader, &left))
	{
		if (!may_read_element(reader, body))
			return;
		body->attributes = grow_list(body->attributes, body->num_attributes, sizeof(RinqAttribute));
		read_sess_attribute(reader, &body->attributes[body->num_attributes++]);
	}
}

static void
read_keys(RinqCborReader *reader, RinqSessBody *body)
{
	uint64		left;

	body->num_keys = 0;
	if (!rinq_cbor_enter(reader, RINQ_CBOR_ARRAY, &left))
		return;
	while (rinq_cbor_more(reader, &left))
	{
		RinqAttribute *key;

		if (!may_read_element(reader, body))
			return;
		body->keys = grow_list(body->keys, body->num_keys, sizeof(RinqAttribute));
		key = &body->keys[body->num_keys++];
		memset(key, 0, sizeof(*key));
		(void) rinq_cbor_read_text(reader, &key->key);
	}
}

static void
read_created(RinqCborReader *reader, RinqSessBody *body)
{
	uint64		left;

	body->num_created = 0;
	if (!rinq_cbor_enter(reader, RINQ_CBOR_ARRAY, &left))
		return;
	while (rinq_cbor_more(reader, &left))
	{
		if (!may_read_element(reader, body))
			return;
		body->created = grow_list(body->created, body->num_created, sizeof(uint32));
		(void) rinq_cbor_read_uint32(reader, &body->created[body->num_created++]);
	}
}

/*
 * Read a body.  Its texts point into the data where they can.  False when it
 * is not well-formed, or a field has the wrong type.
 */
bool
rinq_sess_decode(RinqBytes data, RinqSessBody *body)
{
	RinqCborReader reader;
	uint64		left;
	RinqBytes	key;

	memset(body, 0, sizeof(*body));
	body->namespace = rinq_bytes("", 0);
	if (data.len == 0)
		return true;
	rinq_cbor_reader_init(&reader, data);
	if (rinq_cbor_enter(&reader, RINQ_CBOR_MAP, &left))
	{
		while (next_key(&reader, &left, &key))
		{
			if (rinq_bytes_are(key, "s"))
				(void) rinq_cbor_read_uint32(&reader, &body->session);
			else if (rinq_bytes_are(key, "r"))
				(void) rinq_cbor_read_uint32(&reader, &body->revision);
			else if (rinq_bytes_are(key, "ns"))
				(void) rinq_cbor_read_text(&reader, &body->namespace);
			else if (rinq_bytes_are(key, "k"))
				read_keys(&reader, body);
			else if (rinq_bytes_are(key, "a"))
				read_sess_attributes(&reader, body);
			else if (rinq_bytes_are(key, "cr"))
				read_created(&reader, body);
			else
				(void) rinq_cbor_skip(&reader);
		}
	}
	return !reader.failed && reader.rest.len == 0;
}

static void
write_key(StringInfo out, const char *key)
{
	rinq_cbor_write_text(out, rinq_bytes_str(key));
}

static void
write_number(StringInfo out, const char *key, uint32 value)
{
	write_key(out, key);
	rinq_cbor_write_uint(out, value);
}

static void
write_sess_pair(StringInfo out, const char *key, RinqBytes value)
{
	write_key(out, key);
	rinq_cbor_write_text(out, value);
}

static void
write_attribute(StringInfo out, const RinqAttribute *attribute, bool with_revisions)
{
	bool		created = with_revisions && attribute->created != 0;
	bool		updated = with_revisions && attribute->updated != 0;

	rinq_cbor_write_map(out, 1 + (attribute->value.len > 0) + attribute->frozen + created + updated);
	write_sess_pair(out, "k", attribute->key);
	if (attribute->value.len > 0)
		write_sess_pair(out, "v", attribute->value);
	if (attribute->frozen)
	{
		write_key(out, "f");
		rinq_cbor_write_bool(out, true);
	}
	if (created)
		write_number(out, "cr", attribute->created);
	if (updated)
		write_number(out, "ur", attribute->updated);
}

static void
write_attributes(StringInfo out, const RinqAttribute *attributes, int count, bool with_revisions)
{
	int			i;

	write_key(out, "a");
	rinq_cbor_write_array(out, count);
	for (i = 0; i < count; i++)
		write_attribute(out, &attributes[i], with_revisions);
}

/*
 * Encode a request for attributes; with none, for the revision alone.
 */
void
rinq_sess_encode_fetch(StringInfo out, uint32 session, RinqBytes namespace,
					   const RinqAttribute *keys, int count)
{
	int			i;

	rinq_cbor_write_map(out, count > 0 ? 3 : 1);
	write_number(out, "s", session);
	if (count == 0)
		return;
	write_sess_pair(out, "ns", namespace);
	write_key(out, "k");
	rinq_cbor_write_array(out, count);
	for (i = 0; i < count; i++)
		rinq_cbor_write_text(out, keys[i].key);
}

void
rinq_sess_encode_update(StringInfo out, uint32 session, uint32 revision, RinqBytes namespace,
						const RinqAttribute *attributes, int count)
{
	rinq_cbor_write_map(out, 4);
	write_number(out, "s", session);
	write_number(out, "r", revision);
	write_sess_pair(out, "ns", namespace);
	write_attributes(out, attributes, count, false);
}

void
rinq_sess_encode_clear(StringInfo out, uint32 session, uint32 revision, RinqBytes namespace)
{
	rinq_cbor_write_map(out, 3);
	write_number(out, "s", session);
	write_number(out, "r", revision);
	write_sess_pair(out, "ns", namespace);
}

void
rinq_sess_encode_destroy(StringInfo out, uint32 session, uint32 revision)
{
	rinq_cbor_write_map(out, 2);
	write_number(out, "s", session);
	write_number(out, "r", revision);
}

/*
 * Encode the response to a fetch of the revision alone, and to a clear.
 */
void
rinq_sess_encode_revision(StringInfo out, uint32 revision)
{
	rinq_cbor_write_map(out, 1);
	write_number(out, "r", revision);
}

void
rinq_sess_encode_fetched(StringInfo out, uint32 revision, const RinqAttribute *attributes,
						 int count)
{
	rinq_cbor_write_map(out, 2);
	write_number(out, "r", revision);
	write_attributes(out, attributes, count, true);
}

void
rinq_sess_encode_updated(StringInfo out, uint32 revision, const RinqAttribute *attributes,
						 int count)
{
	int			i;

	rinq_cbor_write_map(out, 2);
	write_number(out, "r", revision);
	write_key(out, "cr");
	rinq_cbor_write_array(out, count);
	for (i = 0; i < count; i++)
		rinq_cbor_write_uint(out, attributes[i].created);
}
