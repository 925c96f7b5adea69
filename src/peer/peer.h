/*-------------------------------------------------------------------------
 *
 * peer.h
 *	  The parts of the peer process, and what they ask of each other.
 *
 *	peer.c		the process: its event loop, inbox, start and stop
 *	turn.c		sharing a turn between kinds of work
 *	network.c	the connection to the broker: making it, losing it, identity
 *	credentials.c	the password for the broker, in a file
 *	declare.c	declaring queues, so that one that cannot be had holds up no other
 *	mending.c	declaring everything again now and then
 *	namespaces.c	the namespaces that are known
 *	topology.c	exchanges, queues and bindings; which namespaces are served
 *	publisher.c	publishing, so that what the broker refuses fails alone
 *	invoker.c	calls out: requests sent, responses received
 *	sender.c	what transactions have committed; sender.h has its parts
 *	headers.c	headers that messages of all kinds have
 *	server.c	calls in, and what else arrives for executors
 *	dispatch.c		what waits for executors, and what they have done
 *	lanes.c		whose turn it is
 *	delivery.c	responding to requests, and settling them
 *	pool.c		the executors that run handlers
 *	sessions.c	the sessions of this peer
 *	session_cache.c	sessions of other peers, and what is known about them
 *	session_requests.c	what backends ask about sessions
 *	sess_server.c	what other peers ask about sessions
 *	notifications.c	which sessions listen; notifications that are sent
 *	matching.c	notifications that arrive, and which sessions they are for
 *	buffer.c		notifications that wait to be fetched
 *	session_index.c	which sessions a constraint may match
 *	subscriptions.c	subscriptions that outlive connections
 *
 * Everything here is private to that one process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_H
#define RINQ_PEER_H

#include "postgres.h"

#include "amqp/connection.h"
#include "base/ident.h"
#include "ipc/listener_config.h"
#include "ipc/slots.h"
#include "ipc/worker.h"
#include "lib/ilist.h"
#include "protocol/attribute.h"

/* AMQP channels, so that a fault on one leaves the others alone */
#define CHANNEL_COMMANDS 1		/* consumes unicast and multicast requests */
#define CHANNEL_RESPONSES 2		/* consumes responses */
#define CHANNEL_TOPOLOGY 3		/* declares and binds */
#define CHANNEL_PUBLISH 4		/* sends calls, responses and notifications */
#define CHANNEL_CONFIRMED 5		/* sends what transactions have committed */
#define CHANNEL_NOTIFICATIONS 6 /* consumes notifications */
#define CHANNEL_NAMESPACES 7	/* from here on: each consumes a namespace's
								 * requests */

typedef struct RinqPeer
{
	RinqDatabase *db;
	RinqSlots  *slots;
	RinqWorkerArgs args;
	RinqConn   *conn;			/* NULL while there is none */
	bool		ready;			/* connected, with identity and queues */
	bool		stopping;
	RinqPeerId	id;				/* valid while connected */
	char		id_text[RINQ_PEER_ID_SIZE];
	char		short_text[RINQ_PEER_SHORT_SIZE];
	int64		now;			/* ms of the monotonic clock, once per turn;
								 * as all times here */
} RinqPeer;

extern RinqPeer rinq_peer;

/* turn.c */
extern void rinq_turn_begin(void);
extern void rinq_turn_end(void);
extern void rinq_slice_begin(void);
extern bool rinq_slice_over(void);

/* how many events of a kind there were lately; all zero at first */
typedef struct RinqBurst
{
	int64		since;
	int			count;
} RinqBurst;

extern bool rinq_too_often(RinqBurst *burst, int most);

/* network.c */
extern void rinq_network_init(void);
extern bool rinq_network_step(void);
extern void rinq_network_flush(void);
extern void rinq_network_reload(void);
extern void rinq_network_stop(void);
extern bool rinq_network_stopped(void);
extern int64 rinq_network_next_deadline(void);
extern void rinq_network_fail(const char *reason);
extern void rinq_network_queue_name(char *buf, size_t size, const char *suffix);

/* credentials.c */
extern bool rinq_password_read(char *password, size_t password_size, char *error, size_t size);

/* topology.c */
typedef enum RinqNamespaceState
{
	NAMESPACE_UNDECLARED,
	NAMESPACE_DECLARING,
	NAMESPACE_DECLARED,
	NAMESPACE_FAILED
} RinqNamespaceState;

typedef struct RinqNamespace
{
	char		name[RINQ_NAMESPACE_MAXLEN + 1];	/* hash key */
	uint32		index;			/* travels as cookie with requests */
	RinqNamespaceState state;	/* of the queue cmd.<namespace> */
	dlist_node	declaring;		/* while it is being declared (declare.c) */
	uint16		declare_channel;	/* where */
	int64		declare_since;
	int64		mend_after;		/* it is not declared again before (mending.c) */
	uint16		channel;		/* that consumes its requests; 0 is none yet */
	bool		consuming;		/* requested from the broker */
	RinqListener *listener;		/* NULL when nobody listens */
	int64		retry_at;		/* when a failed one is tried again */
	int			retry_delay;
	int64		lost_at;		/* when the broker has ended consuming, the
								 * last time */
	List	   *waiting;		/* calls, as slot indexes and serials */
	int			started;		/* requests in the line or running */
	int64		problem_noted;	/* when its listener's problem was logged */
	dlist_head	subscriptions;	/* of sessions that listen to notifications */
	enum
	{
		NOTIFICATIONS_UNBOUND,
		NOTIFICATIONS_BINDING,
		NOTIFICATIONS_BOUND
	}			notifications;
	int			binds;			/* under way: a bind that was undone meanwhile
								 * counts, too */
	List	   *binding;		/* operations that wait for that
								 * (rinq_operation_wait) */
} RinqNamespace;

extern void rinq_topology_init(void);
extern void rinq_topology_opened(void);
extern void rinq_topology_connection_lost(void);
extern void rinq_topology_reply(const RinqReply *reply);
extern void rinq_topology_channel_closed(const RinqAmqpChannelClosed *info);
extern void rinq_topology_cancelled(RinqBytes consumer_tag);
extern void rinq_topology_configure(List *listeners);
extern RinqNamespace * rinq_topology_namespace(RinqBytes name, int limit);
extern RinqNamespace * rinq_topology_find(RinqBytes name);
extern void rinq_topology_declare(RinqNamespace * ns);
extern void rinq_topology_mend(RinqNamespace * ns);
extern void rinq_topology_declare_own(bool again, int first);
extern void rinq_topology_declare_again(RinqNamespace * ns);
extern uint32 rinq_topology_count(void);
extern RinqNamespace * rinq_topology_at(uint32 index);
extern bool rinq_topology_subscribe(RinqNamespace * ns, uint32 index);
extern void rinq_topology_unsubscribe(RinqNamespace * ns);
extern void rinq_topology_stop_consuming(void);
extern int64 rinq_topology_retry(void);

/* declare.c */
#define RINQ_DECLARE_PATIENCE 3000	/* ms after which calls do not wait any
									 * longer */

extern uint16 rinq_declare_last_consumer(void);
extern uint16 rinq_declare_channel(void);
extern uint16 rinq_declare_mending_channel(void);
extern bool rinq_is_declare_channel(uint16 channel);
extern void rinq_declare_answered(uint16 channel);
extern void rinq_declare_begin(RinqNamespace * ns);
extern void rinq_declare_end(RinqNamespace * ns, RinqNamespaceState state);
extern RinqNamespace * rinq_declare_oldest(uint16 channel);
extern void rinq_declare_elsewhere(uint16 channel, bool oldest_stays);
extern const char *rinq_declare_problem(const RinqNamespace * ns, int patience);
extern int64 rinq_declare_step(void);
extern void rinq_declare_connection_lost(void);

/* mending.c */
extern void rinq_mending_opened(void);
extern void rinq_mending_soon(void);
extern void rinq_mending_refused(const RinqAmqpChannelClosed *info, RinqNamespace * ns);
extern int64 rinq_mending_step(void);

/* invoker.c */
extern void rinq_invoker_init(void);
extern void rinq_invoker_call(uint32 index, uint32 serial);
extern int64 rinq_invoker_retry(void);
extern void rinq_invoker_abandoned(uint32 index, uint32 serial);
extern void rinq_invoker_declared(RinqNamespace * ns, RinqOutcome outcome,
								  const char *error);
extern void rinq_invoker_declaring(RinqNamespace * ns, int64 deadline, const char *problem);
extern void rinq_invoker_response(const RinqDelivery *delivery);
extern bool rinq_invoker_busy(void);
extern bool rinq_invoker_finish(uint32 index, RinqOutcome outcome, RinqBytes type,
								RinqBytes text, RinqBytes payload);
extern void rinq_invoker_finish_text(uint32 index, RinqOutcome outcome, const char *text);
extern void rinq_invoker_ask(uint32 index, const RinqPeerId *peer, const char *command,
							 RinqBytes body);
extern void rinq_invoker_fail_all(const char *reason, bool also_of_handlers);

/* sender.c */
extern void rinq_sender_init(void);
extern int64 rinq_sender_step(void);
extern bool rinq_sender_streams(void);
extern bool rinq_sender_busy(void);
extern void rinq_sender_opened(void);
extern void rinq_sender_connection_lost(void);
extern void rinq_sender_confirmed(uint64 tag, bool multiple, bool nack);
extern void rinq_sender_returned(const RinqReturn *ret);
extern void rinq_sender_end(void);

/* headers.c */
#define RINQ_EXPIRATION_SIZE 24

extern void rinq_message_set_deadline(RinqMessage *msg, int64 deadline,
									  char expiration[RINQ_EXPIRATION_SIZE]);
extern void rinq_message_set_trace(RinqMessage *msg, RinqBytes trace);

/* a session of this peer (sessions.c) */
typedef struct RinqSession
{
	uint32		seq;			/* hash key */
	uint64		serial;			/* that no session of another identity has,
								 * either */
	uint32		client;			/* the process it belongs to; 0 is none */
	int			procno;			/* of that process */
	int			pid;
	Oid			role;			/* whose session it is */
	uint32		revision;
	uint32		next_message;	/* of those without a process */
	int			pending;		/* calls that wait for their response */
	TimestampTz created;
	RinqAttributeTable *attributes;
	RinqListener *on_response;	/* handles responses; NULL is none */
	dlist_head	subscriptions;	/* namespaces it listens to (notifications.c) */
	dlist_node	listening;		/* while it listens to any (session_index.c) */
	uint64		last_match;		/* number of the notification that was last
								 * matched */
	dlist_head	notifications;	/* that wait until the one before is handled
								 * (dispatch.c) */
	bool		handling;		/* one of them is being handled */
	bool		standing;		/* it was made for a subscription
								 * (subscriptions.c) */
	dlist_head	kept;			/* until they are fetched (buffer.c) */
	int			num_kept;
	int			num_keeping;	/* namespaces whose notifications are kept */
	Size		kept_bytes;		/* what they take */
	dlist_node	keeping;		/* while there are any (buffer.c) */
	List	   *fetching;		/* operations that wait for such
								 * (rinq_operation_wait) */
	dlist_node	node;
} RinqSession;

/* server.c */
extern void rinq_server_request(const RinqDelivery *delivery);
extern bool rinq_server_response(const RinqDelivery *delivery, const RinqListener *handler);
extern bool rinq_server_notification(const RinqDelivery *delivery, RinqSession * session,
									 const RinqListener *handler, RinqReceiveMode mode);

/* dispatch.c */
typedef struct RinqDemand
{
	Oid			role;
	int64		oldest;			/* when its oldest request came into the line */
} RinqDemand;

extern int	rinq_dispatch_demand(RinqDemand * demand, int max);
extern void rinq_dispatch_init(void);
extern void rinq_dispatch_result(uint32 index, uint32 serial);
extern void rinq_dispatch_channel_lost(uint16 channel);
extern void rinq_dispatch_connection_lost(void);
extern void rinq_dispatch_configured(void);
extern void rinq_dispatch_session_ends(RinqSession * session);
extern void rinq_dispatch_role_failed(Oid role);
extern void rinq_dispatch_give_back_queued(void);
extern int64 rinq_dispatch_expire(void);
extern bool rinq_dispatch_busy(void);

/* pool.c */
extern void rinq_pool_init(void);
extern int64 rinq_pool_manage(void);
extern void rinq_pool_wake(int procno);
extern void rinq_pool_end(void);

/* sessions.c */
#define RINQ_NO_SESSION_MEMORY "there is no room for more within \"rinq.session_memory\""

extern void rinq_sessions_init(void);
extern void rinq_sessions_clear(void);
extern void rinq_own_session_of_process(int procno, uint32 client);
extern void rinq_own_session_client_gone(uint32 client);
extern void rinq_own_sessions_look(void);
extern RinqSession * rinq_own_session_find(uint32 seq);
extern RinqSession * rinq_own_session_after(uint32 seq);
extern RinqSession * rinq_own_session_create(Oid role);
extern void rinq_own_session_on_response(RinqSession * session, RinqBytes handler, Oid role,
										 Oid owner);
extern RinqOutcome rinq_own_session_update(uint32 seq, uint32 revision, RinqBytes namespace,
										   RinqAttribute *attributes, int count,
										   RinqBytes *detail);
extern RinqOutcome rinq_own_session_clear(uint32 seq, uint32 revision, RinqBytes namespace,
										  RinqBytes *detail);
extern RinqOutcome rinq_own_session_destroy(uint32 seq, uint32 revision);
extern void rinq_own_session_renumber(RinqSession * session);
extern void rinq_own_session_pending(uint32 seq, int change);

/* session_cache.c */
extern void rinq_session_cache_init(void);
extern void rinq_session_cache_operation(uint32 index);
extern void rinq_session_cache_response(uint32 index, const RinqDelivery *delivery);
extern int64 rinq_session_cache_prune(void);

/* notifications.c */
typedef struct RinqSubscription RinqSubscription;

extern RinqMsgStatus rinq_notification_publish(const RinqOutbound *notification,
											   const RinqBytes *fields);
extern void rinq_notifications_subscribe(RinqSession * session, RinqNamespace * ns, RinqReceiveMode mode,
										 RinqBytes handler, Oid role, Oid owner);
extern bool rinq_notifications_unsubscribe(RinqSession * session, RinqNamespace * ns);
extern void rinq_notifications_unsubscribe_all(RinqSession * session);
extern const RinqListener *rinq_notifications_handler(RinqSession * session, RinqNamespace * ns);
extern bool rinq_buffers_notifications(const RinqSession * session);
extern void rinq_subscriptions_list(const RinqSession * session, StringInfo list);

/* matching.c */
extern void rinq_notification(const RinqDelivery *delivery);
extern bool rinq_notifications_step(void);
extern void rinq_notifications_channel_lost(void);
extern void rinq_notifications_drop(void);

/* subscriptions.c */
extern void rinq_durable_retry(void);
extern void rinq_durable_look(const RinqSession * session);
extern void rinq_durable_configure(List *subscriptions);
extern int64 rinq_durable_step(void);
extern void rinq_durable_list(StringInfo list);

/* buffer.c */
#define RINQ_NOTHING_BUFFERED "it does not listen to a namespace whose notifications are kept"

extern bool rinq_buffer_add(RinqSession * session, const RinqBytes *fields);
extern void rinq_buffer_fetch(RinqSession * session, uint32 index, bool wait);
extern void rinq_buffer_no_more(RinqSession * session);
extern void rinq_buffer_session_ends(RinqSession * session);

/* session_requests.c */
extern void rinq_operation(uint32 index);
extern List *rinq_operation_wait(List *waiting, uint32 index);
extern bool rinq_operation_waits(const void *waiting, uint32 *index);
extern void rinq_operation_bound(const void *waiting, const char *error);

/* sess_server.c */
extern char rinq_sess_serve(RinqBytes command, RinqBytes body, StringInfo answer);

/* peer.c */
extern void rinq_peer_wake_later(int procno);
extern void rinq_peer_ask_for_reading(void);
extern void rinq_peer_log_input(const char *what, const RinqDelivery *delivery);

#endif							/* RINQ_PEER_H */
