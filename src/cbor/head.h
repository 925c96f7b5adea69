/*-------------------------------------------------------------------------
 *
 * head.h
 *	  The head of a CBOR item: a byte with its major type and what is called
 *	  additional information, and an argument of 0, 1, 2, 4 or 8 bytes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_HEAD_H
#define RINQ_CBOR_HEAD_H

#define RINQ_HEAD_BREAK 0xFF

#define RINQ_INFO_DIRECT 24		/* less than this is the argument itself */
#define RINQ_INFO_LAST 27		/* says that the argument has 8 bytes */
#define RINQ_INFO_INDEFINITE 31

typedef enum RinqMajorType
{
	RINQ_MAJOR_UINT,
	RINQ_MAJOR_NINT,
	RINQ_MAJOR_BYTES,
	RINQ_MAJOR_TEXT,
	RINQ_MAJOR_ARRAY,
	RINQ_MAJOR_MAP,
	RINQ_MAJOR_TAG,
	RINQ_MAJOR_SIMPLE
} RinqMajorType;

static inline RinqMajorType
rinq_head_major(uint8 head)
{
	return (RinqMajorType) (head >> 5);
}

static inline uint8
rinq_head_info(uint8 head)
{
	return head & 0x1F;
}

/*
 * Return how many bytes of argument follow, of a head that is none of the
 * reserved ones.
 */
static inline size_t
rinq_head_argument_size(uint8 head)
{
	uint8		info = rinq_head_info(head);

	Assert(info <= RINQ_INFO_LAST || info == RINQ_INFO_INDEFINITE);
	return info < RINQ_INFO_DIRECT || info == RINQ_INFO_INDEFINITE ? 0 :
		(size_t) 1 << (info - RINQ_INFO_DIRECT);
}

/*
 * Read the argument of a head, all of whose bytes are there.
 */
static inline uint64
rinq_head_argument(const uint8 *head)
{
	size_t		size = rinq_head_argument_size(*head);
	uint64		value = 0;
	size_t		i;

	if (size == 0)
		return rinq_head_info(*head);
	for (i = 1; i <= size; i++)
		value = value << 8 | head[i];
	return value;
}

#endif							/* RINQ_CBOR_HEAD_H */
