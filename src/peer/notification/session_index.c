/*-------------------------------------------------------------------------
 *
 * session_index.c
 *	  Finding the sessions that a constraint may match, without looking at all
 *	  of them: by an attribute that has to have a certain value.
 *
 * There is an index for each namespace and key that constraints have asked for;
 * of too many, the one that was used longest ago goes.  Each holds the sessions
 * that listen to anything and have a value there, by a hash of it.  What is found
 * is to be matched against the whole constraint; nothing that matches is left
 * out.
 *
 * An index is built in steps, when a constraint first asks for it, and takes no
 * part in searches before it is complete.  Each constraint has one built at most,
 * so that one with many keys costs no more than another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/hash_table.h"
#include "common/hashfn.h"
#include "peer/notification/session_index.h"
#include "peer/session/sessions.h"
#include "peer/turn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_INDEXES 16

/* sessions with the same hash of an attribute's value */
typedef struct Posting
{
	uint64		hash;			/* hash key */
	uint32		count;
	dlist_head	members;
} Posting;

typedef struct PostingMember
{
	uint32		seq;			/* hash key */
	RinqSession *session;
	Posting    *posting;
	dlist_node	node;
} PostingMember;

typedef struct KeyIndex
{
	RinqBytes	namespace;		/* the data is NULL while the place is free */
	RinqBytes	key;
	bool		complete;		/* all sessions are in it */
	uint64		used;			/* number of the search that used it last */
	MemoryContext context;
	HTAB	   *members;		/* PostingMember, by the session's number */
	HTAB	   *postings;		/* Posting, by the value's hash */
} KeyIndex;

static KeyIndex indexes[MAX_INDEXES];
static uint64 searches = 0;

/* all sessions that listen to anything */
static dlist_head listening = DLIST_STATIC_INIT(listening);

/* the index that is being built, and the session that it comes to next */
static KeyIndex * building = NULL;
static dlist_node *build_next = NULL;

/* sessions that a search has found, still to be taken */
typedef struct PostingRef
{
	KeyIndex   *index;
	uint64		hash;
} PostingRef;

static List *found_refs = NIL;	/* of PostingRef, in memory of the caller */
static int	next_ref = 0;
static PostingMember * next_member = NULL;

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

static PostingMember *
next_posting_member(PostingMember * member)
{
	dlist_head *list = &member->posting->members;

	return !dlist_has_next(list, &member->node) ? NULL :
		dlist_container(PostingMember, node, dlist_next_node(list, &member->node));
}

static void
leave_index(KeyIndex * index, RinqSession * session)
{
	PostingMember *member = hash_search(index->members, &session->seq, HASH_FIND, NULL);
	Posting    *posting;

	if (member == NULL)
		return;
	if (next_member == member)
		next_member = next_posting_member(member);
	posting = member->posting;
	dlist_delete(&member->node);
	Assert(posting->count > 0 && member->session == session);
	if (--posting->count == 0)
		hash_search(index->postings, &posting->hash, HASH_REMOVE, NULL);
	hash_search(index->members, &session->seq, HASH_REMOVE, NULL);
}

static void
join_index(KeyIndex * index, RinqSession * session)
{
	RinqAttribute attribute;
	PostingMember *member;
	Posting    *posting;
	uint64		hash;
	bool		found;

	if (!rinq_attribute_find(session->attributes, index->namespace, index->key, &attribute) ||
		attribute.value.len == 0)
		return;
	hash = hash_value(attribute.value);
	member = hash_search(index->members, &session->seq, HASH_ENTER, &found);
	if (found)
		return;					/* the session has come while the index is
								 * being built */
	posting = hash_search(index->postings, &hash, HASH_ENTER, &found);
	if (!found)
	{
		posting->count = 0;
		dlist_init(&posting->members);
	}
	member->session = session;
	member->posting = posting;
	Assert(posting->count > 0 || dlist_is_empty(&posting->members));
	dlist_push_tail(&posting->members, &member->node);
	posting->count++;
}

static dlist_node *
next_listening(dlist_node *node)
{
	return dlist_has_next(&listening, node) ? dlist_next_node(&listening, node) : NULL;
}

/*
 * Add a session that begins to listen.
 */
void
rinq_index_add(RinqSession * session)
{
	int			i;

	dlist_push_tail(&listening, &session->listening);
	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data != NULL)
			join_index(&indexes[i], session);
	}
}

/*
 * Remove a session that does not listen to anything any more.
 */
void
rinq_index_remove(RinqSession * session)
{
	int			i;

	if (build_next == &session->listening)
		build_next = next_listening(build_next);
	dlist_delete(&session->listening);
	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data != NULL)
			leave_index(&indexes[i], session);
	}
}

/*
 * Note that an attribute of a session that listens may have another value than
 * before.
 */
void
rinq_index_changed(RinqSession * session, RinqBytes namespace, RinqBytes key)
{
	KeyIndex   *index = find_index(namespace, key);

	if (index == NULL)
		return;
	leave_index(index, session);
	join_index(index, session);
}

/*
 * Note that all attributes of a namespace may have another value than before.
 */
void
rinq_index_namespace_changed(RinqSession * session, RinqBytes namespace)
{
	int			i;

	for (i = 0; i < MAX_INDEXES; i++)
	{
		if (indexes[i].namespace.data == NULL ||
			!rinq_bytes_equal(indexes[i].namespace, namespace))
			continue;
		leave_index(&indexes[i], session);
		join_index(&indexes[i], session);
	}
}

/* Return a place for another index; NULL when this search uses them all. */
static KeyIndex *
unused_index(void)
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
make_index_table(KeyIndex * index, const char *name, Size keysize, Size entrysize)
{
	return rinq_make_hash_table(name, 256, keysize, entrysize, index->context);
}

static RinqBytes
copy_into(MemoryContext context, RinqBytes bytes)
{
	char	   *copy = MemoryContextAlloc(context, bytes.len + 1);

	memcpy(copy, bytes.data, bytes.len);
	return rinq_bytes(copy, bytes.len);
}

/* begin to build an index; NULL when there is no place for it */
static KeyIndex *
make_index(RinqBytes namespace, RinqBytes key)
{
	KeyIndex   *index = unused_index();

	if (index == NULL)
		return NULL;
	index->context = AllocSetContextCreate(TopMemoryContext, "rinq session index",
										   ALLOCSET_DEFAULT_SIZES);
	index->members = make_index_table(index, "rinq index members", sizeof(uint32),
									  sizeof(PostingMember));
	index->postings = make_index_table(index, "rinq index postings", sizeof(uint64), sizeof(Posting));
	index->namespace = copy_into(index->context, namespace);
	index->key = copy_into(index->context, key);
	index->used = searches;
	return index;
}

/* what a search is about, and what it has found */
typedef struct Search
{
	RinqBytes	missing_namespace;	/* of the first index it would have used;
									 * NULL data: none */
	RinqBytes	missing_key;
} Search;

/*
 * Return an index that can be used now; notes the first one that is missing.
 */
static KeyIndex *
usable_index(Search *search, RinqBytes namespace, RinqBytes key)
{
	KeyIndex   *index = find_index(namespace, key);

	if (index != NULL && index->complete)
	{
		index->used = searches;
		return index;
	}
	if (search->missing_namespace.data == NULL)
	{
		search->missing_namespace = namespace;
		search->missing_key = key;
	}
	return NULL;
}

static PostingRef *
make_posting_ref(KeyIndex * index, uint64 hash)
{
	PostingRef *ref = palloc(sizeof(PostingRef));

	ref->index = index;
	ref->hash = hash;
	return ref;
}

/*
 * Find the places of sessions that a constraint may match, if it demands certain
 * values, and their number.
 */
static bool
find_posting_refs(Search *search, const RinqConstraint *constraint, RinqBytes namespace, List **refs,
				  uint64 *count)
{
	RinqBytes	inner = constraint->kind == RINQ_CONSTRAINT_WITHIN ? constraint->value : namespace;
	KeyIndex   *index;
	Posting    *posting;
	uint64		hash;
	bool		usable = false;
	int			i;

	*refs = NIL;
	*count = 0;
	switch (constraint->kind)
	{
		case RINQ_CONSTRAINT_EQUAL:
			/* no value is as good as an empty one, and cannot be looked up */
			index = constraint->value.len == 0 ? NULL :
				usable_index(search, namespace, constraint->key);
			if (index == NULL)
				return false;
			hash = hash_value(constraint->value);
			posting = hash_search(index->postings, &hash, HASH_FIND, NULL);
			if (posting != NULL)
			{
				*refs = list_make1(make_posting_ref(index, hash));
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

				if (!find_posting_refs(search, constraint->terms[i], inner, &found, &found_count) ||
					(usable && found_count >= *count))
					continue;
				usable = true;
				*refs = found;
				*count = found_count;
			}
			return usable;
		case RINQ_CONSTRAINT_OR:
			for (i = 0; i < constraint->num_terms; i++)
			{
				List	   *found;
				uint64		found_count;

				if (!find_posting_refs(search, constraint->terms[i], inner, &found, &found_count))
					return false;
				*refs = list_concat(*refs, found);
				*count += found_count;
			}
			return true;
		default:
			return false;
	}
}

/*
 * Build an index that a constraint needs; false when the slice is over, and it is
 * not complete.  There is one search at a time, from this to rinq_index_end.
 */
bool
rinq_index_build(const RinqConstraint *constraint, RinqBytes namespace)
{
	Assert(found_refs == NIL);
	if (building == NULL)
	{
		Search		search = {{NULL, 0}, {NULL, 0}};
		List	   *refs;
		uint64		count;

		searches++;
		(void) find_posting_refs(&search, constraint, namespace, &refs, &count);
		list_free_deep(refs);
		if (search.missing_namespace.data == NULL)
			return true;
		building = make_index(search.missing_namespace, search.missing_key);
		if (building == NULL)
			return true;
		build_next = dlist_is_empty(&listening) ? NULL : dlist_head_node(&listening);
	}
	while (build_next != NULL)
	{
		join_index(building, dlist_container(RinqSession, listening, build_next));
		build_next = next_listening(build_next);
		if (rinq_slice_over())
			return false;
	}
	building->complete = true;
	building = NULL;
	return true;
}

/*
 * Find the sessions that a constraint may match; false when all have to be looked
 * at.  They are taken with rinq_index_next, in which one may come several times.
 */
bool
rinq_index_find(const RinqConstraint *constraint, RinqBytes namespace)
{
	Search		search = {{NULL, 0}, {NULL, 0}};
	uint64		count;

	Assert(found_refs == NIL);
	searches++;
	next_ref = 0;
	next_member = NULL;
	if (find_posting_refs(&search, constraint, namespace, &found_refs, &count))
		return true;
	found_refs = NIL;
	return false;
}

/*
 * Take the next session that the search has found, NULL at the end.  Sessions may
 * come and go between two calls.
 */
RinqSession *
rinq_index_next(void)
{
	PostingMember *member = next_member;

	while (member == NULL && next_ref < list_length(found_refs))
	{
		PostingRef *ref = list_nth(found_refs, next_ref++);
		Posting    *posting = hash_search(ref->index->postings, &ref->hash, HASH_FIND, NULL);

		if (posting != NULL)
			member = dlist_container(PostingMember, node, dlist_head_node(&posting->members));
	}
	if (member == NULL)
		return NULL;
	next_member = next_posting_member(member);
	return member->session;
}

/*
 * End the search, whose memory is its caller's.
 */
void
rinq_index_end(void)
{
	found_refs = NIL;
	next_member = NULL;
}
