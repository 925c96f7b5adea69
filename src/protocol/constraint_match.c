/*-------------------------------------------------------------------------
 *
 * protocol/constraint_match.c
 *	  Matching sessions against a constraint.
 *
 * A constraint may have thousands of terms, and be for thousands of sessions,
 * most of which have few attributes.  Its tree is evaluated once for a session
 * without attributes.  For each other one, the terms are looked up that an
 * attribute of the session makes true or false; each changes the count of true
 * terms of what it is a term of, and so on upwards as long as that changes.  Then
 * all is put back.  The cost follows the attributes of a session and the terms
 * about them; where a session has more attributes than the constraint has terms,
 * the terms are evaluated one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "protocol/constraint.h"

/* so few terms are evaluated one by one, whatever a session has */
#define FEW_TERMS 8

#define NO_NODE (-1)

/* a constraint of the tree, with its value for the session being looked at */
typedef struct Node
{
	RinqConstraintKind kind;
	bool		value;
	int			parent;			/* what it is a term of, or NO_NODE */
	int			num_terms;
	int			true_terms;
	int			next;			/* with the same bucket: comparisons of
								 * attributes */
	RinqBytes	namespace;		/* of a comparison, like these two */
	RinqBytes	key;
	RinqBytes	constant;
} Node;

struct RinqMatcher
{
	const RinqConstraint *constraint;
	RinqBytes	namespace;
	int			num_comparisons;
	Node	   *nodes;			/* NULL when there are few; the first one is
								 * the whole */
	int			num_nodes;
	int		   *buckets;		/* comparisons, by the hash of what they
								 * compare */
	uint32		bucket_mask;
};

static bool
is_comparison(const RinqConstraint *constraint)
{
	return constraint->kind == RINQ_CONSTRAINT_EQUAL ||
		constraint->kind == RINQ_CONSTRAINT_NOT_EQUAL;
}

/*
 * Return the number of terms that matter: what the wire says beside a
 * comparison means nothing.
 */
static int
num_terms(const RinqConstraint *constraint)
{
	return constraint->kind >= RINQ_CONSTRAINT_NOT ? constraint->num_terms : 0;
}

static void
count_nodes(const RinqConstraint *constraint, int *nodes, int *comparisons)
{
	int			i;

	(*nodes)++;
	*comparisons += is_comparison(constraint);
	for (i = 0; i < num_terms(constraint); i++)
		count_nodes(constraint->terms[i], nodes, comparisons);
}

static uint32
bucket_of(const RinqMatcher *matcher, RinqBytes namespace, RinqBytes key, RinqBytes constant)
{
	uint32		hash = hash_bytes((const unsigned char *) key.data, (int) key.len);

	hash = hash_combine(hash, hash_bytes((const unsigned char *) namespace.data,
										 (int) namespace.len));
	return hash_combine(hash, hash_bytes((const unsigned char *) constant.data,
										 (int) constant.len)) & matcher->bucket_mask;
}

/* Compute the value of a node, from its terms. */
static bool
evaluate_node(const Node *node)
{
	Assert(node->true_terms >= 0 && node->true_terms <= node->num_terms);
	switch (node->kind)
	{
		case RINQ_CONSTRAINT_NOT:
			return node->true_terms == 0;
		case RINQ_CONSTRAINT_OR:
			return node->true_terms > 0;
		default:
			return node->true_terms == node->num_terms;
	}
}

/* add a constraint with its terms, as they are for a session without attributes */
static int
add_node(RinqMatcher *matcher, const RinqConstraint *constraint, RinqBytes namespace, int parent)
{
	int			index = matcher->num_nodes++;
	Node	   *node = &matcher->nodes[index];
	int			i;

	Assert(parent < index);
	memset(node, 0, sizeof(*node));
	node->kind = constraint->kind;
	node->parent = parent;
	node->next = NO_NODE;
	if (constraint->kind == RINQ_CONSTRAINT_WITHIN)
		namespace = constraint->value;
	if (is_comparison(constraint))
	{
		uint32		bucket = bucket_of(matcher, namespace, constraint->key, constraint->value);

		node->namespace = namespace;
		node->key = constraint->key;
		node->constant = constraint->value;
		node->value = (constraint->value.len == 0) == (constraint->kind == RINQ_CONSTRAINT_EQUAL);
		node->next = matcher->buckets[bucket];
		matcher->buckets[bucket] = index;
		return index;
	}
	node->num_terms = num_terms(constraint);
	for (i = 0; i < node->num_terms; i++)
	{
		int			term = add_node(matcher, constraint->terms[i], namespace, index);

		node->true_terms += matcher->nodes[term].value;
	}
	node->value = evaluate_node(node);
	return index;
}

/*
 * Prepare a constraint for matching sessions.  The result refers to it; attributes
 * are those of "namespace", where the constraint does not say otherwise.
 */
RinqMatcher *
rinq_matcher_make(const RinqConstraint *constraint, RinqBytes namespace)
{
	RinqMatcher *matcher = palloc0(sizeof(RinqMatcher));
	int			num_nodes = 0;

	matcher->constraint = constraint;
	matcher->namespace = namespace;
	count_nodes(constraint, &num_nodes, &matcher->num_comparisons);
	if (matcher->num_comparisons <= FEW_TERMS)
		return matcher;
	matcher->bucket_mask = pg_nextpower2_32(2 * (uint32) matcher->num_comparisons) - 1;
	matcher->buckets = palloc(((Size) matcher->bucket_mask + 1) * sizeof(int));
	memset(matcher->buckets, 0xFF, ((Size) matcher->bucket_mask + 1) * sizeof(int));
	matcher->nodes = palloc(num_nodes * sizeof(Node));
	(void) add_node(matcher, constraint, namespace, NO_NODE);
	Assert(matcher->num_nodes == num_nodes);
	return matcher;
}

/* give a node the other value, and whatever changes by that */
static void
flip_node(RinqMatcher *matcher, int index)
{
	for (;;)
	{
		Node	   *node = &matcher->nodes[index];
		Node	   *parent;

		node->value = !node->value;
		if (node->parent == NO_NODE)
			return;
		parent = &matcher->nodes[node->parent];
		Assert(node->parent >= 0 && node->parent < index);
		parent->true_terms += node->value ? 1 : -1;
		if (evaluate_node(parent) == parent->value)
			return;
		index = node->parent;
	}
}

/* flip all comparisons of an attribute with a constant */
static void
flip_comparisons(RinqMatcher *matcher, const RinqAttributeEntry *entry, RinqBytes constant)
{
	RinqBytes	namespace = rinq_entry_namespace(entry);
	RinqBytes	key = rinq_entry_key(entry);
	int			index = matcher->buckets[bucket_of(matcher, namespace, key, constant)];

	for (; index != NO_NODE; index = matcher->nodes[index].next)
	{
		const Node *node = &matcher->nodes[index];

		if (rinq_bytes_equal(node->key, key) && rinq_bytes_equal(node->constant, constant) &&
			rinq_bytes_equal(node->namespace, namespace))
			flip_node(matcher, index);
	}
}

/* flip what the attributes of a session change; a second time puts all back */
static void
apply_attributes(RinqMatcher *matcher, RinqAttributeTable *attributes)
{
	RinqAttributeScan scan;
	const RinqAttributeEntry *entry;

	rinq_attribute_scan_begin(&scan, attributes);
	while ((entry = rinq_attribute_scan_next(&scan)) != NULL)
	{
		if (entry->value_len == 0)
			continue;

		/*
		 * it is not empty any more, and has this value; with others nothing
		 * changes
		 */
		flip_comparisons(matcher, entry, rinq_bytes("", 0));
		if (entry->value_len <= RINQ_CONSTRAINT_MAX_SIZE)
			flip_comparisons(matcher, entry, rinq_entry_value(entry));
	}
}

/* Match a constraint term by term. */
static bool
match_terms(const RinqConstraint *constraint, RinqBytes namespace, RinqAttributeTable *attributes)
{
	RinqAttribute attribute;
	int			i;

	switch (constraint->kind)
	{
		case RINQ_CONSTRAINT_NONE:
			return true;
		case RINQ_CONSTRAINT_EQUAL:
		case RINQ_CONSTRAINT_NOT_EQUAL:
			(void) rinq_attribute_find(attributes, namespace, constraint->key, &attribute);
			return rinq_bytes_equal(attribute.value, constraint->value) ==
				(constraint->kind == RINQ_CONSTRAINT_EQUAL);
		case RINQ_CONSTRAINT_NOT:
			Assert(constraint->num_terms == 1);
			return !match_terms(constraint->terms[0], namespace, attributes);
		case RINQ_CONSTRAINT_OR:
			for (i = 0; i < constraint->num_terms; i++)
			{
				if (match_terms(constraint->terms[i], namespace, attributes))
					return true;
			}
			return false;
		default:
			if (constraint->kind == RINQ_CONSTRAINT_WITHIN)
				namespace = constraint->value;
			for (i = 0; i < constraint->num_terms; i++)
			{
				if (!match_terms(constraint->terms[i], namespace, attributes))
					return false;
			}
			return true;
	}
}

/*
 * Tell whether a session with these attributes matches.
 */
bool
rinq_matcher_matches(RinqMatcher *matcher, RinqAttributeTable *attributes)
{
	bool		result;

	if (matcher->nodes == NULL ||
		rinq_attributes_count(attributes) >= matcher->num_comparisons)
		return match_terms(matcher->constraint, matcher->namespace, attributes);
	apply_attributes(matcher, attributes);
	result = matcher->nodes[0].value;
	apply_attributes(matcher, attributes);
	return result;
}
