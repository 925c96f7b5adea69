/*-------------------------------------------------------------------------
 *
 * credentials.h
 *	  The password for the broker, in a file of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_CREDENTIALS_H
#define RINQ_PEER_CREDENTIALS_H

#include "postgres.h"

extern bool rinq_password_read(const char *path, char *password, size_t password_size,
							   char *error, size_t size);

#endif							/* RINQ_PEER_CREDENTIALS_H */
