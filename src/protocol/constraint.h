/*-------------------------------------------------------------------------
 *
 * protocol/constraint.h
 *	  Constraints: which sessions a notification is for (section 6 of the
 *	  protocol).
 *
 * Texts are in UTF-8, as on the wire.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CONSTRAINT_H
#define RINQ_CONSTRAINT_H

#include "postgres.h"

#include "base/bytes.h"
#include "lib/stringinfo.h"
#include "protocol/attribute.h"

/* constraints within one another */
#define RINQ_CONSTRAINT_MAX_DEPTH 64

/* bytes in CBOR, sent or received: what matching costs for each session follows them */
#define RINQ_CONSTRAINT_MAX_SIZE 65536

typedef enum RinqConstraintKind
{
	RINQ_CONSTRAINT_NONE,		/* always true */
	RINQ_CONSTRAINT_EQUAL,		/* key, value; with an empty one: is empty */
	RINQ_CONSTRAINT_NOT_EQUAL,
	RINQ_CONSTRAINT_NOT,		/* one term */
	RINQ_CONSTRAINT_AND,
	RINQ_CONSTRAINT_OR,
	RINQ_CONSTRAINT_WITHIN		/* all terms, in namespace "value" */
} RinqConstraintKind;

typedef struct RinqConstraint
{
	RinqConstraintKind kind;
	RinqBytes	key;
	RinqBytes	value;
	struct RinqConstraint **terms;
	int			num_terms;
} RinqConstraint;

/* NULL when it is none, and then *problem says why */
extern RinqConstraint *rinq_constraint_decode(RinqBytes data, const char **problem);
extern RinqConstraint *rinq_constraint_parse(RinqBytes text, const char **problem, size_t *position);

extern void rinq_constraint_encode(StringInfo out, const RinqConstraint *constraint);
extern void rinq_constraint_print(StringInfo out, const RinqConstraint *constraint);

/* protocol/constraint_match.c: a constraint that is prepared for matching many sessions */
typedef struct RinqMatcher RinqMatcher;

extern RinqMatcher *rinq_matcher_make(const RinqConstraint *constraint, RinqBytes namespace);
extern bool rinq_matcher_matches(RinqMatcher *matcher, RinqAttributeTable *attributes);

#endif							/* RINQ_CONSTRAINT_H */
