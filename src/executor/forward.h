/*-------------------------------------------------------------------------
 *
 * forward.h
 *	  Notifications that go on to PostgreSQL's LISTEN and NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_FORWARD_H
#define RINQ_FORWARD_H

#include "postgres.h"

#include "bytes.h"

extern void rinq_forward(const RinqBytes *fields);

#endif							/* RINQ_FORWARD_H */
