/*-------------------------------------------------------------------------
 *
 * protocol/constraint.c
 *	  Constraints: which sessions a notification is for (section 6 of the
 *	  protocol).
 *
 * Their forms: a tree, CBOR on the wire, and text.  The text form is the one
 * that the reference peer has in its logs, with quotes where a text would be
 * ambiguous, and with braces or a last separator where the structure would be,
 * so that it reads back as what was printed.  Nothing here raises errors of its
 * own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/ident.h"
#include "cbor/stream.h"
#include "protocol/constraint.h"

static const char *const operators[] = {"*", "=", "!=", "!", "&", "|", "ns"};

static RinqConstraint *
make_constraint(RinqConstraintKind kind)
{
	RinqConstraint *constraint = palloc0(sizeof(RinqConstraint));

	constraint->kind = kind;
	constraint->key = rinq_bytes("", 0);
	constraint->value = rinq_bytes("", 0);
	return constraint;
}

static void
add_constraint_term(RinqConstraint *constraint, RinqConstraint *term)
{
	int			count = constraint->num_terms;

	/* full at each power of two */
	if (count == 0)
		constraint->terms = palloc(sizeof(RinqConstraint *));
	else if ((count & (count - 1)) == 0)
		constraint->terms = repalloc(constraint->terms, 2 * count * sizeof(RinqConstraint *));
	constraint->terms[constraint->num_terms++] = term;
}

/* Say what is wrong with a constraint, its terms left aside. */
static const char *
constraint_problem(const RinqConstraint *constraint)
{
	switch (constraint->kind)
	{
		case RINQ_CONSTRAINT_NOT:
			return constraint->num_terms == 1 ? NULL : "\"not\" needs exactly one term";
		case RINQ_CONSTRAINT_AND:
		case RINQ_CONSTRAINT_OR:
			return constraint->num_terms > 0 ? NULL : "\"and\" and \"or\" need a term";
		case RINQ_CONSTRAINT_WITHIN:
			if (constraint->num_terms == 0)
				return "\"within\" needs a term";
			if (!rinq_namespace_valid(constraint->value.data, constraint->value.len) ||
				rinq_namespace_reserved(constraint->value.data, constraint->value.len))
				return "invalid namespace";
			return NULL;
		default:
			return NULL;
	}
}

/* ---------------- CBOR ---------------- */

static RinqConstraint *decode_nested(RinqCborReader *reader, int depth, const char **problem);

static bool
decode_terms(RinqCborReader *reader, RinqConstraint *constraint, int depth, const char **problem)
{
	uint64		left;

	constraint->num_terms = 0;
	if (!rinq_cbor_enter(reader, RINQ_CBOR_ARRAY, &left))
		return !reader->failed;
	while (rinq_cbor_more(reader, &left))
	{
		RinqConstraint *term = decode_nested(reader, depth + 1, problem);

		if (term == NULL)
			return false;
		add_constraint_term(constraint, term);
	}
	return !reader->failed;
}

static RinqConstraint *
decode_nested(RinqCborReader *reader, int depth, const char **problem)
{
	RinqConstraint *constraint = make_constraint(RINQ_CONSTRAINT_NONE);
	RinqBytes	operator = rinq_bytes("", 0);
	RinqBytes	key;
	uint64		left;
	int			i;

	*problem = "it is not a constraint";
	if (depth > RINQ_CONSTRAINT_MAX_DEPTH)
	{
		*problem = "it is nested too deeply";
		return NULL;
	}
	if (!rinq_cbor_enter(reader, RINQ_CBOR_MAP, &left))
		return NULL;
	while (rinq_cbor_more(reader, &left))
	{
		if (!rinq_cbor_read_text(reader, &key))
			return NULL;
		if (rinq_bytes_are(key, "o"))
			(void) rinq_cbor_read_text(reader, &operator);
		else if (rinq_bytes_are(key, "k"))
			(void) rinq_cbor_read_text(reader, &constraint->key);
		else if (rinq_bytes_are(key, "v"))
			(void) rinq_cbor_read_text(reader, &constraint->value);
		else if (rinq_bytes_are(key, "t"))
		{
			if (!decode_terms(reader, constraint, depth, problem))
				return NULL;
		}
		else
			(void) rinq_cbor_skip(reader);
	}
	if (reader->failed)
		return NULL;
	for (i = 0; i < (int) lengthof(operators) && !rinq_bytes_are(operator, operators[i]); i++)
		;
	if (i == (int) lengthof(operators))
	{
		*problem = "its operator is unknown";
		return NULL;
	}
	constraint->kind = (RinqConstraintKind) i;
	*problem = constraint_problem(constraint);
	return *problem == NULL ? constraint : NULL;
}

/*
 * Read a constraint off the wire.  Its texts point into the data where they
 * can.
 */
RinqConstraint *
rinq_constraint_decode(RinqBytes data, const char **problem)
{
	RinqCborReader reader;
	RinqConstraint *constraint;

	if (data.len > RINQ_CONSTRAINT_MAX_SIZE)
	{
		*problem = "it is too large";
		return NULL;
	}
	rinq_cbor_reader_init(&reader, data);
	constraint = decode_nested(&reader, 1, problem);
	if (constraint != NULL && reader.rest.len > 0)
	{
		*problem = "something follows it";
		return NULL;
	}
	return constraint;
}

static void
write_constraint_text(StringInfo out, const char *key, RinqBytes value)
{
	rinq_cbor_write_text(out, rinq_bytes_str(key));
	rinq_cbor_write_text(out, value);
}

/*
 * Write a constraint as the reference peer does.
 */
void
rinq_constraint_encode(StringInfo out, const RinqConstraint *constraint)
{
	bool		has_key = constraint->key.len > 0 &&
		(constraint->kind == RINQ_CONSTRAINT_EQUAL || constraint->kind == RINQ_CONSTRAINT_NOT_EQUAL);
	bool		has_value = constraint->value.len > 0 &&
		(has_key || constraint->kind == RINQ_CONSTRAINT_EQUAL ||
		 constraint->kind == RINQ_CONSTRAINT_NOT_EQUAL || constraint->kind == RINQ_CONSTRAINT_WITHIN);
	bool		has_terms = constraint->kind >= RINQ_CONSTRAINT_NOT;
	int			i;

	rinq_cbor_write_map(out, 1 + has_terms + has_key + has_value);
	write_constraint_text(out, "o", rinq_bytes_str(operators[constraint->kind]));
	if (has_terms)
	{
		rinq_cbor_write_text(out, rinq_bytes_str("t"));
		rinq_cbor_write_array(out, constraint->num_terms);
		for (i = 0; i < constraint->num_terms; i++)
			rinq_constraint_encode(out, constraint->terms[i]);
	}
	if (has_key)
		write_constraint_text(out, "k", constraint->key);
	if (has_value)
		write_constraint_text(out, "v", constraint->value);
}

/* ---------------- printing ---------------- */

static bool
is_bare(char c)
{
	return IS_HIGHBIT_SET(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || strchr("_.-/@+#$%&~^", c) != NULL;
}

static void
print_token(StringInfo out, RinqBytes text)
{
	bool		bare = text.len > 0;
	size_t		i;

	for (i = 0; i < text.len && bare; i++)
		bare = text.data[i] != '\0' && is_bare(text.data[i]);
	if (bare)
	{
		appendBinaryStringInfo(out, text.data, (int) text.len);
		return;
	}
	appendStringInfoChar(out, '"');
	for (i = 0; i < text.len; i++)
	{
		if (text.data[i] == '"' || text.data[i] == '\\')
			appendStringInfoChar(out, '\\');
		appendStringInfoChar(out, text.data[i]);
	}
	appendStringInfoChar(out, '"');
}

static void print_term(StringInfo out, const RinqConstraint *constraint);

/* Print the inside of braces. */
static void
print_list(StringInfo out, const RinqConstraint *constraint)
{
	const char *separator = constraint->kind == RINQ_CONSTRAINT_OR ? "|" : ", ";
	int			i;

	for (i = 0; i < constraint->num_terms; i++)
	{
		if (i > 0)
			appendStringInfoString(out, separator);
		print_term(out, constraint->terms[i]);
	}
	if (constraint->num_terms == 1)
		appendStringInfoChar(out, separator[0]);
}

static void
print_braces(StringInfo out, const RinqConstraint *constraint)
{
	appendStringInfoChar(out, '{');
	if (constraint->kind == RINQ_CONSTRAINT_AND || constraint->kind == RINQ_CONSTRAINT_OR)
		print_list(out, constraint);
	else
		print_term(out, constraint);
	appendStringInfoChar(out, '}');
}

static void
print_within(StringInfo out, const RinqConstraint *constraint)
{
	const RinqConstraint *only = constraint->terms[0];

	print_token(out, constraint->value);
	appendStringInfoString(out, "::");
	if (constraint->num_terms == 1 && only->kind != RINQ_CONSTRAINT_AND)
	{
		print_braces(out, only);
		return;
	}
	appendStringInfoChar(out, '{');
	if (constraint->num_terms == 1)
		print_braces(out, only);
	else
		print_list(out, constraint);
	appendStringInfoChar(out, '}');
}

static void
print_term(StringInfo out, const RinqConstraint *constraint)
{
	switch (constraint->kind)
	{
		case RINQ_CONSTRAINT_NONE:
			appendStringInfoChar(out, '*');
			break;
		case RINQ_CONSTRAINT_EQUAL:
			if (constraint->value.len == 0)
				appendStringInfoChar(out, '!');
			print_token(out, constraint->key);
			if (constraint->value.len > 0)
			{
				appendStringInfoChar(out, '=');
				print_token(out, constraint->value);
			}
			break;
		case RINQ_CONSTRAINT_NOT_EQUAL:
			print_token(out, constraint->key);
			if (constraint->value.len > 0)
			{
				appendStringInfoString(out, "!=");
				print_token(out, constraint->value);
			}
			break;
		case RINQ_CONSTRAINT_NOT:
			appendStringInfoString(out, "! ");
			print_term(out, constraint->terms[0]);
			break;
		case RINQ_CONSTRAINT_WITHIN:
			print_within(out, constraint);
			break;
		default:
			print_braces(out, constraint);
			break;
	}
}

/*
 * Write the text form.
 */
void
rinq_constraint_print(StringInfo out, const RinqConstraint *constraint)
{
	if (constraint->kind == RINQ_CONSTRAINT_WITHIN)
		print_within(out, constraint);
	else
		print_braces(out, constraint);
}

/* ---------------- parsing ---------------- */

typedef struct Parser
{
	RinqBytes	text;
	size_t		at;
	const char *problem;		/* NULL while there is none */
} Parser;

static void
skip_constraint_space(Parser *p)
{
	while (p->at < p->text.len && strchr(" \t\r\n", p->text.data[p->at]) != NULL &&
		   p->text.data[p->at] != '\0')
		p->at++;
}

static bool
looking_at(const Parser *p, const char *what)
{
	size_t		len = strlen(what);

	return p->text.len - p->at >= len && memcmp(p->text.data + p->at, what, len) == 0;
}

static bool
accept_text(Parser *p, const char *what)
{
	if (!looking_at(p, what))
		return false;
	p->at += strlen(what);
	return true;
}

static void *
fail_parser(Parser *p, const char *problem)
{
	if (p->problem == NULL)
		p->problem = problem;
	return NULL;
}

static bool
parse_quoted(Parser *p, RinqBytes *token)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (p->at++; p->at < p->text.len; p->at++)
	{
		char		c = p->text.data[p->at];

		if (c == '"')
		{
			p->at++;
			*token = rinq_bytes(buf.data, buf.len);
			return true;
		}
		if (c == '\\' && p->at + 1 < p->text.len)
			c = p->text.data[++p->at];
		appendStringInfoChar(&buf, c);
	}
	fail_parser(p, "a quoted text does not end");
	return false;
}

static bool
parse_token(Parser *p, RinqBytes *token)
{
	size_t		start = p->at;

	if (looking_at(p, "\""))
		return parse_quoted(p, token);
	while (p->at < p->text.len && p->text.data[p->at] != '\0' && is_bare(p->text.data[p->at]))
		p->at++;
	if (p->at == start)
	{
		fail_parser(p, "a key or a value is missing");
		return false;
	}
	*token = rinq_bytes(p->text.data + start, p->at - start);
	return true;
}

static RinqConstraint *parse_term(Parser *p, int depth);

/*
 * Parse what is in braces: one term, or several.  "into" is what several terms
 * with commas belong to, if that is not a constraint of its own.
 */
static RinqConstraint *
parse_list(Parser *p, int depth, RinqConstraint *into)
{
	RinqConstraint *first;
	RinqConstraint *list = NULL;
	char		separator = '\0';

	if (depth > RINQ_CONSTRAINT_MAX_DEPTH)
		return fail_parser(p, "it is nested too deeply");
	first = parse_term(p, depth + 1);
	for (;;)
	{
		char		next;

		skip_constraint_space(p);
		if (p->problem != NULL)
			return NULL;
		if (accept_text(p, "}"))
			break;
		next = p->at < p->text.len ? p->text.data[p->at] : '\0';
		if (next != ',' && next != '|')
			return fail_parser(p, "\"}\", \",\" or \"|\" is missing");
		if (separator != '\0' && separator != next)
			return fail_parser(p, "\",\" and \"|\" are mixed: put one of them in braces");
		p->at++;
		if (separator == '\0')
		{
			list = into != NULL && next == ',' ? into :
				make_constraint(next == ',' ? RINQ_CONSTRAINT_AND : RINQ_CONSTRAINT_OR);
			add_constraint_term(list, first);
			separator = next;
		}
		skip_constraint_space(p);
		if (list->num_terms == 1 && into != list && accept_text(p, "}"))
			break;				/* a list of one */
		add_constraint_term(list, parse_term(p, depth + 1));
	}
	return list != NULL ? list : first;
}

static RinqConstraint *
parse_within(Parser *p, RinqBytes namespace, int depth)
{
	RinqConstraint *constraint = make_constraint(RINQ_CONSTRAINT_WITHIN);
	RinqConstraint *list;

	constraint->value = namespace;
	skip_constraint_space(p);
	if (!accept_text(p, "{"))
		return fail_parser(p, "\"{\" is missing");
	list = parse_list(p, depth, constraint);
	if (list == NULL)
		return NULL;
	if (list != constraint)
		add_constraint_term(constraint, list);
	p->problem = constraint_problem(constraint);
	return constraint;
}

static RinqConstraint *
parse_term(Parser *p, int depth)
{
	RinqConstraint *constraint;
	RinqBytes	token;

	skip_constraint_space(p);
	if (depth > RINQ_CONSTRAINT_MAX_DEPTH)
		return fail_parser(p, "it is nested too deeply");
	if (accept_text(p, "*"))
		return make_constraint(RINQ_CONSTRAINT_NONE);
	if (accept_text(p, "{"))
		return parse_list(p, depth, NULL);
	if (accept_text(p, "!"))
	{
		if (p->at < p->text.len && strchr(" \t\r\n{!", p->text.data[p->at]) == NULL)
		{
			constraint = make_constraint(RINQ_CONSTRAINT_EQUAL);
			return parse_token(p, &constraint->key) ? constraint : NULL;
		}
		constraint = make_constraint(RINQ_CONSTRAINT_NOT);
		add_constraint_term(constraint, parse_term(p, depth + 1));
		return constraint;
	}
	if (!parse_token(p, &token))
		return NULL;
	if (accept_text(p, "::"))
		return parse_within(p, token, depth);
	skip_constraint_space(p);
	constraint = make_constraint(looking_at(p, "=") ? RINQ_CONSTRAINT_EQUAL : RINQ_CONSTRAINT_NOT_EQUAL);
	constraint->key = token;
	if (accept_text(p, "=") || accept_text(p, "!="))
	{
		skip_constraint_space(p);
		if (!parse_token(p, &constraint->value))
			return NULL;
	}
	return constraint;
}

/*
 * Read the text form.  When it is none, *position is the byte at which that
 * was noticed.
 */
RinqConstraint *
rinq_constraint_parse(RinqBytes text, const char **problem, size_t *position)
{
	Parser		p = {text, 0, NULL};
	RinqConstraint *constraint;

	skip_constraint_space(&p);
	if (looking_at(&p, "{"))
		constraint = parse_term(&p, 0);
	else
	{
		RinqBytes	namespace;

		constraint = NULL;
		if (parse_token(&p, &namespace))
		{
			if (accept_text(&p, "::"))
				constraint = parse_within(&p, namespace, 0);
			else
				fail_parser(&p, "a constraint begins with \"{\", or a namespace and \"::{\"");
		}
	}
	skip_constraint_space(&p);
	if (p.problem == NULL && p.at < text.len)
		fail_parser(&p, "something follows it");
	*problem = p.problem;
	*position = p.at;
	return p.problem == NULL ? constraint : NULL;
}
