/*-------------------------------------------------------------------------
 *
 * sendqueue.h
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
#include "bytes.h"
#include "ident.h"
#include "shared.h"
#include "storage/itemptr.h"

#define RINQ_OUTBOX_TABLES 4

/* fields of a message that is sent at commit */
enum
{
	RINQ_SEND_NAMESPACE,
	RINQ_SEND_COMMAND,			/* or the type of a notification */
	RINQ_SEND_PAYLOAD,
	RINQ_SEND_TRACE,
	RINQ_SEND_SPAN,
	RINQ_SEND_TRACEPARENT,
	RINQ_SEND_TRACESTATE,
	RINQ_SEND_CONSTRAINT,		/* of a notification to many */
	RINQ_SEND_FIELDS
};

typedef enum RinqSendKind
{
	RINQ_SEND_COMMAND_REQUEST,
	RINQ_SEND_NOTIFICATION,		/* to one session */
	RINQ_SEND_MULTICAST			/* to those that match */
} RinqSendKind;

/* a row of the outbox; the place is where it was last seen */
typedef struct RinqOutboxItem
{
	RinqMessageId id;
	ItemPointerData tid;
	uint8		table;
} RinqOutboxItem;

/* a row that the broker did not take */
typedef struct RinqOutboxFailed
{
	RinqOutboxItem item;
	int			attempts;
	char		error[RINQ_LAST_ERROR_LEN];
} RinqOutboxFailed;

/* a message: this, and then its fields one after another */
typedef struct RinqOutgoing
{
	uint32		length;			/* of all of it, aligned */
	RinqSendKind kind;
	bool		durable;		/* it is a row of the outbox, too */
	RinqSessionId target;		/* of a notification to one */
	RinqOutboxItem item;		/* its id; its place, when it is durable */
	int64		deadline;		/* on the wall clock, as in the outbox; 0 is none */
	uint32		lengths[RINQ_SEND_FIELDS];	/* PG_UINT32_MAX: absent */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} RinqOutgoing;

typedef enum RinqChunkKind
{
	/* to the peer */
	RINQ_CHUNK_TRANSACTION,		/* messages, from a backend */
	RINQ_CHUNK_SNAPSHOT,		/* what the scan that begins sees */
	RINQ_CHUNK_STORED,			/* messages, read from the outbox */
	RINQ_CHUNK_REMOVED,			/* items that are not in the outbox any more */
	RINQ_CHUNK_SCANNED,			/* all that the scan has found was sent */

	/* to the outbox worker */
	RINQ_CHUNK_SCAN,			/* read everything */
	RINQ_CHUNK_FETCH,			/* items to read again */
	RINQ_CHUNK_REMOVE,			/* items that the broker has confirmed */
	RINQ_CHUNK_SET_ASIDE		/* failed ones */
} RinqChunkKind;

typedef struct RinqChunk
{
	dsa_pointer next;
	RinqChunkKind kind;
	uint32		size;			/* bytes that follow */
	uint32		count;			/* things that follow */
	FullTransactionId xid;		/* of a transaction with durable messages */
	bool		has_durable;
} RinqChunk;

/* a snapshot, as far as it decides whether a transaction was over */
typedef struct RinqScanSnapshot
{
	FullTransactionId xmax;
	uint32		count;
	TransactionId xip[FLEXIBLE_ARRAY_MEMBER];
} RinqScanSnapshot;

#define RINQ_CHUNK_DATA(chunk) ((char *) (chunk) + MAXALIGN(sizeof(RinqChunk)))

typedef struct RinqChunkQueue
{
	dsa_pointer first;
	dsa_pointer last;
	Size		bytes;
} RinqChunkQueue;

/*
 * How durable messages get to the peer.  While "direct" is set, transactions
 * hand them over; else the outbox is going to be scanned for them, which each
 * such transaction asks for.
 */
typedef struct RinqSendQueue
{
	slock_t		lock;
	RinqChunkQueue to_peer;
	RinqChunkQueue to_outbox;
	bool		direct;
	uint32		scan_wanted;	/* counts up */
	uint32		incarnation;	/* of the peer that reads it */
	bool		worker_waits;	/* the outbox worker, for room */
	bool		senders_wait;	/* backends, for room */
} RinqSendQueue;

/* messages */
extern Size rinq_outgoing_size(const RinqBytes *fields);
extern void rinq_outgoing_write(RinqOutgoing *message, const RinqBytes *fields);
extern void rinq_outgoing_read(const RinqOutgoing *message, RinqBytes *fields);

/* chunks */
extern dsa_pointer rinq_chunk_alloc(RinqChunkKind kind, Size size);
extern RinqChunk *rinq_chunk(dsa_pointer pointer);
extern void rinq_chunk_free(dsa_pointer pointer);

/* queues */
extern void rinq_sendqueue_init(RinqSendQueue *queue);
extern void rinq_sendqueue_reset(RinqDatabase *db, uint32 incarnation);
extern bool rinq_sendqueue_put(RinqDatabase *db, dsa_pointer chunk, uint32 incarnation);
extern bool rinq_sendqueue_commit(RinqDatabase *db, dsa_pointer first, bool want_scan);
extern dsa_pointer rinq_sendqueue_get(RinqSendQueue *queue, RinqChunkQueue *which);
extern Size rinq_sendqueue_bytes(RinqSendQueue *queue);
extern bool rinq_sendqueue_direct(RinqSendQueue *queue);
extern void rinq_sendqueue_go_direct(RinqSendQueue *queue);
extern void rinq_sendqueue_leave_direct(RinqSendQueue *queue);
extern void rinq_sendqueue_want_scan(RinqDatabase *db);
extern uint32 rinq_sendqueue_wanted(RinqSendQueue *queue);

#endif							/* RINQ_SENDQUEUE_H */
