/*-------------------------------------------------------------------------
 *
 * tape.c
 *	  The CBOR decoder's tape and its stack of open containers.
 *
 * See cbor/decode.c, which checks the input and calls what is here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cbor/decoder.h"

/* more items than this cannot fit into a jsonb, as each takes four bytes */
#define MAX_TAPE_ITEMS		((JENTRY_OFFLENMASK + 1) / (uint32) sizeof(JEntry))

/*
 * Raise an error: the jsonb would exceed what one allocation can hold.
 */
void
rinq_cbor_too_large(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("CBOR document is too large for jsonb")));
}

void
rinq_cbor_numeric_overflow(const RinqDecoder *d)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("number at byte %zu of the CBOR document is out of range for numeric",
					d->offset)));
}

/*
 * Return the memory that lives until the jsonb has been built.
 */
MemoryContext
rinq_cbor_scratch(RinqDecoder *d)
{
	if (d->scratch == NULL)
		d->scratch = AllocSetContextCreate(CurrentMemoryContext, "rinq CBOR decoder",
										   ALLOCSET_DEFAULT_SIZES);
	return d->scratch;
}

void
rinq_cbor_grow_tape(RinqDecoder *d)
{
	Size		size;

	if (d->tape_size >= MAX_TAPE_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CBOR document has too many items for jsonb"),
				 errdetail("At most %u items are supported.", MAX_TAPE_ITEMS)));

	d->tape_size *= 2;
	size = (Size) d->tape_size * sizeof(RinqTapeItem);
	if (d->tape == d->first_tape)
	{
		d->tape = MemoryContextAllocHuge(CurrentMemoryContext, size);
		memcpy(d->tape, d->first_tape, sizeof(d->first_tape));
	}
	else
		d->tape = repalloc_huge(d->tape, size);
}

/*
 * Make one number of what the content of tag 4 or 5 put on the tape.
 */
static void
close_fraction(RinqDecoder *d, const RinqFrame *frame)
{
	const RinqTapeItem *exponent = &d->tape[frame->item];
	const RinqTapeItem *mantissa = exponent + 1;
	RinqTapeItem *item;
	MemoryContext old;
	uint8		bytes[sizeof(uint64)];
	const uint8 *digits = bytes;
	size_t		len = sizeof(bytes);
	bool		negative;
	int64		power;
	char	   *num;

	if (frame->count != 2)
		rinq_malformed(d, "The content of tag %d must be an array of two integers.",
					   frame->tag);
	if (exponent->kind != RINQ_TAPE_UINT && exponent->kind != RINQ_TAPE_NINT)
		rinq_malformed(d, "The exponent in tag %d is not an integer of 64 bits.", frame->tag);

	/* any power this large is refused, so its exact value does not matter */
	power = (int64) Min(exponent->u.integer, (uint64) PG_INT32_MAX);
	if (exponent->kind == RINQ_TAPE_NINT)
		power = -1 - power;

	if (mantissa->kind == RINQ_TAPE_UINT || mantissa->kind == RINQ_TAPE_NINT)
	{
		negative = mantissa->kind == RINQ_TAPE_NINT;
		for (size_t i = 0; i < len; i++)
			bytes[i] = (uint8) (mantissa->u.integer >> (56 - 8 * i));
	}
	else
	{
		negative = mantissa->kind == RINQ_TAPE_BIG_NEGATIVE;
		digits = (const uint8 *) mantissa->u.text;
		len = mantissa->len;
	}

	old = MemoryContextSwitchTo(rinq_cbor_scratch(d));
	num = rinq_numeric_from_fraction(negative, digits, len, power,
									 frame->tag == RINQ_TAG_DECIMAL ? 10 : 2);
	MemoryContextSwitchTo(old);
	if (num == NULL)
		rinq_cbor_numeric_overflow(d);

	d->tape_used = frame->item;
	item = rinq_cbor_append_item(d, RINQ_TAPE_NUMERIC, RINQ_BOUND_NUMERIC + VARSIZE(num));
	item->u.text = num;
	item->len = VARSIZE(num);
}

/*
 * Leave the innermost container, whose content is complete.
 */
void
rinq_cbor_close_container(RinqDecoder *d)
{
	const RinqFrame *frame = d->top--;
	RinqTapeItem *item;

	Assert(frame > d->frames);
	if (frame->kind == RINQ_FRAME_FRACTION)
	{
		close_fraction(d, frame);
		return;
	}
	item = &d->tape[frame->item];
	Assert(frame->item < d->tape_used && (frame->kind != RINQ_FRAME_MAP || frame->count % 2 == 0));
	item->len = frame->kind == RINQ_FRAME_MAP ? frame->count / 2 : frame->count;
	item->u.tree.next = d->tape_used;
}

void
rinq_cbor_open_container(RinqDecoder *d, RinqFrameKind kind, uint32 expected)
{
	RinqFrame  *frame = d->top + 1;

	if (rinq_cbor_at_key(d))
		rinq_unsupported(d, "A map key is an array or a map.");
	if (frame > &d->frames[RINQ_CBOR_MAX_DEPTH])
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CBOR item at byte %zu is nested too deeply", d->offset),
				 errdetail("At most %d levels of arrays and maps are supported.",
						   RINQ_CBOR_MAX_DEPTH)));

	frame->count = 0;
	frame->expected = expected;
	frame->item = d->tape_used;
	frame->kind = kind;
	frame->hint = rinq_cbor_effective_hint(d);
	frame->tag = d->number;
	if (kind != RINQ_FRAME_FRACTION)
		rinq_cbor_append_item(d, kind == RINQ_FRAME_MAP ? RINQ_TAPE_OBJECT : RINQ_TAPE_ARRAY,
							  RINQ_BOUND_CONTAINER)->u.tree.offset = (uint32) d->offset;

	d->tagged = false;
	d->number = 0;
	d->hint = 0;
	d->top = frame;
	if (expected == 0)
	{
		rinq_cbor_close_container(d);
		rinq_cbor_finish_item(d);
	}
}

/*
 * Use a short text as a map key.  The text is copied.
 */
void
rinq_cbor_complete_key(RinqDecoder *d, const char *text, size_t len)
{
	char	   *copy = MemoryContextAlloc(rinq_cbor_scratch(d), len);
	RinqTapeItem *item;

	memcpy(copy, text, len);
	item = rinq_cbor_append_item(d, RINQ_TAPE_STRING, RINQ_BOUND_STRING + len);
	item->u.text = copy;
	item->len = (uint32) len;
	rinq_cbor_finish_item(d);
}

void
rinq_cbor_complete_string(RinqDecoder *d, const char *text, size_t len)
{
	RinqTapeItem *item;

	if (len > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CBOR string at byte %zu is too long for jsonb", d->offset),
				 errdetail("jsonb strings cannot exceed %d bytes.", JENTRY_OFFLENMASK)));

	item = rinq_cbor_append_item(d, RINQ_TAPE_STRING, RINQ_BOUND_STRING + len);
	item->u.text = text;
	item->len = (uint32) len;
	rinq_cbor_finish_item(d);
}
