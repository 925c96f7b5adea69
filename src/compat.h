/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between PostgreSQL versions that the extension meets.
 *
 * The extension is written for PostgreSQL 15 to 19; code elsewhere uses the
 * names of the newest version, and this header supplies them on older ones.
 * Differences between versions of librabbitmq live in amqp/codec.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_COMPAT_H
#define RINQ_COMPAT_H

#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"

#if PG_VERSION_NUM < 150000
#error "rinq needs PostgreSQL 15 or newer"
#endif

/* 16 made the ACL functions generic */
#if PG_VERSION_NUM < 160000
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#define rinq_can_execute(func, role) \
	(pg_proc_aclcheck((func), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define rinq_can_use_schema(nsp, role) \
	(pg_namespace_aclcheck((nsp), (role), ACL_USAGE) == ACLCHECK_OK)
#define rinq_can_connect(db, role) \
	(pg_database_aclcheck((db), (role), ACL_CONNECT) == ACLCHECK_OK)
#define rinq_is_database_owner(db, role) pg_database_ownercheck((db), (role))
#define rinq_check_can_become(role) check_is_member_of_role(GetUserId(), (role))
#define rinq_is_table_owner(rel, role) pg_class_ownercheck((rel), (role))
#else
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#define rinq_can_execute(func, role) \
	(object_aclcheck(ProcedureRelationId, (func), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define rinq_can_use_schema(nsp, role) \
	(object_aclcheck(NamespaceRelationId, (nsp), (role), ACL_USAGE) == ACLCHECK_OK)
#define rinq_can_connect(db, role) \
	(object_aclcheck(DatabaseRelationId, (db), (role), ACL_CONNECT) == ACLCHECK_OK)
#define rinq_check_can_become(role) check_can_set_role(GetUserId(), (role))
#define rinq_is_database_owner(db, role) \
	object_ownercheck(DatabaseRelationId, (db), (role))
#define rinq_is_table_owner(rel, role) \
	object_ownercheck(RelationRelationId, (rel), (role))
#endif

/* 18 shows name and version of a library in pg_get_loaded_modules() */
#if PG_VERSION_NUM >= 180000
#define RINQ_MODULE_MAGIC(number) PG_MODULE_MAGIC_EXT(.name = "rinq", .version = number)
#else
#define RINQ_MODULE_MAGIC(number) PG_MODULE_MAGIC
#endif

/* 17 numbers processes from 0 and renames the fields */
#if PG_VERSION_NUM >= 170000
#define RINQ_MY_PROCNO ((int) MyProcNumber)
#else
#define RINQ_MY_PROCNO ((int) MyProc->pgprocno)
#endif
#define RINQ_PROC_LATCH(procno) (&ProcGlobal->allProcs[(procno)].procLatch)

/* 17 asks for the type of the process */
#if PG_VERSION_NUM < 170000
#define AmBackgroundWorkerProcess() IsBackgroundWorker
#endif

/* 17 lets a background worker connect as a role that may not log in */
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
#define RINQ_CONNECT_AS_ANY_ROLE BGWORKER_BYPASS_ROLELOGINCHECK
#define RINQ_HANDLER_NEEDS_LOGIN false
#else
#define RINQ_CONNECT_AS_ANY_ROLE 0
#define RINQ_HANDLER_NEEDS_LOGIN true
#endif

/* 17 gives extensions wait events of their own */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define RINQ_WAIT_EVENT(var, name) \
	((var) != 0 ? (var) : ((var) = WaitEventExtensionNew(name)))
#else
#include "utils/wait_event.h"
#define RINQ_WAIT_EVENT(var, name) \
	((void) (var), PG_WAIT_EXTENSION)
#endif

/* 17 hangs wait event sets on a resource owner instead of a memory context */
#if PG_VERSION_NUM >= 170000
#define rinq_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define rinq_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* what DROP DATABASE leaves behind when it is interrupted; newer minor versions */
#include "catalog/pg_database.h"
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* 16 can truncate as the owner of the tables; nothing here goes to subscribers */
#if PG_VERSION_NUM >= 160000
#define rinq_truncate_tables(rels, relids) \
	ExecuteTruncateGuts((rels), (relids), NIL, DROP_RESTRICT, false, false)
#else
#define rinq_truncate_tables(rels, relids) \
	ExecuteTruncateGuts((rels), (relids), NIL, DROP_RESTRICT, false)
#endif

/* 19 names tranches of locks when they are made, for all processes */
#if PG_VERSION_NUM >= 190000
#define rinq_new_tranche(name) LWLockNewTrancheId(name)
#define rinq_register_tranche(id, name) ((void) 0)
#else
#define rinq_new_tranche(name) LWLockNewTrancheId()
#define rinq_register_tranche(id, name) LWLockRegisterTranche((id), (name))
#endif

/* the result is in [0, 1) */
#include "common/pg_prng.h"
#define rinq_random_fraction() pg_prng_double(&pg_global_prng_state)

/* 16 has memory of its own for the values of settings */
#if PG_VERSION_NUM >= 160000
#define rinq_guc_malloc(size) guc_malloc(LOG, size)
#define rinq_guc_free(p) guc_free(p)
#else
#define rinq_guc_malloc(size) malloc(size)
#define rinq_guc_free(p) free(p)
#endif

/* 16 keeps settings in a hash table, and makes an array of them when asked */
#if PG_VERSION_NUM >= 160000
#define rinq_get_settings(count) get_guc_variables(count)
#define rinq_free_settings(settings) pfree(settings)
#else
#define rinq_get_settings(count) (*(count) = GetNumConfigOptions(), get_guc_variables())
#define rinq_free_settings(settings) ((void) (settings))
#endif

/* 17 can drop some of the temporary replication slots only */
#if PG_VERSION_NUM >= 170000
#define rinq_drop_temporary_slots() ReplicationSlotCleanup(false)
#else
#define rinq_drop_temporary_slots() ReplicationSlotCleanup()
#endif

/* 19 has options for scans, and deletes with options */
#if PG_VERSION_NUM >= 190000
#define rinq_begin_scan(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL, SO_NONE)
#define rinq_delete_tuple(rel, tid, failure) \
	table_tuple_delete((rel), (tid), GetCurrentCommandId(true), 0, \
					   GetActiveSnapshot(), InvalidSnapshot, false, (failure))
#else
#define rinq_begin_scan(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL)
#define rinq_delete_tuple(rel, tid, failure) \
	table_tuple_delete((rel), (tid), GetCurrentCommandId(true), \
					   GetActiveSnapshot(), InvalidSnapshot, false, (failure), false)
#endif

/* 19 keeps the origin of what a session replicates with the rest of it */
#if PG_VERSION_NUM >= 190000
#define rinq_replication_origin() (replorigin_xact_state.origin)
#else
#define rinq_replication_origin() replorigin_session_origin
#define InvalidReplOriginId InvalidRepOriginId
#endif

/* 19 gives the constants of signal.h the type that pqsignal takes */
#ifndef PG_SIG_IGN
#define PG_SIG_IGN SIG_IGN
#endif

/* 19 tells a handler of a signal who has sent it: what it passes on */
#if PG_VERSION_NUM >= 190000
#define RINQ_SIGNAL_ARGS postgres_signal_arg, pg_siginfo
#else
#define RINQ_SIGNAL_ARGS postgres_signal_arg
#endif

/* 19 includes less where it is not needed for the header itself */
#if PG_VERSION_NUM >= 190000
#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#endif

/* 16 moved the macros for variable-length values to a header of their own */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18 writes it in front of the declaration, and does away with the old one */
#if PG_VERSION_NUM >= 180000
#define RINQ_NORETURN pg_noreturn
#else
#define RINQ_NORETURN __attribute__((noreturn))
#endif

/* PostgreSQL 19 computes offsets when a description made by hand is complete. */
#if PG_VERSION_NUM >= 190000
#define rinq_finish_tupdesc(desc) TupleDescFinalize(desc)
#else
#define rinq_finish_tupdesc(desc) ((void) 0)
#endif

#endif							/* RINQ_COMPAT_H */
