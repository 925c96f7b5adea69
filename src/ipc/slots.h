/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  Messages between the processes of one database.
 *
 * A message lives in a slot of shared memory, with its fields in the slot
 * itself or, when they are too long, in the payload area.  A slot is handed
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

#include "base/bytes.h"
#include "base/ident.h"
#include "ipc/sendqueue.h"
#include "ipc/shared.h"

#define RINQ_NO_SLOT PG_UINT32_MAX
#define RINQ_SLOT_INLINE 704
/* who has claimed an asynchronous call; a serial number is neither */
#define RINQ_CLAIMED_BY_PEER 0
#define RINQ_CLAIMED_BY_OWNER PG_UINT32_MAX

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

/* how a call or a request ended */
typedef enum RinqOutcome
{
	RINQ_OUTCOME_NONE = 0,
	RINQ_OUTCOME_SUCCESS,		/* fields: payload */
	RINQ_OUTCOME_FAILURE,		/* fields: type, message, payload */
	RINQ_OUTCOME_ERROR,			/* fields: text */
	RINQ_OUTCOME_MALFORMED,		/* fields: text; the response made no sense */
	RINQ_OUTCOME_GIVEN_BACK,	/* the request was given back */
	RINQ_OUTCOME_EXPIRED,		/* the deadline passed */
	RINQ_OUTCOME_CONNECTION_LOST,	/* fields: text */
	RINQ_OUTCOME_NOT_CONNECTED, /* fields: text; nothing was sent */
	RINQ_OUTCOME_NO_QUEUE,		/* fields: text; the broker refused the queue */
	RINQ_OUTCOME_NOT_TAKEN,		/* fields: text; the broker refused the
								 * request */
	RINQ_OUTCOME_TOO_LARGE,		/* the response exceeds rinq.max_payload */
	RINQ_OUTCOME_REFUSED,		/* fields: text; a limit or a bad queue */

	/* of operations on sessions */
	RINQ_OUTCOME_NOT_FOUND,
	RINQ_OUTCOME_STALE,
	RINQ_OUTCOME_STALE_FETCH,
	RINQ_OUTCOME_FROZEN,		/* fields: text; the key, if known */
	RINQ_OUTCOME_NOT_OURS		/* fields: text; OID of the role that it
								 * belongs to */
} RinqOutcome;

/* what a backend asks of the peer */
typedef enum RinqOperation
{
	RINQ_OP_CALL,				/* to send a request */
	RINQ_OP_CREATE,				/* a session; text: its revision */
	RINQ_OP_REVISION,			/* of a session; text */
	RINQ_OP_GET,				/* attributes; payload: a list of them */
	RINQ_OP_UPDATE,				/* attributes; text: the new revision */
	RINQ_OP_CLEAR,				/* a namespace's attributes; text: the new
								 * revision */
	RINQ_OP_DESTROY,			/* a session */
	RINQ_OP_ALLOCATE_ID,		/* text: id of a session's next message; type:
								 * "u" or empty */
	RINQ_OP_ON_RESPONSE,		/* sets the handler of responses */
	RINQ_OP_LISTEN,				/* to notifications in a namespace */
	RINQ_OP_UNLISTEN,			/* text: "t" when it did listen */
	RINQ_OP_FETCH,				/* payload: the oldest notification that is
								 * kept (protocol/notification.h) */
	RINQ_OP_LIST_SESSIONS,		/* payload: those after the target */
	RINQ_OP_LIST_ATTRIBUTES,
	RINQ_OP_LIST_SUBSCRIPTIONS, /* payload: durable ones, with their sessions */
	RINQ_OP_LIST_UNREADY		/* payload: what is not served yet, in words;
								 * empty when all is */
} RinqOperation;

/* fields of an operation on a session; a handler's roles are the slot's */
enum
{
	RINQ_OP_NAMESPACE,
	RINQ_OP_ATTRIBUTES,			/* a list (protocol/attribute.h); of
								 * RINQ_OP_GET, for their keys */
	RINQ_OP_HANDLER,			/* absent: none any more; or a channel of
								 * LISTEN and NOTIFY */
	RINQ_OP_MODE,				/* of RINQ_OP_LISTEN: a letter,
								 * RinqReceiveMode; of RINQ_OP_FETCH: absent
								 * for not waiting */
	RINQ_OP_OWNER,				/* an OID: of the handler */
	RINQ_OP_TRACE,				/* these as in calls */
	RINQ_OP_SPAN,
	RINQ_OP_TRACEPARENT,
	RINQ_OP_TRACESTATE,
	RINQ_OP_FIELDS
};

/* what becomes of notifications to a session */
typedef enum RinqReceiveMode
{
	RINQ_RECEIVE_HANDLER = 'h', /* a function handles them */
	RINQ_RECEIVE_CHANNEL = 'n', /* notifications go on to LISTEN and NOTIFY */
	RINQ_RECEIVE_BUFFER = 'k'	/* notifications are buffered until they are
								 * fetched */
} RinqReceiveMode;

/* what an executor is to run */
typedef enum RinqWork
{
	RINQ_WORK_REQUEST,
	RINQ_WORK_RESPONSE,			/* to an asynchronous call: no caller waits
								 * for a result */
	RINQ_WORK_NOTIFICATION		/* likewise */
} RinqWork;

/* fields of a call, as the backend fills them in */
enum
{
	RINQ_CALL_NAMESPACE,
	RINQ_CALL_COMMAND,
	RINQ_CALL_PAYLOAD,
	RINQ_CALL_TRACE,			/* absent: the request's own id */
	RINQ_CALL_SPAN,				/* these three: as the request that is handled
								 * has them */
	RINQ_CALL_TRACEPARENT,
	RINQ_CALL_TRACESTATE,
	RINQ_CALL_FIELDS
};

/* fields of a request, as the peer fills them in */
enum
{
	RINQ_REQUEST_HANDLER,
	RINQ_REQUEST_NAMESPACE,
	RINQ_REQUEST_COMMAND,
	RINQ_REQUEST_ID,
	RINQ_REQUEST_SOURCE,
	RINQ_REQUEST_TRACE,
	RINQ_REQUEST_PAYLOAD,
	RINQ_REQUEST_SPAN,
	RINQ_REQUEST_TRACEPARENT,
	RINQ_REQUEST_TRACESTATE,
	RINQ_REQUEST_TYPE,			/* of responses: "s", "f" or "e"; of
								 * notifications that are forwarded to the
								 * channel in place of a handler: "n" */
	RINQ_REQUEST_FAILURE_TYPE,	/* of responses; of notifications, the target */
	RINQ_REQUEST_MESSAGE,		/* of responses; of notifications, the
								 * constraint */
	RINQ_REQUEST_FIELDS
};

/* fields of a result; which are set depends on the outcome */
enum
{
	RINQ_RESULT_TYPE,
	RINQ_RESULT_TEXT,
	RINQ_RESULT_PAYLOAD,
	RINQ_RESULT_FIELDS
};

typedef struct RinqSlot
{
	pg_atomic_uint32 state;		/* RinqSlotState */
	uint32		serial;			/* tells one use of the slot from the next */
	uint32		next;			/* in the free list, or in the dispatch queue */
	int			owner;			/* procno of the backend or executor */
	uint32		client;			/* number of the backend, for its session */
	uint32		incarnation;	/* of the peer that a call was meant for */
	Oid			role;			/* that the request's handler runs as; or asks */
	Oid			handler_owner;	/* whom the handler belonged to when
								 * registered */
	RinqOperation op;			/* calls */
	RinqWork	work;			/* requests */
	RinqRef		ref;			/* of an operation on a session */
	bool		current;		/* at its current revision, instead of the
								 * target's */
	bool		privilege_checked;	/* whichever role the session belongs to */
	bool		uncorrelated;	/* calls: the session's handler gets the
								 * response */
	bool		wants_response;
	bool		redelivered;	/* requests: the broker has sent it before */
	bool		deduplicate;	/* requests: one that was handled is not
								 * handled again */
	bool		async;			/* calls: no process waits for it now */
	bool		in_handler;		/* calls: made by a handler, which may finish
								 * at a stop */
	pg_atomic_uint32 claim;		/* of an async call: its serial, or who has
								 * claimed it */
	RinqMessageId id;			/* calls: allocated by the backend */
	int64		deadline;		/* these two on the monotonic clock; 0 is none */
	int64		queued_at;
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
 * Move a slot that no other process may touch now; what was written into it
 * comes before the move for everybody.
 */
static inline void
rinq_slot_set_state(RinqSlot *slot, RinqSlotState state)
{
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, state);
}

/* slots */
extern uint32 rinq_slot_alloc_call(RinqSlots *slots);
extern void rinq_slot_free(RinqSlots *slots, uint32 index);
extern void rinq_slot_clear(RinqSlot *slot);
extern bool rinq_slot_write(RinqSlot *slot, const RinqBytes *fields, int nfields);
extern void rinq_slot_read(RinqSlot *slot, RinqBytes *fields, int nfields);
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

extern bool rinq_database_is_left(RinqDatabase *db);

#endif							/* RINQ_IPC_SLOTS_H */
