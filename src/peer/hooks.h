/*-------------------------------------------------------------------------
 *
 * hooks.h
 *	  What happens in one part of the peer, and concerns parts above it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_HOOKS_H
#define RINQ_PEER_HOOKS_H

#include "postgres.h"

extern void rinq_hooks_init(void);

#endif							/* RINQ_PEER_HOOKS_H */
