/*-------------------------------------------------------------------------
 *
 * order_key.h
 *	  The value in a payload by which requests are handled one at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PROTOCOL_ORDER_KEY_H
#define RINQ_PROTOCOL_ORDER_KEY_H

#include "postgres.h"

#include "base/bytes.h"

extern uint64 rinq_order_key(RinqBytes payload, RinqBytes path);

#endif							/* RINQ_PROTOCOL_ORDER_KEY_H */
