/*-------------------------------------------------------------------------
 *
 * base/library.c
 *	  Functions of other libraries, taken by address instead of by name.
 *
 * Plain C without PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/library.h"

/* not everywhere: then a namesake that was loaded before is not kept out */
#ifndef RTLD_DEEPBIND
#define RTLD_DEEPBIND 0
#endif

/*
 * Find who else has a function of this name and comes first in the common
 * space, in which a library that others have loaded looks for it.
 */
static const char *
find_namesake(const char *name, const void *address)
{
	void	   *first = dlsym(RTLD_DEFAULT, name);
	Dl_info		ours;
	Dl_info		theirs;

	if (first == NULL || first == address ||
		dladdr(address, &ours) == 0 || dladdr(first, &theirs) == 0 ||
		ours.dli_fbase == theirs.dli_fbase)
		return NULL;
	return theirs.dli_fname;
}

/*
 * Load a library and find functions in it.  It calls its own functions, too,
 * whatever others are called like them; if it was loaded before in a way that
 * has mixed it up with such, false is returned with an error that names the
 * other library.  What is loaded stays so until the process ends.
 */
bool
rinq_library_load(const char *soname, const RinqLibraryFunction *functions, size_t count,
				  char *error, size_t error_size)
{
	void	   *present = dlopen(soname, RTLD_NOW | RTLD_NOLOAD);
	void	   *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	size_t		i;

	if (library == NULL)
	{
		snprintf(error, error_size, "%s", dlerror());
		return false;
	}
	for (i = 0; i < count; i++)
	{
		void	   *address = dlsym(library, functions[i].name);
		const char *other;

		if (address == NULL)
		{
			snprintf(error, error_size, "%s", dlerror());
			return false;
		}
		other = present != NULL ? find_namesake(functions[i].name, address) : NULL;
		if (other != NULL)
		{
			snprintf(error, error_size, "%s was loaded before, and has functions of %s in place of its own, such as %s",
					 soname, other, functions[i].name);
			return false;
		}
		*functions[i].pointer = address;
	}
	return true;
}
