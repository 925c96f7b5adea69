/*-------------------------------------------------------------------------
 *
 * backend/own_dropped.h
 *	  What is lost because the extension is dropped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_OWN_DROPPED_H
#define RINQ_BACKEND_OWN_DROPPED_H

extern bool rinq_own_table_dropped(Oid relid);
extern void rinq_own_extension_dropped(void);
extern void rinq_own_forget_dropped(void);

#endif							/* RINQ_BACKEND_OWN_DROPPED_H */
