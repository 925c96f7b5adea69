/*-------------------------------------------------------------------------
 *
 * backend/own_tables.h
 *	  Reading and writing the extension's own tables, on behalf of roles that
 *	  have no privileges on them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_OWN_TABLES_H
#define RINQ_OWN_TABLES_H

#include "postgres.h"

#include "base/bytes.h"
#include "executor/spi.h"

/* a table, and what to put back when done with it */
typedef struct RinqOwnTable
{
	char	   *name;			/* qualified and quoted */
	Oid			saved_user;
	int			saved_context;
	int			guc_level;
} RinqOwnTable;

extern void rinq_own_table_open(RinqOwnTable *table, Oid schema, const char *name);
extern uint64 rinq_own_table_execute(const char *query, int nargs, Oid *types, Datum *values,
									 const char *nulls);
extern uint64 rinq_own_table_execute_kept(SPIPlanPtr * plan, const char *query, int nargs,
										  Oid *types, Datum *values, const char *nulls);
extern uint64 rinq_own_table_read_kept(SPIPlanPtr * plan, const char *query, int nargs, Oid *types,
									   Datum *values);
extern RinqBytes rinq_own_row_text(HeapTuple row, TupleDesc desc, int column);
extern RinqBytes rinq_own_row_bytes(HeapTuple row, TupleDesc desc, int column);
extern bool rinq_own_tables_in_use(void);
extern void rinq_own_table_close(RinqOwnTable *table);
extern uint64 rinq_own_table_write(Oid schema, const char *name, const char *query, int nargs,
								   Oid *types, Datum *values, const char *nulls);

#endif							/* RINQ_OWN_TABLES_H */
