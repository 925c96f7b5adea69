/*-------------------------------------------------------------------------
 *
 * base/library.h
 *	  Functions of other libraries, taken by address instead of by name.
 *
 * PostgreSQL loads all libraries of all extensions into one space of names,
 * where the first that has a name gives its function to all others.  So the
 * libraries that this one needs are neither linked to it, which would give
 * their names to everybody, nor found by name, which might find a namesake:
 * each is loaded for itself, and called through a table of pointers.
 *
 * RINQ_LINK_LIBRARIES, for programs of their own and for sanitizers, leaves all
 * that to the linker instead.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_LIBRARY_H
#define RINQ_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct RinqLibraryFunction
{
	const char *name;
	void	  **pointer;		/* set to its address */
} RinqLibraryFunction;

extern bool rinq_library_load(const char *soname, const RinqLibraryFunction *functions,
							  size_t count, char *error, size_t error_size);

/* the tables: amqp/codec.c, cbor/library.c and peer/cares.c */
extern bool rinq_amqp_load(char *error, size_t error_size);
extern bool rinq_cbor_load(char *error, size_t error_size);
extern bool rinq_cares_load(char *error, size_t error_size);

#endif							/* RINQ_LIBRARY_H */
