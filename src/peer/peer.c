/*-------------------------------------------------------------------------
 *
 * peer.c
 *	  The peer process of one database: its event loop, its inbox, its start
 *	  and its stop.
 *
 * It is connected to no database, runs no user's code, holds no transaction,
 * and waits in one place: for its latch, the sockets of broker and name servers,
 * the postmaster's death, or the next deadline.  Only a nap while messages stream
 * holds it up elsewhere.  An error that escapes ends the
 * process; the launcher starts it again, with a new identity.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/clock.h"
#include "guc.h"
#include "ipc/session_ids.h"
#include "peer/command/dispatch.h"
#include "peer/command/due.h"
#include "peer/command/inbox.h"
#include "peer/command/invoker.h"
#include "peer/command/pending_calls.h"
#include "peer/command/pool.h"
#include "peer/command/request_slots.h"
#include "peer/broker.h"
#include "peer/hooks.h"
#include "peer/mailbox/mailbox_responses.h"
#include "peer/network.h"
#include "peer/notification/matching.h"
#include "peer/notification/subscriptions.h"
#include "peer/operation/session_cache.h"
#include "peer/operation/session_requests.h"
#include "peer/process.h"
#include "peer/sending/outbox_watch.h"
#include "peer/sending/publisher.h"
#include "peer/sending/sender.h"
#include "peer/session/sessions.h"
#include "peer/topology/consume.h"
#include "peer/topology/declare.h"
#include "peer/topology/mailbox.h"
#include "peer/topology/mending.h"
#include "peer/turn.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "protocol/payload.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#define NAP 100					/* µs between turns while transactions send
								 * many messages */
#define STOP_ROLLBACK 1000		/* ms for those to end that did not make it */

static WaitEventSet *wait_set = NULL;
static RinqSockets waited;		/* the sockets that are in the set */
static int	socket_events[RINQ_MAX_SOCKETS];

/* Release all who wait for this process, which ends, whatever the reason. */
static void
peer_gone(int code, Datum arg)
{
	RinqDatabase *db = rinq_peer.db;

	if (rinq_peer.conn != NULL)
		rinq_conn_destroy(rinq_peer.conn);
	rinq_peer.conn = NULL;

	LWLockReleaseAll();
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	db->incarnation++;			/* this peer's executors end when they see
								 * this */
	LWLockRelease(rinq_shared->lock);

	SpinLockAcquire(&db->mutex);
	db->status.net = RINQ_NET_STOPPED;
	db->status.stopping = false;
	db->status.peer_id[0] = '\0';
	SpinLockRelease(&db->mutex);
	rinq_identity_clear(db);
	rinq_sender_end();
	rinq_slots_peer_gone(db);
	rinq_pool_end();
	rinq_wake_proc(db->outbox.procno);	/* the outbox worker ends when it sees
										 * the incarnation */

	/* only now may another peer come */
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	if (db->peer.pid == MyProcPid)
	{
		db->peer.state = RINQ_WORKER_NONE;
		db->peer.procno = RINQ_NO_PROC;
	}
	LWLockRelease(rinq_shared->lock);
	ConditionVariableBroadcast(&db->changed);
	rinq_wake_launcher();
}

static bool
attach_peer(void)
{
	RinqDatabase *db = rinq_worker_attach(&rinq_peer.args);
	bool		wanted;

	rinq_peer.db = db;
	rinq_peer.slots = rinq_slots_of(db);
	LWLockAcquire(rinq_shared->lock, LW_EXCLUSIVE);
	wanted = db->oid == rinq_peer.args.dboid &&
		db->peer.state == RINQ_WORKER_STARTING &&
		db->incarnation == rinq_peer.args.incarnation && !db->stop;
	if (wanted)
	{
		/* what came between the last peer's end and this one's start */
		rinq_slots_peer_gone(db);
		rinq_forget_unattached(db);
		rinq_sendqueue_open(db);
		db->peer.state = RINQ_WORKER_RUNNING;
		db->peer.pid = MyProcPid;
		db->peer.procno = RINQ_MY_PROCNO;
	}
	LWLockRelease(rinq_shared->lock);
	if (!wanted)
		return false;

	SpinLockAcquire(&db->mutex);
	db->status.net = RINQ_NET_STARTING;
	db->status.stopping = false;
	db->status.ever_failed = false;
	SpinLockRelease(&db->mutex);
	return true;
}

/*
 * Take over what the reader has found.  When the database is not to be served
 * any more, there is nothing to take: the peer is about to stop, and until it
 * has left it goes on with what it has, connection and mailbox included.
 */
static void
read_config(void)
{
	MemoryContext old;
	RinqConfig	config;

	if (rinq_peer.db->config_serial == rinq_peer.config_seen)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (rinq_config_fetch(rinq_peer.db, &config, &rinq_peer.config_seen))
	{
		rinq_consume_configure(config.listeners);
		rinq_durable_configure(config.durable);
		rinq_mailbox_configure(&config.mailbox, config.mailbox_used);
		rinq_inbox_due_configured();
		rinq_dispatch_configured();
		if (rinq_peer_broker_configure(&config.server))
			rinq_network_reload();
	}
	MemoryContextSwitchTo(old);
}

/* find out by itself what there was no room to say */
static void
look_at_all(void)
{
	uint32		i;

	for (i = 0; i < rinq_peer.slots->num_slots; i++)
	{
		RinqSlot   *slot = &rinq_peer.slots->slot[i];
		RinqSlotState state = rinq_slot_state(slot);

		if (state == RINQ_SLOT_ABANDONED)
			rinq_invoker_abandoned(i, slot->serial);
		else if (state == RINQ_SLOT_DONE)
			rinq_dispatch_result(i, slot->serial);
	}
	rinq_own_sessions_look();
}

/* Take a call, or an operation on a session, from a backend. */
static void
take_call(uint32 index, uint32 serial)
{
	if (!rinq_invoker_accept(index, serial))
		return;
	if (rinq_peer.slots->slot[index].op == RINQ_OP_CALL)
		rinq_invoker_call(index);
	else
		rinq_operation(index);
}

/* Read the inbox; true when entries are left, since the slice is over. */
static bool
read_inbox(void)
{
	RinqEvent	entry;

	while (rinq_event_get(rinq_peer.slots, &entry))
	{
		switch (entry.kind)
		{
			case RINQ_EVENT_CALL:
				take_call(entry.value, entry.serial);
				break;
			case RINQ_EVENT_ABANDONED:
				rinq_invoker_abandoned(entry.value, entry.serial);
				break;
			case RINQ_EVENT_RESULT:
				rinq_dispatch_result(entry.value, entry.serial);
				break;
			case RINQ_EVENT_MORE_DUE:
				rinq_dispatch_more_due(entry.value, entry.serial);
				break;
			case RINQ_EVENT_SESSION:
				rinq_own_session_of_process((int) entry.value, entry.serial);
				break;
			case RINQ_EVENT_CLIENT_GONE:
				rinq_own_session_client_gone(entry.value);
				break;
		}
		if (rinq_slice_over())
			return true;
	}
	if (rinq_inbox_missed(rinq_peer.slots))
		look_at_all();
	return false;
}

/* Make a set of what is waited for. */
static void
build_wait_set(const RinqSockets *sockets)
{
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = rinq_create_wait_event_set(2 + RINQ_MAX_SOCKETS);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < sockets->count; i++)
		socket_events[i] = AddWaitEventToSet(wait_set, rinq_socket_events(&sockets->list[i]),
											 sockets->list[i].fd, NULL, NULL);
}

/* Tell whether the set has these very sockets, waited for whatever it is. */
static bool
has_sockets(const RinqSockets *sockets)
{
	if (wait_set == NULL || sockets->serial != waited.serial || sockets->count != waited.count)
		return false;
	for (int i = 0; i < sockets->count; i++)
	{
		if (sockets->list[i].fd != waited.list[i].fd)
			return false;
	}
	return true;
}

/*
 * Keep the set of what is waited for in line with the sockets.  It is made anew
 * when one was opened or closed: the number of a closed one may return, and a
 * set that still names the old one would be wrong without a sign of it.
 */
static void
prepare_wait(void)
{
	RinqSockets sockets;

	rinq_network_sockets(&sockets);
	if (!has_sockets(&sockets))
		build_wait_set(&sockets);
	else
		for (int i = 0; i < sockets.count; i++)
		{
			uint32		events = rinq_socket_events(&sockets.list[i]);

			if (events != rinq_socket_events(&waited.list[i]))
				ModifyWaitEvent(wait_set, socket_events[i], events, NULL);
		}
	waited = sockets;
}

static void
sleep_until(int64 deadline)
{
	static uint32 wait_event = 0;
	WaitEvent	event;
	long		timeout = -1;

	prepare_wait();
	if (deadline != 0)
		timeout = (long) Max(0, Min(deadline - rinq_clock_ms(), 60000));
	(void) WaitEventSetWait(wait_set, timeout, &event, 1,
							RINQ_WAIT_EVENT(wait_event, "RinqPeerMain"));
}

/*
 * Run one turn of everything; returns when the next one is due, -1 for at
 * once.
 */
static int64
run_turn(void)
{
	bool		more;
	int64		next;

	rinq_peer.now = rinq_clock_ms();
	rinq_turn_begin();
	rinq_slice_begin();
	read_config();
	more = rinq_network_step();
	rinq_slice_begin();
	more |= read_inbox();
	rinq_slice_begin();
	more |= rinq_notifications_step();
	rinq_slice_begin();
	next = rinq_network_next_deadline();
	next = rinq_clock_earlier(next, rinq_dispatch_expire());
	if (!rinq_peer.stopping)
		next = rinq_clock_earlier(next, rinq_inbox_step());
	next = rinq_clock_earlier(next, rinq_consume_retry());
	next = rinq_clock_earlier(next, rinq_declare_step());
	next = rinq_clock_earlier(next, rinq_mending_step());
	next = rinq_clock_earlier(next, rinq_publisher_step());
	next = rinq_clock_earlier(next, rinq_invoker_retry(take_call));
	next = rinq_clock_earlier(next, rinq_sender_step(rinq_pending_any()));
	next = rinq_clock_earlier(next, rinq_mailbox_step());
	rinq_slice_begin();
	next = rinq_clock_earlier(next, rinq_mailbox_responses_step());
	next = rinq_clock_earlier(next, rinq_session_cache_prune());
	rinq_slice_begin();
	next = rinq_clock_earlier(next, rinq_durable_step());
	if (!rinq_peer.stopping)
		next = rinq_clock_earlier(next, rinq_pool_manage());

	/* a lone wake-up is cheaper than sending; many are dearer */
	if (rinq_peer_wakes() == 1)
		rinq_peer_wake_now();
	rinq_network_flush();
	rinq_peer_wake_now();
	rinq_turn_end();
	return more ? -1 : next;
}

static void
handle_signals(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		rinq_peer.now = rinq_clock_ms();
		rinq_network_reload();
		rinq_outbox_watch_reload();
		(void) rinq_sendqueue_leave_direct(&rinq_peer.slots->send);
	}
}

/*
 * Leave the network in order: no new requests, those not started go back to
 * the broker, those running may finish within rinq.shutdown_timeout, and what
 * has not ended then is rolled back.  Calls that wait for a response are waited
 * for as well; but a process that was told to end leaves only handlers theirs.
 */
static void
leave_network(void)
{
	bool		graceful = !(rinq_peer.db->stopped && rinq_peer.db->stop_at_once);
	int64		deadline = rinq_clock_ms() + (graceful ? rinq_shutdown_timeout : 0);
	bool		ending = false;
	bool		closing = false;

	SpinLockAcquire(&rinq_peer.db->mutex);
	rinq_peer.db->status.stopping = true;
	SpinLockRelease(&rinq_peer.db->mutex);
	rinq_peer.now = rinq_clock_ms();
	if (rinq_peer.ready)
		rinq_consume_stop();
	rinq_peer.stopping = true;
	rinq_dispatch_give_back_queued();
	if (!rinq_peer.db->stop)
		rinq_invoker_fail_all("the peer was stopped", false);
	for (;;)
	{
		int64		next = run_turn();
		bool		busy = rinq_request_slots_busy() || rinq_pending_any() || rinq_publisher_busy();

		if (rinq_network_stopped())
			break;
		if (rinq_peer.db->stopped && rinq_peer.db->stop_at_once)
			deadline = Min(deadline, rinq_peer.now);
		if (!ending && busy && rinq_peer.now >= deadline)
		{
			/*
			 * calls of handlers end with these, which must not answer that
			 * they failed
			 */
			rinq_invoker_fail_all("the peer was stopped", false);
			rinq_pool_end();
			ending = true;
			deadline = rinq_peer.now + STOP_ROLLBACK;
			continue;
		}
		if (!closing && ((!busy && !rinq_sender_busy()) ||
						 (rinq_peer.now >= deadline && (ending || !busy))))
		{
			rinq_network_stop();
			closing = true;
			continue;
		}
		if (next >= 0)
			sleep_until(rinq_clock_earlier(next, closing ? 0 : deadline));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(LOG,
			(errmsg("rinq peer %s for database \"%s\" stopped",
					rinq_peer.id_text, NameStr(rinq_peer.db->name))));
}

void
rinq_peer_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, PG_SIG_IGN);	/* there is no statement to cancel */
	BackgroundWorkerUnblockSignals();
	if (!attach_peer())
		proc_exit(0);
	before_shmem_exit(peer_gone, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/* a process that was not forked is told the setting's placeholder alone */
	if (rinq_amqp_dsn == NULL && rinq_amqp_dsn_problem == NULL)
		ProcessConfigFile(PGC_SIGHUP);

	rinq_peer.now = rinq_clock_ms();
	rinq_hooks_init();
	rinq_session_cache_init();
	rinq_publisher_init();
	rinq_pending_init();
	rinq_request_slots_init();
	rinq_sender_init();
	rinq_pool_init();
	rinq_network_init();
	rinq_peer.config_seen = rinq_peer.db->config_serial - 1;

	while (!ShutdownRequestPending && !rinq_peer.db->stop)
	{
		int64		next = run_turn();

		if (rinq_sender_streams())
			pg_usleep(NAP);		/* not on its latch, so that no process has to
								 * wake this one */
		else if (next >= 0)
			sleep_until(next);
		ResetLatch(MyLatch);
		handle_signals();
	}
	leave_network();
	proc_exit(0);
}
