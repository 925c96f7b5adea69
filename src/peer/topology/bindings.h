/*-------------------------------------------------------------------------
 *
 * bindings.h
 *	  What is asked of the broker for exchanges, queues and bindings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_TOPOLOGY_BINDINGS_H
#define RINQ_PEER_TOPOLOGY_BINDINGS_H

#include "postgres.h"

#include "base/bytes.h"
#include "peer/topology/namespaces.h"

/* what a cookie of a request says: the step in the upper half, the namespace in the lower */
enum
{
	STEP_SETUP = 1,				/* of the peer's own queues, and exchanges */
	STEP_SETUP_LAST,
	STEP_BIND,					/* of cmd.<namespace>, the last of its steps */
	STEP_NAMESPACE,				/* its other steps */
	STEP_MULTICAST,				/* binding to requests to all its peers */
	STEP_CONSUME,
	STEP_SUBSCRIBE,				/* the last binding for notifications */
	STEP_AGAIN_OWN,				/* of what is there already: the peer's own */
	STEP_AGAIN,					/* and a namespace's */
	STEP_MAILBOX,				/* of the mailbox, */
	STEP_MAILBOX_LAST			/* the last of its steps */
};

#define RINQ_COOKIE(step, index) (((uint64) (step) << 32) | (index))
#define RINQ_COOKIE_STEP(cookie) ((int) ((cookie) >> 32))
#define RINQ_COOKIE_INDEX(cookie) ((uint32) (cookie))

#define RINQ_OWN_QUEUE_SIZE 16
#define RINQ_COMMAND_QUEUE_SIZE (RINQ_NAMESPACE_MAXLEN + 8)

extern RinqBytes rinq_own_queue(const char *suffix, char buf[RINQ_OWN_QUEUE_SIZE]);
extern RinqBytes rinq_command_queue(const RinqNamespace * ns, char buf[RINQ_COMMAND_QUEUE_SIZE]);
extern void rinq_declare_own(bool again, int first);
extern void rinq_bind_notifications(RinqNamespace * ns, int step, int last_step);
extern void rinq_unbind_notifications(RinqNamespace * ns);
extern void rinq_bind_command_queue(RinqNamespace * ns, uint16 channel, int step, int last_step);
extern void rinq_bind_multicast(RinqNamespace * ns, int step);
extern void rinq_unbind_multicast(RinqNamespace * ns);

#endif							/* RINQ_PEER_TOPOLOGY_BINDINGS_H */
