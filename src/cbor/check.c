/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Is this one well-formed CBOR item?
 *
 * For payloads that are not read here: unlike the decoder, this takes
 * everything that RFC 8949 calls well-formed, whether JSON could hold it or
 * not, and of validity checks only that texts are UTF-8.  It allocates
 * nothing, whatever the input declares.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/decoder.h"
#include "cbor/head.h"
#include "miscadmin.h"

typedef struct Level
{
	uint64		left;			/* items to come; counts up when indefinite */
	bool		indefinite;
	uint8		major;
} Level;

typedef struct Checker
{
	const uint8 *data;
	size_t		len;
	size_t		offset;			/* where the current item starts */
	size_t		next;			/* where the one after it does */
	bool		tagged;			/* a tag waits for its content */
	int			depth;
	Level		levels[RINQ_CBOR_MAX_DEPTH + 1];
} Checker;

static void
ends_inside(Checker *c)
{
	rinq_malformed(c, "The input ends inside of an item.");
}

/* Take the number in an item's head; moves on behind the head. */
static uint64
take_argument(Checker *c, uint8 info)
{
	const uint8 *head = c->data + c->offset;
	size_t		size;

	c->next = c->offset + 1;
	if (info > RINQ_INFO_LAST)
		rinq_malformed(c, "The byte 0x%02X starts no item.", *head);
	size = rinq_head_argument_size(*head);
	if (c->len - c->next < size)
		ends_inside(c);
	c->next += size;
	return rinq_head_argument(head);
}

static void
check_text(Checker *c, const char *text, size_t len)
{
	if (!rinq_is_utf8(text, len))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("CBOR text string at byte %zu is not valid UTF-8", c->offset)));
}

static void
open_level(Checker *c, uint8 major, uint64 items, bool indefinite)
{
	if (c->depth == RINQ_CBOR_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CBOR item at byte %zu is nested too deeply", c->offset),
				 errdetail("At most %d levels of arrays and maps are supported.",
						   RINQ_CBOR_MAX_DEPTH)));
	c->depth++;
	c->levels[c->depth].major = major;
	c->levels[c->depth].left = items;
	c->levels[c->depth].indefinite = indefinite;
}

/* Complete an item, and with it perhaps the containers around it. */
static void
complete_item(Checker *c)
{
	c->tagged = false;
	for (;;)
	{
		Level	   *level = &c->levels[c->depth];

		if (level->indefinite)
		{
			level->left++;
			return;
		}
		if (--level->left > 0 || c->depth == 0)
			return;
		c->depth--;
	}
}

static void
take_break(Checker *c)
{
	Level	   *level = &c->levels[c->depth];

	if (c->tagged)
		rinq_malformed(c, "A tag has no content.");
	if (!level->indefinite)
		rinq_malformed(c, "A break stands outside of any indefinite-length item.");
	if (level->major == RINQ_MAJOR_MAP && level->left % 2 != 0)
		rinq_malformed(c, "The last key of an indefinite-length map has no value.");
	Assert(c->depth > 0);
	c->next = c->offset + 1;
	c->depth--;
	complete_item(c);
}

static void
take_string(Checker *c, uint8 major, uint8 info)
{
	uint64		len;

	if (info == RINQ_INFO_INDEFINITE)
	{
		c->next = c->offset + 1;
		c->tagged = false;
		open_level(c, major, 0, true);
		return;
	}
	len = take_argument(c, info);
	if (len > c->len - c->next)
		ends_inside(c);
	if (major == RINQ_MAJOR_TEXT)
		check_text(c, (const char *) c->data + c->next, (size_t) len);
	c->next += (size_t) len;
	complete_item(c);
}

static void
take_container(Checker *c, uint8 major, uint8 info)
{
	bool		indefinite = info == RINQ_INFO_INDEFINITE;
	uint64		count = 0;

	if (indefinite)
		c->next = c->offset + 1;
	else
	{
		count = take_argument(c, info);
		if (count > (c->len - c->next) / (major == RINQ_MAJOR_MAP ? 2 : 1))
			rinq_malformed(c, "A container of length " UINT64_FORMAT
						   " cannot fit into the %zu bytes that follow.",
						   count, c->len - c->next);
		if (major == RINQ_MAJOR_MAP)
			count *= 2;
	}
	c->tagged = false;
	open_level(c, major, count, indefinite);
	if (!indefinite && count == 0)
	{
		c->depth--;
		complete_item(c);
	}
}

static void
take_simple(Checker *c, uint8 info)
{
	uint64		value = take_argument(c, info);

	if (info == 24 && value < 32)
		rinq_malformed(c, "The simple value %d has the wrong length.", (int) value);
	complete_item(c);
}

static void
take_item(Checker *c)
{
	uint8		head = c->data[c->offset];
	uint8		major = rinq_head_major(head);
	uint8		info = rinq_head_info(head);
	const Level *level = &c->levels[c->depth];

	if (head == RINQ_HEAD_BREAK)
	{
		take_break(c);
		return;
	}
	if ((level->major == RINQ_MAJOR_TEXT || level->major == RINQ_MAJOR_BYTES) &&
		(major != level->major || info == RINQ_INFO_INDEFINITE))
		rinq_malformed(c, "An indefinite-length string contains something that is no chunk of it.");

	switch (major)
	{
		case RINQ_MAJOR_BYTES:
		case RINQ_MAJOR_TEXT:
			take_string(c, major, info);
			break;
		case RINQ_MAJOR_ARRAY:
		case RINQ_MAJOR_MAP:
			take_container(c, major, info);
			break;
		case RINQ_MAJOR_TAG:
			(void) take_argument(c, info);
			c->tagged = true;
			break;
		case RINQ_MAJOR_SIMPLE:
			take_simple(c, info);
			break;
		default:
			(void) take_argument(c, info);
			complete_item(c);
	}
}

void
rinq_cbor_check(const uint8 *data, size_t len)
{
	Checker		c;

	/* the levels need no initial value but the first, which holds one item */
	memset(&c, 0, offsetof(Checker, levels));
	c.data = data;
	c.len = len;
	c.levels[0].left = 1;
	c.levels[0].indefinite = false;
	c.levels[0].major = RINQ_MAJOR_ARRAY;

	while (c.offset < len && c.levels[0].left > 0)
	{
		CHECK_FOR_INTERRUPTS();
		take_item(&c);
		Assert(c.next > c.offset && c.next <= len);
		c.offset = c.next;
	}
	if (c.levels[0].left > 0)
	{
		if (len == 0)
			rinq_malformed(&c, "The input is empty.");
		if (c.tagged)
			rinq_malformed(&c, "The input ends after a tag.");
		if (c.levels[c.depth].major == RINQ_MAJOR_TEXT || c.levels[c.depth].major == RINQ_MAJOR_BYTES)
			rinq_malformed(&c, "The input ends inside of an indefinite-length string.");
		rinq_malformed(&c, "The input ends inside of an array or a map.");
	}
	if (c.offset < len)
		rinq_malformed(&c, "The input goes on after the end of the item.");
}
