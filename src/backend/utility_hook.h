/*-------------------------------------------------------------------------
 *
 * utility_hook.h
 *	  What the extension does when databases and extensions are created,
 *	  changed and dropped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_UTILITY_HOOK_H
#define RINQ_BACKEND_UTILITY_HOOK_H

extern void rinq_utility_hook_init(void);

/* at commit, have this database's listeners read again */
extern void rinq_utility_hook_reread_at_commit(void);
extern bool rinq_utility_hook_rereads_at_commit(void);

/* and, with that, find out when what waits in the inbox is due */
extern void rinq_utility_hook_inbox_at_commit(void);

/* have the listeners read again at once, and the outbox */
extern void rinq_utility_hook_reread_now(void);

/* and, at commit, have it served although it is a copy */
extern void rinq_utility_hook_adopt_at_commit(void);

#endif							/* RINQ_BACKEND_UTILITY_HOOK_H */
