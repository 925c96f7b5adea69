/*-------------------------------------------------------------------------
 *
 * reassign.c
 *	  rinq_listener_reassign: registering the listeners and subscriptions of a
 *	  role again, for another role or the same one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/handler_rules.h"
#include "backend/handler_signature.h"
#include "backend/own_schema.h"
#include "backend/own_tables.h"
#include "backend/parallel.h"
#include "backend/registration.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "sql/listen.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rinq_listener_reassign);

/* what listeners and subscriptions differ in */
typedef struct Kind
{
	const char *table;
	const char *key;
	const char *noun;
	RinqWork	work;
} Kind;

static const Kind kinds[] = {
	{"listener", "namespace", "listener to namespace", RINQ_WORK_REQUEST},
	{"subscription", "name", "subscription", RINQ_WORK_NOTIFICATION}
};

/* one of them */
typedef struct Registration
{
	const Kind *kind;
	char	   *key;
	char	   *handler;
} Registration;

/* rows of a role that is gone have no role that is a role now */
#define IS_OF_ROLE \
	"CASE WHEN $1 IS NULL THEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles r" \
	" WHERE r.oid OPERATOR(pg_catalog.=) rinq_internal.role_oid(t.role))" \
	" ELSE t.role::pg_catalog.text OPERATOR(pg_catalog.=) $1 END"

static void
check_privileges(const char *old_name, Oid new_role)
{
	Oid			old_role = old_name == NULL ? InvalidOid : get_role_oid(old_name, true);

	rinq_check_can_become(new_role);
	if (!OidIsValid(old_role) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to take over listeners of a role that does not exist")));
	if (OidIsValid(old_role) && !has_privs_of_role(GetUserId(), old_role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be member of role \"%s\" to take over its listeners", old_name)));
}

/* append those that a role has of a kind */
static List *
collect_registrations(List *registrations, const Kind *kind, const char *old_name)
{
	MemoryContext context = CurrentMemoryContext;
	RinqOwnTable table;
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	uint64		row;

	rinq_own_table_open(&table, rinq_internal_schema(), kind->table);
	values[0] = old_name == NULL ? (Datum) 0 : CStringGetTextDatum(old_name);
	(void) rinq_own_table_execute(psprintf("SELECT t.%s, t.handler FROM %s t WHERE " IS_OF_ROLE
										   " ORDER BY 1", kind->key, table.name),
								  1, types, values, old_name == NULL ? "n" : " ");
	for (row = 0; row < SPI_processed; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Registration *registration = palloc(sizeof(Registration));

		registration->kind = kind;
		registration->key = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1);
		registration->handler = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2);
		registrations = lappend(registrations, registration);
		MemoryContextSwitchTo(old);
	}
	rinq_own_table_close(&table);
	return registrations;
}

static void
tell_which(void *arg)
{
	const Registration *registration = arg;

	errcontext("%s \"%s\"", registration->kind->noun, registration->key);
}

/*
 * Give a registration to another role, as the role itself could have done; false
 * when others have replaced it since it was found.
 */
static bool
reassign_registration(Registration *registration, const char *old_name, Oid new_role)
{
	ErrorContextCallback about;
	Oid			types[5] = {TEXTOID, TEXTOID, TEXTOID, OIDOID, OIDOID};
	Datum		values[5];
	Oid			func;
	bool		found;

	about.callback = tell_which;
	about.arg = registration;
	about.previous = error_context_stack;
	error_context_stack = &about;
	func = rinq_handler_by_name(registration->handler);
	if (OidIsValid(func))
		rinq_registration_lock(func);
	else
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s does not exist", registration->handler)));
	rinq_check_handler(func, registration->kind->work, new_role);
	values[0] = old_name == NULL ? (Datum) 0 : CStringGetTextDatum(old_name);
	values[1] = CStringGetTextDatum(registration->key);
	values[2] = CStringGetTextDatum(registration->handler);
	values[3] = ObjectIdGetDatum(new_role);
	values[4] = ObjectIdGetDatum(rinq_function_owner(func));
	found = rinq_own_table_write(rinq_internal_schema(), registration->kind->table,
								 psprintf("UPDATE %%s t SET role = rinq_internal.role_reference($4),"
										  " owner = rinq_internal.role_reference($5)"
										  " WHERE t.%s OPERATOR(pg_catalog.=) $2"
										  " AND t.handler OPERATOR(pg_catalog.=) $3 AND " IS_OF_ROLE,
										  registration->kind->key),
								 lengthof(types), types, values, old_name == NULL ? "n    " : "     ") > 0;
	error_context_stack = about.previous;
	return found;
}

/*
 * rinq_listener_reassign(old_role name, new_role name) returns bigint
 *
 * Has the listeners and subscriptions of a role run as another one, or as the
 * same one after functions have got other owners.  With NULL, those whose role
 * was dropped.  Returns how many there were.
 */
Datum
rinq_listener_reassign(PG_FUNCTION_ARGS)
{
	const char *old_name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	Oid			new_role;
	List	   *registrations = NIL;
	ListCell   *lc;
	int64		count = 0;
	int			i;

	rinq_refuse_parallel(fcinfo);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("new_role must not be null")));
	rinq_require_preloaded();
	new_role = get_role_oid(NameStr(*PG_GETARG_NAME(1)), false);
	check_privileges(old_name, new_role);
	for (i = 0; i < (int) lengthof(kinds); i++)
		registrations = collect_registrations(registrations, &kinds[i], old_name);
	foreach(lc, registrations)
	{
		if (reassign_registration(lfirst(lc), old_name, new_role))
			count++;
	}
	PG_RETURN_INT64(count);
}
