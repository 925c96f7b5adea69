/*-------------------------------------------------------------------------
 *
 * notify_bridge.h
 *	  Notifications that go on to PostgreSQL's LISTEN and NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_NOTIFY_BRIDGE_H
#define RINQ_WORKER_NOTIFY_BRIDGE_H

#include "postgres.h"

#include "base/bytes.h"

extern void rinq_notify_bridge(const RinqFields *fields);

#endif							/* RINQ_WORKER_NOTIFY_BRIDGE_H */
