/*-------------------------------------------------------------------------
 *
 * tls_files.c
 *	  Reading the files that TLS needs: texts, and digests of them.
 *
 * Files are read here, not by the library: only regular ones, so that no pipe
 * makes the process wait, and a key only from a file that is private.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "amqp/tls_internal.h"
#include "base/invariant.h"

/* More than any list of revocations that is worth having. */
#define FILE_SIZE_MAX	(64 * 1024 * 1024)

/* Note why, and return false. */
bool
rinq_tls_refuse(RinqTlsLoading * l, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(l->error, l->error_size, fmt, args);
	va_end(args);
	ERR_clear_error();
	return false;
}

/* Return what the library says of its latest error. */
const char *
rinq_tls_library_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason != NULL ? reason : "unknown error";
}

/* Refuse to type a passphrase, and tell that one was asked for. */
int
rinq_tls_no_passphrase(char *buf, int size, int rwflag, void *asked)
{
	(void) buf;
	(void) size;
	(void) rwflag;
	*(bool *) asked = true;
	return -1;
}

/*
 * Check who may read a key, by libpq's rules: a file of root's may be readable
 * by a group, any other one by its owner alone.
 */
static bool
check_key_access(RinqTlsLoading * l, const char *path, const struct stat *st)
{
	mode_t		refused = st->st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;

	if ((st->st_mode & refused) == 0)
		return true;
	return rinq_tls_refuse(l, "private key file \"%s\" has group or world access: it must have permissions 0600, or 0640 if owned by root",
						   path);
}

/* Check what was opened, before any of it is read. */
static bool
check_opened(RinqTlsLoading * l, RinqTlsFile * file, bool is_key)
{
	if (fstat(file->fd, &file->st) != 0)
		return rinq_tls_refuse(l, "could not stat file \"%s\": %s", file->path, strerror(errno));
	if (!S_ISREG(file->st.st_mode))
		return rinq_tls_refuse(l, "\"%s\" is not a regular file", file->path);
	if (file->st.st_size > FILE_SIZE_MAX)
		return rinq_tls_refuse(l, "file \"%s\" is larger than %d MB", file->path, FILE_SIZE_MAX / (1024 * 1024));
	return !is_key || check_key_access(l, file->path, &file->st);
}

/*
 * Open a file that may be read for TLS; a path lasts as long as the file is used.
 * It has to be closed, also on failure.
 */
bool
rinq_tls_open_file(RinqTlsLoading * l, const char *path, bool is_key, RinqTlsFile * file)
{
	memset(file, 0, sizeof(*file));
	file->path = path;
	file->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (file->fd < 0)
		return rinq_tls_refuse(l, "could not open file \"%s\": %s", path, strerror(errno));
	return check_opened(l, file, is_key);
}

/* Read what was opened, whole; it is ended with a zero. */
bool
rinq_tls_read_file(RinqTlsLoading * l, RinqTlsFile * file)
{
	/* one byte more shows that it grows meanwhile */
	size_t		room = (size_t) file->st.st_size + 1;

	RINQ_ASSERT(file->fd >= 0 && file->data == NULL);
	file->data = malloc(room);
	if (file->data == NULL)
		return rinq_tls_refuse(l, "out of memory");
	while (file->len < room)
	{
		ssize_t		n = read(file->fd, file->data + file->len, room - file->len);

		if (n == 0)
		{
			file->data[file->len] = '\0';
			return true;
		}
		if (n > 0)
			file->len += (size_t) n;
		else if (errno != EINTR)
			return rinq_tls_refuse(l, "could not read file \"%s\": %s", file->path, strerror(errno));
	}
	return rinq_tls_refuse(l, "file \"%s\" is being written", file->path);
}

/* Close a file, and overwrite what was read. */
void
rinq_tls_close_file(RinqTlsFile * file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->data != NULL)
		explicit_bzero(file->data, file->len);
	free(file->data);
	memset(file, 0, sizeof(*file));
	file->fd = -1;
}

/* Add bytes to a digest, with their number, so that two never pass for one. */
bool
rinq_tls_add_digest(RinqTlsLoading * l, unsigned char *digest, const void *data, size_t len)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool		ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
		EVP_DigestUpdate(md, digest, RINQ_TLS_DIGEST_SIZE) == 1 &&
		EVP_DigestUpdate(md, &len, sizeof(len)) == 1 &&
		EVP_DigestUpdate(md, data, len) == 1 &&
		EVP_DigestFinal_ex(md, digest, NULL) == 1;

	EVP_MD_CTX_free(md);
	return ok || rinq_tls_refuse(l, "could not compute a digest: %s", rinq_tls_library_reason());
}
