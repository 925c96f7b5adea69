/*-------------------------------------------------------------------------
 *
 * trigger_plan.c
 *	  What the arguments of rinq_notify_trigger mean: a namespace, a type, whom
 *	  to notify, and options.  Wrong ones are errors of the statement that fires
 *	  the trigger first.
 *
 * Names of columns are written as in SQL, in all arguments: folded to lower
 * case, unless they are in double quotes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "guc.h"
#include "nodes/makefuncs.h"
#include "parser/scansup.h"
#include "protocol/payload.h"
#include "sql/arguments.h"
#include "sql/send.h"
#include "sql/trigger_plan.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#define DEFAULT_CHUNK (64 * 1024)
#define MIN_CHUNK 1024

/* ---------------- names ---------------- */

static void
skip_name_space(const char **text)
{
	while (scanner_isspace(**text))
		(*text)++;
}

/* take a name in double quotes off a text; NULL when it does not end */
static char *
take_quoted(const char **text)
{
	StringInfoData name;

	Assert(**text == '"');
	initStringInfo(&name);
	for (;;)
	{
		const char *end = strchr(++*text, '"');

		if (end == NULL)
			return NULL;
		appendBinaryStringInfo(&name, *text, (int) (end - *text));
		*text = end + 1;
		if (**text != '"')
			return name.data;
		appendStringInfoChar(&name, '"');
	}
}

/* take a name off a text, and what separates it from the next; NULL when there is none */
static char *
take_name(const char **text)
{
	char	   *name;

	if (**text == '"')
	{
		name = take_quoted(text);
		if (name != NULL)
			truncate_identifier(name, (int) strlen(name), false);
	}
	else
	{
		size_t		len = strcspn(*text, ", \t\n\r\f\v");

		name = downcase_truncate_identifier(*text, (int) len, false);
		*text += len;
	}
	skip_name_space(text);
	if (name == NULL || name[0] == '\0' || (**text != '\0' && **text != ','))
		return NULL;
	return name;
}

/* take "namespace:" off a text in front of a name; NULL when there is none */
static char *
take_namespace(const char **text)
{
	const char *colon = NULL;
	const char *p;
	char	   *namespace;

	for (p = *text; *p != '\0' && *p != ',' && *p != '"' && !scanner_isspace(*p); p++)
	{
		if (*p == ':')
			colon = p;
	}
	if (colon == NULL)
		return NULL;
	namespace = pnstrdup(*text, (size_t) (colon - *text));
	rinq_check_namespace(namespace);
	*text = colon + 1;
	return namespace;
}

/* ---------------- columns ---------------- */

static int
column_number(TupleDesc desc, const char *name, bool is_target)
{
	int			number = SPI_fnumber(desc, name);

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", name),
				 is_target ?
				 errdetail("The third argument of rinq_notify_trigger is a constraint in braces, or the name of a column.") :
				 errdetail("An argument of the trigger names it."),
				 is_target ?
				 errhint("A constraint is written like {tenant=acme}. Create the trigger again when the column was renamed or dropped.") :
				 errhint("Create the trigger again when the column was renamed or dropped.")));
	return number;
}

/*
 * Prepare to_jsonb, which finds out by the call's expression what it is given.
 */
static void
prepare_to_jsonb(FmgrInfo *to_jsonb, Oid type)
{
	Param	   *value = makeNode(Param);

	value->paramkind = PARAM_EXTERN;
	value->paramtype = type;
	value->paramtypmod = -1;
	fmgr_info_cxt(F_TO_JSONB, to_jsonb, CurrentMemoryContext);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(value), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   to_jsonb);
}

static void note_type(RinqTriggerPlan *plan, Oid type);

static void
note_row_type(RinqTriggerPlan *plan, Oid type)
{
	TupleDesc	desc;
	int			i;

	check_stack_depth();
	desc = lookup_rowtype_tupdesc(type, -1);
	for (i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			note_type(plan, TupleDescAttr(desc, i)->atttypid);
	}
	ReleaseTupleDesc(desc);
}

/* note by which settings values of a type look different, beside the usual ones */
static void
note_type(RinqTriggerPlan *plan, Oid type)
{
	Oid			base = getBaseType(type);

	if (OidIsValid(get_element_type(base)))
		note_type(plan, get_element_type(base));
	else if (OidIsValid(get_range_subtype(base)))
		note_type(plan, get_range_subtype(base));
	else if (OidIsValid(get_multirange_range(base)))
		note_type(plan, get_multirange_range(base));
	else if (type_is_rowtype(base) && base != RECORDOID)
		note_row_type(plan, base);
	else if (base == CASHOID)
		plan->has_money = true;
	else if (base == REGPROCOID || base == REGPROCEDUREOID || base == REGOPEROID ||
			 base == REGOPERATOROID || base == REGCLASSOID || base == REGCOLLATIONOID ||
			 base == REGTYPEOID || base == REGROLEOID || base == REGNAMESPACEOID ||
			 base == REGCONFIGOID || base == REGDICTIONARYOID)
		plan->has_names = true;
}

static void
read_column(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc, int number,
			RinqTriggerColumn *column)
{
	Form_pg_attribute attribute = TupleDescAttr(desc, number - 1);

	column->number = number;
	column->name = pstrdup(NameStr(attribute->attname));
	about->column = column->name;
	column->key = rinq_bytes_copy(rinq_text_to_wire(column->name));
	prepare_to_jsonb(&column->to_jsonb, attribute->atttypid);
	note_type(plan, attribute->atttypid);
	about->column = NULL;
}

/* Parse a list of columns, each of which may have a namespace in front. */
static int
column_list(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc, const char *option,
			const char *list, bool with_namespace, RinqTriggerColumn **columns)
{
	const char *rest = list;
	int			count = 0;

	*columns = palloc0((strlen(list) + 1) / 2 * sizeof(RinqTriggerColumn) + sizeof(RinqTriggerColumn));
	do
	{
		char	   *namespace = NULL;
		char	   *name;

		skip_name_space(&rest);
		if (with_namespace)
			namespace = take_namespace(&rest);
		name = take_name(&rest);
		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid list of columns \"%s\" in option \"%s\"", list, option)));
		read_column(plan, about, desc, column_number(desc, name, false), &(*columns)[count]);
		(*columns)[count++].namespace = namespace;
	} while (*rest++ == ',');
	return count;
}

static void
all_columns(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc)
{
	int			i;

	plan->columns = palloc0(Max(desc->natts, 1) * sizeof(RinqTriggerColumn));
	for (i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			read_column(plan, about, desc, i + 1, &plan->columns[plan->num_columns++]);
	}
}

/* compare names as jsonb orders keys: shorter ones first, then by bytes */
static int
compare_columns(const void *a, const void *b)
{
	const char *first = ((const RinqTriggerColumn *) a)->name;
	const char *second = ((const RinqTriggerColumn *) b)->name;
	size_t		len = strlen(first);

	if (len != strlen(second))
		return len < strlen(second) ? -1 : 1;
	return memcmp(first, second, len);
}

/* Sort the columns that are sent, and leave out what is named twice. */
static void
sort_columns(RinqTriggerPlan *plan)
{
	int			count = 0;
	int			i;

	qsort(plan->columns, plan->num_columns, sizeof(RinqTriggerColumn), compare_columns);
	for (i = 0; i < plan->num_columns; i++)
	{
		if (count == 0 || plan->columns[i].number != plan->columns[count - 1].number)
			plan->columns[count++] = plan->columns[i];
	}
	plan->num_columns = count;
}

/* ---------------- arguments ---------------- */

static size_t
chunk_size(const char *text)
{
	char	   *end;
	long		size = strtol(text, &end, 10);

	if (end == text || *end != '\0' || size < MIN_CHUNK || (size_t) size > rinq_payload_limit())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value \"%s\" of option \"%s\"", text, "chunk"),
				 errdetail("It is a number of bytes between %d and %zu.", MIN_CHUNK,
						   rinq_payload_limit())));
	return (size_t) size;
}

static void
read_option(RinqTriggerPlan *plan, RinqTriggerContext *about, TupleDesc desc, const char *option)
{
	const char *value = strchr(option, '=');

	if (value != NULL && strncmp(option, "columns=", 8) == 0)
		plan->num_columns = column_list(plan, about, desc, "columns", value + 1, false,
										&plan->columns);
	else if (value != NULL && strncmp(option, "match=", 6) == 0)
		plan->num_match = column_list(plan, about, desc, "match", value + 1, true, &plan->match);
	else if (value != NULL && strncmp(option, "chunk=", 6) == 0)
		plan->chunk = chunk_size(value + 1);
	else if (strcmp(option, "only_if_peer") == 0)
		plan->only_if_peer = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown option \"%s\" of rinq_notify_trigger", option),
				 errhint("Options are \"columns=...\", \"match=...\", \"chunk=...\" and \"only_if_peer\".")));
}

/* Read a target: a constraint, or the name of a column. */
static void
read_target(RinqTriggerPlan *plan, TupleDesc desc, const char *text)
{
	const char *rest = text;
	char	   *name;

	if (strchr(text, '{') != NULL)
	{
		plan->constraint = rinq_constraint_argument(text);
		return;
	}
	skip_name_space(&rest);
	name = take_name(&rest);
	plan->target_column = column_number(desc, name != NULL && *rest == '\0' ? name : text, true);
}

/*
 * Encode a constraint as it is sent.
 */
RinqBytes
rinq_trigger_encode(const RinqConstraint *constraint)
{
	StringInfoData cbor;

	initStringInfo(&cbor);
	rinq_constraint_encode(&cbor, constraint);
	if (cbor.len > RINQ_CONSTRAINT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("constraint is too large"),
				 errdetail("It takes %d bytes in CBOR, and may take %d.",
						   cbor.len, RINQ_CONSTRAINT_MAX_SIZE)));
	return rinq_bytes(cbor.data, cbor.len);
}

/*
 * Find out what the arguments of a trigger mean, in memory of the context.
 */
RinqTriggerPlan *
rinq_trigger_plan(TriggerData *data, RinqTriggerContext *about, MemoryContext context)
{
	Trigger    *trigger = data->tg_trigger;
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	MemoryContext old = MemoryContextSwitchTo(context);
	RinqTriggerPlan *plan = palloc0(sizeof(RinqTriggerPlan));
	int			i;

	if (trigger->tgnargs < 3)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rinq_notify_trigger needs a namespace, a type, and a constraint or column"),
				 errhint("For example: EXECUTE FUNCTION rinq_notify_trigger('orders', 'changed', '{*}').")));
	rinq_check_namespace(trigger->tgargs[0]);
	plan->namespace = rinq_bytes_str(pstrdup(trigger->tgargs[0]));
	plan->type = rinq_bytes_copy(rinq_check_notification_type(trigger->tgargs[1]));
	plan->chunk = Min(DEFAULT_CHUNK, rinq_payload_limit());
	read_target(plan, desc, trigger->tgargs[2]);
	for (i = 3; i < trigger->tgnargs; i++)
		read_option(plan, about, desc, trigger->tgargs[i]);
	if (plan->num_match > 0 && plan->constraint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs a constraint", "match"),
				 errhint("Use the constraint {*}.")));
	if (plan->num_match == 0 && plan->constraint != NULL)
		plan->encoded = rinq_trigger_encode(plan->constraint);
	if (plan->columns == NULL)
		all_columns(plan, about, desc);
	sort_columns(plan);
	plan->trigger = trigger->tgoid;
	plan->relation = RelationGetRelid(data->tg_relation);
	MemoryContextSwitchTo(old);
	return plan;
}
