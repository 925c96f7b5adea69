/*-------------------------------------------------------------------------
 *
 * gather.h
 *	  Making queries that fan calls out make all of them before they wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_GATHER_H
#define RINQ_GATHER_H

extern void rinq_gather_init(void);

#endif							/* RINQ_GATHER_H */
