/*-------------------------------------------------------------------------
 *
 * durable_responses.h
 *	  Writing what has become of durable calls, for the outbox worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_DURABLE_RESPONSES_H
#define RINQ_WORKER_DURABLE_RESPONSES_H

#include "postgres.h"

#include "utils/dsa.h"

extern bool rinq_durable_store_responses(dsa_pointer order);
extern bool rinq_durable_look_at_calls(dsa_pointer order);
extern bool rinq_durable_source_read(dsa_pointer order);
extern bool rinq_mailbox_renew(dsa_pointer order);

#endif							/* RINQ_WORKER_ANSWERS_H */
