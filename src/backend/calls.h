/*-------------------------------------------------------------------------
 *
 * backend/calls.h
 *	  A backend's side of calls: handing them to the peer, and waiting.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CALLS_H
#define RINQ_CALLS_H

#include "postgres.h"

#include "compat.h"

#include "ipc/slots.h"

/* an answered call; the fields point into its slot */
typedef struct RinqResult
{
	RinqOutcome outcome;
	RinqFields	fields;			/* RINQ_KIND_RESULT, or of an operation */
} RinqResult;

extern RinqDatabase *rinq_require_connection(int64 deadline);
RINQ_NORETURN extern void rinq_raise_not_connected(const char *reason);
extern RinqDatabase *rinq_find_peer(void);
extern RinqDatabase *rinq_require_peer(void);
extern RinqDatabase *rinq_require_database(void);
extern RinqDatabase *rinq_require_coming_peer(void);
extern uint32 rinq_client_number(void);
extern uint32 rinq_call_submit(RinqDatabase *db, const RinqFields *fields, int64 deadline,
							   bool async, const RinqMessageId *id);
extern uint32 rinq_call_try_submit(RinqDatabase *db, const RinqFields *fields, int64 deadline,
								   const RinqMessageId *id);
extern uint32 rinq_call_submit_uncorrelated(RinqDatabase *db, const RinqFields *fields,
											int64 deadline, const RinqMessageId *id);
extern uint32 rinq_operation_submit(RinqDatabase *db, RinqOperation op, const RinqRef *ref,
									bool current, Oid role, bool privilege_checked,
									const RinqFields *fields, int64 deadline);
extern void rinq_call_sleep(int64 until);
extern bool rinq_call_ended(RinqDatabase *db, uint32 index);
extern void rinq_call_wait(RinqDatabase *db, uint32 index, RinqResult *result);
extern void rinq_call_read_result(RinqDatabase *db, uint32 index, RinqResult *result);
extern bool rinq_call_abandon(RinqDatabase *db, uint32 index);
extern void rinq_call_release(RinqDatabase *db, uint32 index);

#endif							/* RINQ_CALLS_H */
