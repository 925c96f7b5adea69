/*-------------------------------------------------------------------------
 *
 * version.h
 *	  Versions of the extension and of the protocol it speaks.
 *
 * make lint checks that RINQ_VERSION is the default version of the control
 * file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_VERSION_H
#define RINQ_VERSION_H

#define RINQ_VERSION "0.1.0"
#define RINQ_PROTOCOL_VERSION "0.7"

/* the first version whose objects in a database this library works with */
#define RINQ_OLDEST_OBJECTS "0.1.0"

#endif							/* RINQ_VERSION_H */
