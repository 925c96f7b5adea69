/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  Messages between the processes of one database.
 *
 * A message lives in a slot of shared memory, with its fields (protocol/kinds.h)
 * in the slot itself or, when they are too long, in the payload area.  A slot is handed
 * from process to process by its index; exactly one process may touch it at
 * any time, and its state says which:
 *
 *	call:	 backend fills it -> QUEUED, the peer's -> DONE, the backend's
 *			 again.  A backend that stops waiting makes it ABANDONED, and the
 *			 peer frees it.
 *	request: the peer fills it -> QUEUED, in the dispatch queue ->
 *			 RUNNING, an executor's -> DONE, the peer's again.  When the peer
 *			 ends, its running requests are ABANDONED and the executor frees
 *			 them.
 *
 * The peer is told of changes by entries in its inbox, a ring that is large
 * enough for all entries that slots can cause, so that telling it never waits.
 * Processes come and go without bound while the peer does not look: when there
 * is no room for what they tell, that is noted, and the peer looks at all of
 * them itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_IPC_SLOTS_H
#define RINQ_IPC_SLOTS_H

#include "postgres.h"

#include "base/ident.h"
#include "ipc/sendqueue.h"
#include "ipc/shared.h"
#include "protocol/kinds.h"
#include "protocol/retry_policy.h"

#define RINQ_NO_SLOT PG_UINT32_MAX
#define RINQ_SLOT_INLINE 704
/* who has claimed an asynchronous call; a serial number is neither */
#define RINQ_CLAIMED_BY_PEER 0
#define RINQ_CLAIMED_BY_OWNER PG_UINT32_MAX

#define RINQ_ATTEMPT_GRACE 10000	/* ms after which a command that was taken
									 * from the inbox, and whose process has
									 * ended, may be taken again */
#define RINQ_ASYNC_GRACE 60000	/* ms that a result is kept after its deadline */

typedef enum RinqSlotState
{
	RINQ_SLOT_FREE = 0,
	RINQ_SLOT_FILLING,
	RINQ_SLOT_QUEUED,
	RINQ_SLOT_RUNNING,
	RINQ_SLOT_DONE,
	RINQ_SLOT_ABANDONED
} RinqSlotState;

/* how a call, a request or an operation ended; "text" is that of the result */
typedef enum RinqOutcome
{
	RINQ_OUTCOME_NONE = 0,
	RINQ_OUTCOME_SUCCESS,		/* payload; of operations, see there */
	RINQ_OUTCOME_FAILURE,		/* failure type, text, payload */
	RINQ_OUTCOME_ERROR,			/* text */
	RINQ_OUTCOME_MALFORMED,		/* text; the response made no sense */
	RINQ_OUTCOME_GIVEN_BACK,	/* the request was given back */
	RINQ_OUTCOME_AGAIN,			/* the call is to be handled again, when it is
								 * "due" */
	RINQ_OUTCOME_EXPIRED,		/* the deadline passed */
	RINQ_OUTCOME_CONNECTION_LOST,	/* text */
	RINQ_OUTCOME_NOT_CONNECTED, /* text; nothing was sent */
	RINQ_OUTCOME_NO_QUEUE,		/* text; the broker refused the queue */
	RINQ_OUTCOME_NOT_TAKEN,		/* text; the broker refused the request */
	RINQ_OUTCOME_TOO_LARGE,		/* the response exceeds rinq.max_payload */
	RINQ_OUTCOME_REFUSED,		/* text; a limit or a bad queue */

	/* of operations on sessions */
	RINQ_OUTCOME_NOT_FOUND,
	RINQ_OUTCOME_STALE,
	RINQ_OUTCOME_STALE_FETCH,	/* key, if known */
	RINQ_OUTCOME_FROZEN,		/* key, if known */
	RINQ_OUTCOME_NOT_OURS		/* owner */
} RinqOutcome;

/* what a backend asks of the peer: fields, and those of the result */
typedef enum RinqOperation
{
	RINQ_OP_CALL,				/* to send a request: RINQ_KIND_CALL */
	RINQ_OP_CREATE,				/* a session: -> ref */
	RINQ_OP_REVISION,			/* of a session: -> ref */
	RINQ_OP_GET,				/* namespace, attributes -> attributes */
	RINQ_OP_UPDATE,				/* namespace, attributes -> ref */
	RINQ_OP_CLEAR,				/* namespace -> ref */
	RINQ_OP_DESTROY,			/* a session */
	RINQ_OP_ALLOCATE_ID,		/* of a session's next message: -> id,
								 * uncorrelated */
	RINQ_OP_ON_RESPONSE,		/* handler, its owner; absent: none any more */
	RINQ_OP_LISTEN,				/* namespace, and handler with its owner, or
								 * channel, or neither */
	RINQ_OP_UNLISTEN,			/* namespace -> listened */
	RINQ_OP_FETCH,				/* wait -> notification */
	RINQ_OP_LIST_SESSIONS,		/* after -> rows, last: RINQ_KIND_SESSION */
	RINQ_OP_LIST_ATTRIBUTES,	/* after -> rows, last:
								 * RINQ_KIND_SESSION_ATTRIBUTE */
	RINQ_OP_LIST_SUBSCRIPTIONS, /* -> rows: RINQ_KIND_SUBSCRIBER */
	RINQ_OP_LIST_UNREADY		/* -> unready */
} RinqOperation;

/* what becomes of notifications to a session */
typedef enum RinqReceiveMode
{
	RINQ_RECEIVE_HANDLER,		/* a function handles them */
	RINQ_RECEIVE_CHANNEL,		/* they go on to LISTEN and NOTIFY */
	RINQ_RECEIVE_BUFFER			/* they are kept until they are fetched */
} RinqReceiveMode;

/* what an executor is to run */
typedef enum RinqWork
{
	RINQ_WORK_REQUEST,
	RINQ_WORK_RESPONSE,			/* to an asynchronous call: no caller waits
								 * for a result */
	RINQ_WORK_NOTIFICATION		/* likewise */
} RinqWork;

/* numbers of the fields that all kinds of work have */
typedef struct RinqCommonFields
{
	int			handler;
	int			id;
	int			source;
	int			namespace;
	int			subject;		/* the command, or the notification's type */
	int			payload;
	int			trace;
	int			span;
	int			traceparent;
	int			tracestate;

	/* of requests and notifications; responses have none of these */
	int			attempt;
	int			first_received;
	int			refusal;
	int			digest;
} RinqCommonFields;

extern const RinqCommonFields *rinq_common_fields_of(const RinqFields *fields);
extern RinqKind rinq_work_kind(RinqWork work);

typedef struct RinqSlot
{
	pg_atomic_uint32 state;		/* RinqSlotState */
	uint32		serial;			/* tells one use of the slot from the next */
	uint32		next;			/* in the free list, or in the dispatch queue */
	int			owner;			/* procno of the backend or executor */
	uint32		client;			/* number of the backend, for its session */
	uint32		incarnation;	/* of the peer that a call was meant for */
	Oid			role;			/* requests: that the handler runs as */
	Oid			handler_owner;	/* whom the handler belonged to when
								 * registered */
	RinqOperation op;			/* calls */
	RinqWork	work;			/* requests */
	Oid			asker;			/* operations: the role that asks */
	RinqRef		ref;			/* of an operation on a session */
	bool		current;		/* at its current revision, instead of the
								 * target's */
	bool		privilege_checked;	/* whichever role the session belongs to */
	bool		uncorrelated;	/* calls: the session's handler gets the
								 * response */
	bool		wants_response;
	bool		redelivered;	/* requests: the broker has sent it before;
								 * notifications that are kept: an executor
								 * has ended with it */
	bool		deduplicate;	/* requests: one that was handled is not
								 * handled again */
	int32		timeout;		/* requests: ms of the listener's own; 0: as
								 * the setting says */
	bool		from_inbox;		/* requests: the first one that is due in the
								 * inbox, for the namespace or subscription */
	bool		give_up;		/* notifications that are kept: the executor
								 * has ended each time, and sets it aside */
	RinqRetryPolicy retry;		/* requests: of the listener or subscription */
	int64		due;			/* result of a request: when the inbox has one
								 * that is due, or this is; 0 is never, or not
								 * known */
	bool		async;			/* calls: no process waits for it now */
	bool		in_handler;		/* calls: made by a handler, which may finish
								 * at a stop */
	pg_atomic_uint32 claim;		/* of an async call: its serial, or who has
								 * claimed it */
	RinqMessageId id;			/* calls: allocated by the backend */
	int64		deadline;		/* these two on the monotonic clock; 0 is none */
	int64		queued_at;
	pg_atomic_uint64 limit;		/* requests: when their listener's or the
								 * setting's time is over, while the handler
								 * runs; 0 is never */
	RinqOutcome outcome;
	dsa_pointer large;			/* the fields, when they are not inline */
	uint32		length;			/* of the packed fields */
	char		data[RINQ_SLOT_INLINE];
} RinqSlot;

typedef enum RinqEventKind
{
	RINQ_EVENT_CALL,			/* slot: a call to send */
	RINQ_EVENT_ABANDONED,		/* slot: no process waits any more */
	RINQ_EVENT_RESULT,			/* slot: the result of a request */
	RINQ_EVENT_MORE_DUE,		/* slot: the inbox has another one that is due
								 * for the namespace, or subscription, of this
								 * one */
	RINQ_EVENT_SESSION,			/* procno of a process that has a new session,
								 * and its number */
	RINQ_EVENT_CLIENT_GONE		/* number of a backend that ended */
} RinqEventKind;

typedef struct RinqEvent
{
	RinqEventKind kind;
	uint32		value;
	uint32		serial;
} RinqEvent;

typedef struct RinqSlots
{
	/* free slots of calls */
	slock_t		free_lock;
	uint32		first_free;

	/* the dispatch queue, and the executors' states */
	LWLock	   *request_lock;
	uint32		first_request;
	uint32		last_request;
	uint32		num_requests;

	/* the peer's inbox */
	slock_t		event_lock;
	uint64		event_head;		/* next to write */
	uint64		event_tail;		/* next to read */
	bool		inbox_missed;	/* something was not put into it */

	/* what transactions send */
	RinqSendQueue send;

	uint32		event_size;		/* a power of two */
	uint32		num_calls;		/* slots 0 .. num_calls - 1 are for calls */
	uint32		num_slots;		/* the others are the peer's, for requests */
	Size		event_offset;
	RinqSlot	slot[FLEXIBLE_ARRAY_MEMBER];
} RinqSlots;

/* set-up */
extern Size rinq_slots_size(void);
extern void rinq_slots_init(RinqSlots *slots, LWLock *queue_lock, LWLock *request_lock);
extern void rinq_slots_peer_gone(RinqDatabase *db);

/*
 * Read the state of a slot.  What was written into the slot before it was
 * moved to that state is seen by each process that reads the slot afterwards.
 */
static inline RinqSlotState
rinq_slot_state(RinqSlot *slot)
{
	RinqSlotState state = (RinqSlotState) pg_atomic_read_u32(&slot->state);

	pg_read_barrier();
	return state;
}

/*
 * Tell whether a slot may get from one state into another.
 */
static inline bool
rinq_slot_may_move(RinqSlotState from, RinqSlotState to)
{
	switch (to)
	{
		case RINQ_SLOT_FREE:
			return from != RINQ_SLOT_FREE && from != RINQ_SLOT_RUNNING;
		case RINQ_SLOT_FILLING:
			return from == RINQ_SLOT_FREE;
		case RINQ_SLOT_QUEUED:
			return from == RINQ_SLOT_FILLING || from == RINQ_SLOT_FREE;
		case RINQ_SLOT_RUNNING:
			return from == RINQ_SLOT_QUEUED;
		case RINQ_SLOT_DONE:
		case RINQ_SLOT_ABANDONED:
			return from == RINQ_SLOT_QUEUED || from == RINQ_SLOT_RUNNING;
	}
	return false;
}

/*
 * Move a slot that no other process may touch now; what was written into it
 * comes before the move for everybody.
 */
static inline void
rinq_slot_set_state(RinqSlot *slot, RinqSlotState state)
{
	Assert(rinq_slot_may_move(rinq_slot_state(slot), state));
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, state);
}

/* Return the kind of the result of a call or of an operation. */
static inline RinqKind
rinq_result_kind(RinqOperation op)
{
	return op == RINQ_OP_CALL ? RINQ_KIND_RESULT : RINQ_KIND_OPERATION_RESULT;
}

/* slots */
extern uint32 rinq_slot_alloc_call(RinqSlots *slots);
extern void rinq_slot_free(RinqSlots *slots, uint32 index);
extern void rinq_slot_clear(RinqSlot *slot);
extern bool rinq_slot_write(RinqSlot *slot, const RinqFields *fields);
extern void rinq_slot_read(RinqSlot *slot, RinqKind kind, RinqFields *fields);
extern bool rinq_slot_move(RinqSlot *slot, RinqSlotState from, RinqSlotState to);

/* the peer's inbox */
extern void rinq_event_put(RinqDatabase *db, RinqEventKind kind, uint32 value,
						   uint32 serial);
extern bool rinq_event_get(RinqSlots *slots, RinqEvent *entry);
extern bool rinq_inbox_missed(RinqSlots *slots);

/* the dispatch queue; of requests that no caller waits for, a limited number runs at a time */
extern int	rinq_unattended_limit(void);
extern int	rinq_request_put(RinqDatabase *db, uint32 index);
extern uint32 rinq_request_take(RinqDatabase *db, RinqExecutorSlot *me);
extern bool rinq_request_remove(RinqDatabase *db, uint32 index);

extern void rinq_forget_unattached(RinqDatabase *db);
extern bool rinq_database_is_left(RinqDatabase *db);

#endif							/* RINQ_IPC_SLOTS_H */
