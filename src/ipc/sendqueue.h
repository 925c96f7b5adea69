/*-------------------------------------------------------------------------
 *
 * ipc/sendqueue.h
 *	  What transactions send, on its way to the peer; and what the peer and the
 *	  outbox worker tell each other.
 *
 * Both travel as chunks of the payload area in queues without a limit of their
 * own: to link a chunk that was filled before cannot fail, which is all that
 * may be done once a transaction has committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SENDQUEUE_H
#define RINQ_SENDQUEUE_H

#include "postgres.h"

#include "access/transam.h"
#include "base/ident.h"
#include "ipc/shared.h"
#include "protocol/kinds.h"
#include "storage/itemptr.h"

#define RINQ_OUTBOX_TABLES 4

typedef enum RinqSendKind
{
	RINQ_SEND_COMMAND_REQUEST,	/* that is executed */
	RINQ_SEND_DURABLE_CALL,		/* whose answer is sent to the mailbox */
	RINQ_SEND_NOTIFICATION,		/* to one session */
	RINQ_SEND_MULTICAST			/* to those that match */
} RinqSendKind;

/* a row of the outbox; the place is where it was last seen */
typedef struct RinqOutboxItem
{
	RinqMessageId id;
	ItemPointerData tid;
	uint8		table;
	bool		postponed;		/* in a report: another transaction is
								 * changing the row */
} RinqOutboxItem;

/* a row that the broker did not take */
typedef struct RinqOutboxFailed
{
	RinqOutboxItem item;
	int			attempts;
	char		error[RINQ_LAST_ERROR_LEN];
} RinqOutboxFailed;

/* what has become of an answer to a durable call */
typedef enum RinqStoreState
{
	RINQ_STORE_UNKNOWN,			/* no caller waits for it any more */
	RINQ_STORE_DONE,
	RINQ_STORE_POSTPONED		/* another transaction has the call's row */
} RinqStoreState;

/* a session of the mailbox, in an order to read it; and what was read */
typedef struct RinqSourceRead
{
	uint32		session;
	bool		found;
	uint32		bytes;			/* of attributes (RINQ_KIND_SESSION_ATTRIBUTE) */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} RinqSourceRead;

/* answers, as the peer hands them over: packed fields (RINQ_KIND_ANSWER) */
typedef struct RinqResponseBatch
{
	uint32		bytes;			/* of these; the chunk has room for the report */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} RinqResponseBatch;

/* a durable call, in reports */
typedef struct RinqCallItem
{
	RinqMessageId id;
	RinqStoreState state;		/* of an answer to it */
	Oid			role;			/* as which its handler is to run; InvalidOid:
								 * there is none */
} RinqCallItem;

/* an order to see to durable calls whose time has come, and the report of it */
typedef struct RinqCallLook
{
	uint32		room;			/* for items */
	bool		first;			/* of this peer, which runs no handler yet */
	int64		next;			/* when to look again, on the wall clock; 0 is
								 * never */
	RinqCallItem items[FLEXIBLE_ARRAY_MEMBER];
} RinqCallLook;

/* ms after which a handler that was to run is thought of again */
#define RINQ_CALL_LEASE 10000

/* a message: this, and then its fields (RINQ_KIND_SEND) */
typedef struct RinqOutbound
{
	uint32		length;			/* of all of it, aligned */
	RinqSendKind kind;
	bool		durable;		/* the message is a row of the outbox, too */
	bool		known;			/* the peer has it already, and need not send
								 * this copy */
	RinqSessionId target;		/* of a notification to one */
	RinqOutboxItem item;		/* the message's id; the row, when it is
								 * durable */
	int64		deadline;		/* on the wall clock, as in the outbox; 0 is
								 * none */
	uint32		size;			/* of the packed fields */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} RinqOutbound;

typedef enum RinqChunkKind
{
	/* from transactions */
	RINQ_CHUNK_TRANSACTION,		/* messages */

	/* from the outbox worker */
	RINQ_CHUNK_SNAPSHOT,		/* what the scan that begins sees */
	RINQ_CHUNK_STORED,			/* messages that the scan has found */
	RINQ_CHUNK_SCANNED,			/* the rows before were all */
	RINQ_CHUNK_FETCHED,			/* messages that were asked for */
	RINQ_CHUNK_REMOVED,			/* items that are not in the outbox any more,
								 * or "postponed" */
	RINQ_CHUNK_LISTED,			/* items of the oldest rows */
	RINQ_CHUNK_RELEASED,		/* messages that have waited, and are in the
								 * outbox now */
	RINQ_CHUNK_LOOKED,			/* these were all */
	RINQ_CHUNK_RESPONSES_STORED,	/* what has become of answers */
	RINQ_CHUNK_SOURCE_READ,		/* attributes of a session of the mailbox */
	RINQ_CHUNK_CALLS_DUE,		/* durable calls whose handler is to run */

	/* to the outbox worker */
	RINQ_CHUNK_SCAN,			/* read everything */
	RINQ_CHUNK_FETCH,			/* items to read again */
	RINQ_CHUNK_REMOVE,			/* items that the broker has confirmed */
	RINQ_CHUNK_SET_ASIDE,		/* failed ones */
	RINQ_CHUNK_CHECK,			/* list as many of the oldest rows as fit, and
								 * count all */
	RINQ_CHUNK_LOOK,			/* look which of those that wait may be sent */
	RINQ_CHUNK_RESPONSES,		/* answers to durable calls: store them */
	RINQ_CHUNK_SOURCE,			/* read a session of the mailbox */
	RINQ_CHUNK_CALLS_LOOK,		/* see to durable calls whose time has come */
	RINQ_CHUNK_NEW_MAILBOX,		/* have another mailbox than this one */
	RINQ_CHUNK_PURGE			/* delete what was recorded long ago */
} RinqChunkKind;

typedef struct RinqChunk
{
	dsa_pointer next;
	RinqChunkKind kind;
	Size		charge;			/* bytes that it is counted with, itself
								 * included */
	uint32		size;			/* bytes that follow */
	uint32		count;			/* things that follow */

	/* of a transaction */
	uint32		plain;			/* messages in it that no outbox has */
	bool		has_durable;
	FullTransactionId xid;		/* with durable messages */

	/* of a transaction, in its first chunk: what held when it was linked */
	bool		first;
	bool		left;			/* durable messages were left in the outbox */
	uint32		round;			/* RinqSendQueue.round */

	/*
	 * between the peer and the outbox worker: number of the scan; "round" is
	 * of its order
	 */
	uint32		scan;
} RinqChunk;

/* a snapshot, as far as it decides whether a transaction was over */
typedef struct RinqScanSnapshot
{
	FullTransactionId xmax;
	uint32		count;
	TransactionId xip[FLEXIBLE_ARRAY_MEMBER];
} RinqScanSnapshot;

#define RINQ_CHUNK_DATA(chunk) ((char *) (chunk) + MAXALIGN(sizeof(RinqChunk)))

/* chunks linked by "next" */
typedef struct RinqChunkList
{
	dsa_pointer first;
	dsa_pointer last;
} RinqChunkList;

typedef enum RinqSendList
{
	RINQ_SEND_LIST_TRANSACTIONS,	/* to the peer */
	RINQ_SEND_LIST_REPORTS,		/* from the outbox worker to the peer */
	RINQ_SEND_LIST_ORDERS,		/* from the peer to the outbox worker */
	RINQ_SEND_LISTS
} RinqSendList;

/* what transactions do with durable messages, which the outbox has in any case */
typedef enum RinqSendMode
{
	RINQ_SEND_STORED,			/* nothing: a scan of the outbox is due */
	RINQ_SEND_PACKED,			/* the same, but they are prepared for the
								 * next: it is about to begin */
	RINQ_SEND_DIRECT			/* hand them over */
} RinqSendMode;

/* commits that the number of rows does not tell apart from its snapshot yet */
#define RINQ_DEPTH_DOUBTS 64

typedef struct RinqDepthDoubt
{
	FullTransactionId xid;
	uint32		rows;
} RinqDepthDoubt;

/*
 * Everything but the flags that say that a process waits is protected by the
 * lock.
 */
typedef struct RinqSendQueue
{
	LWLock	   *lock;
	Oid			dboid;			/* whose peer reads it; InvalidOid: no peer
								 * does */
	uint32		generation;		/* counts the times it was emptied */
	RinqChunkList lists[RINQ_SEND_LISTS];
	Size		reserved;		/* bytes of transactions, from packing until
								 * the peer frees them */
	Size		reported;		/* bytes of the outbox worker, until the peer
								 * frees them */
	RinqSendMode mode;
	uint32		round;			/* counts the times that direct mode was left */
	bool		starved;		/* the outbox worker finds no memory */
	bool		worker_waits;	/* the outbox worker, for room */
	bool		senders_wait;	/* backends, for room */
	bool		untidy;			/* the outbox worker has not given all space
								 * back */

	/* counting the rows: see ipc/outbox_depth.c */
	uint32		counting;		/* changes when they are about to be counted,
								 * and with the snapshot */
	bool		count_begins;	/* about to be, the snapshot is not taken */
	uint32		num_doubts;
	bool		miscounted;		/* there were more doubts than fit */
	RinqDepthDoubt doubts[RINQ_DEPTH_DOUBTS];
} RinqSendQueue;

/* what a transaction has packed, on its way to the commit */
typedef struct RinqPacked
{
	dsa_pointer first;
	dsa_pointer last;
	Size		charge;			/* reserved; that of all chunks */
	uint32		generation;		/* of the queue, when it was */
	uint32		counting;		/* likewise */
	uint32		plain;			/* messages in them that no outbox has */
	uint32		stored;			/* rows that the transaction has added to the
								 * outbox */
	bool		has_durable;	/* all of these are in the chunks, too */
	bool		want_scan;		/* rows were added in another way */
	FullTransactionId xid;
} RinqPacked;

/* messages */
extern Size rinq_outbound_size(const RinqFields *fields);
extern void rinq_outbound_write(RinqOutbound *message, const RinqFields *fields);
extern void rinq_outbound_read(const RinqOutbound *message, RinqFields *fields);

/* chunks */
extern dsa_pointer rinq_chunk_alloc(RinqChunkKind kind, Size size);
extern Size rinq_chunk_charge(Size size);
extern RinqChunk *rinq_chunk(dsa_pointer pointer);
extern RinqOutbound *rinq_chunk_message(RinqChunk *chunk, Size at);
extern void *rinq_chunk_items(RinqChunk *chunk, Size item_size);
extern void rinq_chunk_free(dsa_pointer pointer);

/* lists of chunks, of one process */
extern void rinq_chunks_add(RinqChunkList *list, dsa_pointer pointer);
extern dsa_pointer rinq_chunks_take(RinqChunkList *list);

/* set-up */
extern void rinq_sendqueue_init(RinqSendQueue *queue, LWLock *lock);
extern void rinq_sendqueue_open(RinqDatabase *db);
extern void rinq_sendqueue_reset(RinqDatabase *db);

/* in transactions */
extern Size rinq_sendqueue_limit(void);
extern bool rinq_sendqueue_wants(RinqSendQueue *queue, RinqPacked *packed);
extern bool rinq_sendqueue_reserve(RinqSendQueue *queue, RinqPacked *packed, Size charge);
extern void rinq_sendqueue_unreserve(RinqSendQueue *queue, RinqPacked *packed);
extern void rinq_sendqueue_commit(RinqDatabase *db, RinqPacked *packed);
extern bool rinq_sendqueue_has_room(RinqSendQueue *queue, Size bytes);
extern void rinq_sendqueue_want_scan(RinqDatabase *db);

/* between the peer and the outbox worker */
extern void rinq_sendqueue_order(RinqDatabase *db, dsa_pointer pointer);
extern bool rinq_sendqueue_report(RinqDatabase *db, dsa_pointer pointer, uint32 incarnation);
extern dsa_pointer rinq_sendqueue_get(RinqSendQueue *queue, RinqSendList list);
extern dsa_pointer rinq_sendqueue_peek(RinqSendQueue *queue, RinqSendList list);
extern void rinq_sendqueue_free(RinqSendQueue *queue, dsa_pointer pointer);
extern Size rinq_sendqueue_report_bytes(RinqSendQueue *queue);
extern void rinq_sendqueue_drop_orders(RinqSendQueue *queue);

/* how durable messages get to the peer */
extern void rinq_sendqueue_state(RinqSendQueue *queue, RinqSendMode *mode, uint32 *round);
extern void rinq_sendqueue_pack(RinqSendQueue *queue);
extern bool rinq_sendqueue_go_direct(RinqSendQueue *queue, uint32 round);
extern uint32 rinq_sendqueue_leave_direct(RinqSendQueue *queue);

/* Return the queue of a database. */
static inline RinqSendQueue *
rinq_sendqueue_of(RinqDatabase *db)
{
	return (RinqSendQueue *) ((char *) rinq_shared + db->send_offset);
}

#endif							/* RINQ_SENDQUEUE_H */
