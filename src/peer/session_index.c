/*-------------------------------------------------------------------------
 *
 * session_index.c
 *	  Finding the sessions that a constraint may match, without looking at all
 *	  of them: by an attribute that has to have a certain value.
 *
 * There is an index for each namespace and key that constraints have asked for,
 * made when the first one does; of too many, the one that was used longest ago
 * goes.  Each holds the sessions that listen to anything and have a value
 * there, by a hash of it.  What is found is to be matched against the whole
 * constraint; nothing that matches is left out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "peer/session_index.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_INDEXES 16

typedef struct KeyIndex
{
	RinqBytes	namespace;		/* its data is NULL while the place is free */
	RinqBytes	key;
	uint64		used;			/* number of the search that used it last */
	MemoryContext context;
	HTAB	   *members;		/* RinqPostingMember, by the session's number */
	HTAB	   *postings;		/* RinqPosting, by the value's hash */
} KeyIndex;

static KeyIndex indexes[MAX_INDEXES];
static uint64 searches = 0;

/* all sessions that listen to anything */
static dlist_head listening = DLIST_STATIC_INIT(listening);

static uint64
hash_value(RinqBytes value)
{
	return hash_bytes_extended((const unsigned char *) value.data, (int) value.len, 0);
}

static KeyIndex *
find_index(RinqBytes namespace, RinqBytes key)
{
	int			i;

	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data != NULL && rinq_bytes_equal(indexes[i].key, key) &&
			rinq_bytes_equal(indexes[i].namespace, namespace))
			return &indexes[i];
	}
	return NULL;
}

static void
leave(KeyIndex *index, RinqSession *session)
{
	RinqPostingMember *member = hash_search(index->members, &session->seq, HASH_FIND, NULL);
	RinqPosting *posting;

	if (member == NULL)
		return;
	posting = member->posting;
	dlist_delete(&member->node);
	if (--posting->count == 0)
		hash_search(index->postings, &posting->hash, HASH_REMOVE, NULL);
	hash_search(index->members, &session->seq, HASH_REMOVE, NULL);
}

static void
join(KeyIndex *index, RinqSession *session)
{
	RinqAttribute attribute;
	RinqPostingMember *member;
	RinqPosting *posting;
	uint64		hash;
	bool		found;

	if (!rinq_attribute_find(session->attributes, index->namespace, index->key, &attribute) ||
		attribute.value.len == 0)
		return;
	hash = hash_value(attribute.value);
	posting = hash_search(index->postings, &hash, HASH_ENTER, &found);
	if (!found)
	{
		posting->count = 0;
		dlist_init(&posting->members);
	}
	member = hash_search(index->members, &session->seq, HASH_ENTER, NULL);
	member->session = session;
	member->posting = posting;
	dlist_push_tail(&posting->members, &member->node);
	posting->count++;
}

/*
 * A session begins to listen.
 */
void
rinq_index_add(RinqSession *session)
{
	int			i;

	dlist_push_tail(&listening, &session->listening);
	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data != NULL)
			join(&indexes[i], session);
	}
}

/*
 * It does not listen to anything any more.
 */
void
rinq_index_remove(RinqSession *session)
{
	int			i;

	dlist_delete(&session->listening);
	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data != NULL)
			leave(&indexes[i], session);
	}
}

/*
 * An attribute of a session that listens may have another value than before.
 */
void
rinq_index_changed(RinqSession *session, RinqBytes namespace, RinqBytes key)
{
	KeyIndex   *index = find_index(namespace, key);

	if (index == NULL)
		return;
	leave(index, session);
	join(index, session);
}

/*
 * All attributes of a namespace may have.
 */
void
rinq_index_namespace_changed(RinqSession *session, RinqBytes namespace)
{
	int			i;

	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data == NULL ||
			!rinq_bytes_equal(indexes[i].namespace, namespace))
			continue;
		leave(&indexes[i], session);
		join(&indexes[i], session);
	}
}

/* a place for another index; NULL when this search uses them all */
static KeyIndex *
free_place(void)
{
	KeyIndex   *oldest = NULL;
	int			i;

	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data == NULL)
			return &indexes[i];
		if (oldest == NULL || indexes[i].used < oldest->used)
			oldest = &indexes[i];
	}
	if (oldest->used == searches)
		return NULL;
	MemoryContextDelete(oldest->context);
	memset(oldest, 0, sizeof(*oldest));
	return oldest;
}

static HTAB *
make_table(KeyIndex *index, const char *name, Size keysize, Size entrysize)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = index->context;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static RinqBytes
copy_into(MemoryContext context, RinqBytes bytes)
{
	char	   *copy = MemoryContextAlloc(context, bytes.len + 1);

	memcpy(copy, bytes.data, bytes.len);
	return rinq_bytes(copy, bytes.len);
}

static KeyIndex *
get_index(RinqBytes namespace, RinqBytes key)
{
	KeyIndex   *index = find_index(namespace, key);
	dlist_iter	iter;

	if (index == NULL)
	{
		index = free_place();
		if (index == NULL)
			return NULL;
		index->context = AllocSetContextCreate(TopMemoryContext, "rinq session index",
											   ALLOCSET_DEFAULT_SIZES);
		index->members = make_table(index, "rinq index members", sizeof(uint32),
									sizeof(RinqPostingMember));
		index->postings = make_table(index, "rinq index postings", sizeof(uint64),
									 sizeof(RinqPosting));
		index->namespace = copy_into(index->context, namespace);
		index->key = copy_into(index->context, key);
		dlist_foreach(iter, &listening)
			join(index, dlist_container(RinqSession, listening, iter.cur));
	}
	index->used = searches;
	return index;
}

/*
 * The sessions that a constraint may match, if it demands certain values: as
 * postings, and their number.
 */
static bool
search(const RinqConstraint *constraint, RinqBytes namespace, List **postings, uint64 *count)
{
	RinqBytes	inner = constraint->kind == RINQ_CONSTRAINT_WITHIN ? constraint->value : namespace;
	KeyIndex   *index;
	RinqPosting *posting;
	uint64		hash;
	bool		usable = false;
	int			i;

	*postings = NIL;
	*count = 0;
	switch (constraint->kind)
	{
		case RINQ_CONSTRAINT_EQUAL:
			/* no value is as good as an empty one, and cannot be looked up */
			index = constraint->value.len == 0 ? NULL : get_index(namespace, constraint->key);
			if (index == NULL)
				return false;
			hash = hash_value(constraint->value);
			posting = hash_search(index->postings, &hash, HASH_FIND, NULL);
			if (posting != NULL)
			{
				*postings = list_make1(posting);
				*count = posting->count;
			}
			return true;
		case RINQ_CONSTRAINT_AND:
		case RINQ_CONSTRAINT_WITHIN:
			/* one of the terms is enough: that which leaves the fewest */
			for (i = 0; i < constraint->num_terms && !(usable && *count == 0); i++)
			{
				List	   *found;
				uint64		found_count;

				if (!search(constraint->terms[i], inner, &found, &found_count) ||
					(usable && found_count >= *count))
					continue;
				usable = true;
				*postings = found;
				*count = found_count;
			}
			return usable;
		case RINQ_CONSTRAINT_OR:
			for (i = 0; i < constraint->num_terms; i++)
			{
				List	   *found;
				uint64		found_count;

				if (!search(constraint->terms[i], inner, &found, &found_count))
					return false;
				*postings = list_concat(*postings, found);
				*count += found_count;
			}
			return true;
		default:
			return false;
	}
}

/*
 * Finds the sessions that a constraint may match, as a list of RinqPosting, in
 * which one may be found several times; false when all have to be looked at.
 */
bool
rinq_index_find(const RinqConstraint *constraint, RinqBytes namespace, List **postings)
{
	uint64		count;

	searches++;
	return search(constraint, namespace, postings, &count);
}
