/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  The password for the broker, in a file of its own.
 *
 * What stands in the server's configuration is shown, logged and copied in
 * more ways than a secret can bear; a file that only the server's user reads
 * is not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/broker.h"
#include "peer/credentials.h"

/*
 * Check who may read the file, like the key of a certificate: private, or
 * root's and readable by a group.
 */
static bool
check_file(int fd, const char *path, char *error, size_t size)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
	{
		snprintf(error, size, "could not stat file \"%s\": %s", path, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode))
	{
		snprintf(error, size, "\"%s\" is not a regular file", path);
		return false;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0)
	{
		snprintf(error, size, "file \"%s\" must be owned by the server's user or root", path);
		return false;
	}
	if ((st.st_mode & (st.st_uid == 0 && geteuid() != 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0)
	{
		snprintf(error, size,
				 "file \"%s\" has group or world access: it must have permissions 0600, or 0640 if owned by root",
				 path);
		return false;
	}
	return true;
}

/* Take the first line, without its end. */
static bool
take_line(char *text, ssize_t len, const char *path, char *password, size_t password_size,
		  char *error, size_t size)
{
	char	   *end;

	end = memchr(text, '\n', (size_t) len);
	if (end == NULL)
		end = text + len;
	if (end > text && end[-1] == '\r')
		end--;
	if (end == text || memchr(text, '\0', (size_t) (end - text)) != NULL)
	{
		snprintf(error, size, "the first line of file \"%s\" is not a password", path);
		return false;
	}
	if ((size_t) (end - text) >= password_size)
	{
		snprintf(error, size, "the first line of file \"%s\" is longer than %d bytes", path,
				 (int) password_size - 1);
		return false;
	}
	memcpy(password, text, (size_t) (end - text));
	password[end - text] = '\0';
	return true;
}

/* Read as much of the file as a password can have, and the end of its line. */
static ssize_t
read_start(int fd, char *text, size_t size)
{
	size_t		len = 0;

	while (len < size)
	{
		ssize_t		n = read(fd, text + len, size - len);

		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0)
			len += (size_t) n;
	}
	return (ssize_t) len;
}

/*
 * Read the password from a file.  On failure return false with an error, and
 * leave the password alone.
 */
bool
rinq_password_read(const char *path, char *password, size_t password_size,
				   char *error, size_t size)
{
	char		text[RINQ_PASSWORD_SIZE + 2];
	ssize_t		len = 0;
	bool		ok;

	/* of a pipe, there may be no process at the other end */
	int			fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
	{
		snprintf(error, size, "could not open file \"%s\": %s", path, strerror(errno));
		return false;
	}
	ok = check_file(fd, path, error, size);
	if (ok)
	{
		len = read_start(fd, text, sizeof(text));
		ok = len >= 0;
		if (!ok)
			snprintf(error, size, "could not read file \"%s\": %s", path, strerror(errno));
	}
	close(fd);
	ok = ok && take_line(text, len, path, password, password_size, error, size);
	explicit_bzero(text, sizeof(text));
	return ok;
}
