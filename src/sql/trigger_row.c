/*-------------------------------------------------------------------------
 *
 * trigger_row.c
 *	  Rows of a table as rinq_notify_trigger sends them, and the constraint that
 *	  goes with the values of a row.
 *
 * Values are what to_jsonb makes of them, in a message and in a constraint: the
 * same for whichever session has changed the row, whatever its settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "cbor/cbor_jsonb.h"
#include "cbor/stream.h"
#include "pgtime.h"
#include "sql/arguments.h"
#include "sql/trigger_plan.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

static void
fix_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

static bool
is_utc(const char *zone)
{
	return zone != NULL && (strcmp(zone, "UTC") == 0 || strcmp(zone, "Etc/UTC") == 0 ||
							strcmp(zone, "GMT") == 0);
}

/*
 * Give the settings that values look different with the values that they always
 * have here.  The result is for AtEOXact_GUC, which takes that back; so does the
 * end of a transaction that failed.
 */
int
rinq_trigger_fix_settings(const RinqTriggerPlan *plan)
{
	int			level = NewGUCNestLevel();

	/* most sessions have these, and setting them takes time */
	if (DateStyle != USE_ISO_DATES)
		fix_setting("datestyle", "ISO");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		fix_setting("intervalstyle", "postgres");
	if (!is_utc(pg_get_timezone_name(session_timezone)))
		fix_setting("timezone", "UTC");
	if (extra_float_digits < 1)
		fix_setting("extra_float_digits", "1");
	if (bytea_output != BYTEA_OUTPUT_HEX)
		fix_setting("bytea_output", "hex");
	if (plan->has_money)
		fix_setting("lc_monetary", "C");
	if (plan->has_names)
	{
		fix_setting("search_path", "pg_catalog");
		fix_setting("quote_all_identifiers", "off");
	}
	return level;
}

/* Return a value of a column; NULL for SQL's NULL. */
static Jsonb *
row_value(RinqTriggerColumn *column, RinqTriggerContext *about, TupleDesc desc, HeapTuple row)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column->number, desc, &isnull);

	Assert(column->number > 0 && column->number <= desc->natts);
	about->column = column->name;
	return isnull ? NULL : DatumGetJsonbP(FunctionCall1(&column->to_jsonb, value));
}

/*
 * Append a row in CBOR.
 */
void
rinq_trigger_append_row(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc,
						HeapTuple row, StringInfo out)
{
	int			i;

	about->is_sent = true;
	rinq_cbor_write_map(out, (uint64) plan->num_columns);
	for (i = 0; i < plan->num_columns; i++)
	{
		Jsonb	   *json = row_value(&plan->columns[i], about, desc, row);

		rinq_cbor_write_text(out, plan->columns[i].key);
		if (json == NULL)
			rinq_cbor_write_null(out);
		else
			rinq_cbor_append_jsonb(out, json);
	}
	about->column = NULL;
	about->is_sent = false;
}

/* ---------------- constraints ---------------- */

static RinqConstraint *
new_constraint(RinqConstraintKind kind)
{
	RinqConstraint *constraint = palloc0(sizeof(RinqConstraint));

	constraint->kind = kind;
	return constraint;
}

static void
add_row_term(RinqConstraint *constraint, RinqConstraint *term)
{
	if (constraint->terms == NULL)
		constraint->terms = palloc(sizeof(RinqConstraint *));
	else
		constraint->terms = repalloc(constraint->terms,
									 (constraint->num_terms + 1) * sizeof(RinqConstraint *));
	constraint->terms[constraint->num_terms++] = term;
}

static RinqConstraint *
key_equals(RinqBytes key, RinqBytes value)
{
	RinqConstraint *term = new_constraint(RINQ_CONSTRAINT_EQUAL);

	term->key = key;
	term->value = value;
	return term;
}

/* Return the text of a number without zeros at the end of its fraction. */
static RinqBytes
without_zeros(RinqBytes number)
{
	if (memchr(number.data, '.', number.len) == NULL)
		return number;
	while (number.data[number.len - 1] == '0')
		number.len--;
	if (number.data[number.len - 1] == '.')
		number.len--;
	return number;
}

/*
 * Make the term that the attribute of a column has the row's value.  A number
 * may be written with the scale of its column, or as it arrives in a payload:
 * 1.50, or 1.5.
 */
static RinqConstraint *
match_term(RinqTriggerColumn *column, RinqTriggerContext *about, TupleDesc desc, HeapTuple row)
{
	Jsonb	   *json = row_value(column, about, desc, row);
	JsonbValue	scalar;
	RinqBytes	value;
	RinqBytes	shorter;
	RinqConstraint *term;

	if (json == NULL)
		return key_equals(column->key, rinq_bytes("", 0));
	if (!JsonbExtractScalar(&json->root, &scalar))
	{
		scalar.type = jbvBinary;
		scalar.val.binary.data = &json->root;
		scalar.val.binary.len = (int) VARSIZE(json);
	}
	value = rinq_attribute_value(&scalar);
	shorter = scalar.type == jbvNumeric ? without_zeros(value) : value;
	if (shorter.len == value.len)
		return key_equals(column->key, value);
	term = new_constraint(RINQ_CONSTRAINT_OR);
	add_row_term(term, key_equals(column->key, shorter));
	add_row_term(term, key_equals(column->key, value));
	return term;
}

/*
 * Return the constraint of a row as it is sent: the trigger's, and the row's own
 * values for the columns to match.
 */
RinqBytes
rinq_trigger_constraint(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc,
						HeapTuple row)
{
	RinqConstraint *all;
	int			i;

	if (plan->num_match == 0)
		return plan->encoded;
	all = new_constraint(RINQ_CONSTRAINT_AND);
	if (plan->constraint->kind != RINQ_CONSTRAINT_NONE)
		add_row_term(all, plan->constraint);
	for (i = 0; i < plan->num_match; i++)
	{
		RinqConstraint *term = match_term(&plan->match[i], about, desc, row);

		if (plan->match[i].namespace != NULL)
		{
			RinqConstraint *within = new_constraint(RINQ_CONSTRAINT_WITHIN);

			within->value = rinq_bytes_str(plan->match[i].namespace);
			add_row_term(within, term);
			term = within;
		}
		add_row_term(all, term);
	}
	about->column = NULL;
	return rinq_trigger_encode(all->num_terms == 1 ? all->terms[0] : all);
}
