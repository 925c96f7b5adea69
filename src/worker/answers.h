/*-------------------------------------------------------------------------
 *
 * answers.h
 *	  Writing what has become of durable calls, for the outbox worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_ANSWERS_H
#define RINQ_WORKER_ANSWERS_H

#include "postgres.h"

#include "utils/dsa.h"

extern bool rinq_answers_store(dsa_pointer order);
extern bool rinq_calls_look(dsa_pointer order);
extern bool rinq_mailbox_renew(dsa_pointer order);

#endif							/* RINQ_WORKER_ANSWERS_H */
