/*-------------------------------------------------------------------------
 *
 * tls_files_test.c
 *	  Files of authorities: when they are read again, and what happens when the
 *	  library has no memory to look at them.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "certs.h"
#include "check.h"
#include "fake.h"

#define HOST "broker.example"

/* Large enough to be seen among what the process reads otherwise. */
#define FILE_SIZE 200000

static Cert authority;
static Cert other_authority;
static Cert good;				/* of the first of them */
static RinqTlsConfig config;
static SSL_CTX *server;

/* ---------------- the clock, and memory ---------------- */

/* What the clock by which this program judges files is ahead, s. */
static time_t ahead;

/* How many bytes the process has read when that becomes a minute; negative is never. */
static long long minute_after = -1;

static long long bytes_read(void);

time_t
time(time_t * result)
{
	struct timespec now;
	time_t		seconds;

	if (minute_after >= 0 && bytes_read() > minute_after)
		ahead = 60;
	clock_gettime(CLOCK_REALTIME, &now);
	seconds = now.tv_sec + ahead;
	if (result != NULL)
		*result = seconds;
	return seconds;
}

/* Allocations of the library, and how many until one fails; negative is never. */
static long allocations;
static long until_failure = -1;

static bool
is_to_fail(void)
{
	allocations++;
	return until_failure >= 0 && until_failure-- == 0;
}

static void *
allocate(size_t size, const char *file, int line)
{
	(void) file;
	(void) line;
	return is_to_fail() ? NULL : malloc(size);
}

static void *
reallocate(void *old, size_t size, const char *file, int line)
{
	(void) file;
	(void) line;
	return is_to_fail() ? NULL : realloc(old, size);
}

static void
release(void *old, const char *file, int line)
{
	(void) file;
	(void) line;
	free(old);
}

/* Return how many bytes this process has read until now. */
static long long
bytes_read(void)
{
	FILE	   *file = fopen("/proc/self/io", "r");
	long long	bytes = -1;

	if (file == NULL)
		return -1;
	if (fscanf(file, "rchar: %lld", &bytes) != 1)
		bytes = -1;
	fclose(file);
	return bytes;
}

/* ---------------- files ---------------- */

/* Write an authority into a file that has always the same size. */
static const char *
write_authority(const Cert *cert, const char *name)
{
	const char *path = cert_write(cert, name);
	FILE	   *file = fopen(path, "a");

	CHECK(file != NULL);
	while (ftell(file) < FILE_SIZE)
		fputc('\n', file);
	fclose(file);
	return path;
}

/* Log in, and tell whether that has read the file. */
static bool
log_in(const char *expected_error)
{
	long long	before = bytes_read();
	Fake	   *f = fake_new();
	long long	after = bytes_read();

	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_tune(f, 2047, 131072, 60);
	put_open_ok(f);
	fake_send(f);
	CHECK_INT(rinq_conn_state(f->conn), expected_error[0] == '\0' ? RINQ_CONN_OPEN : RINQ_CONN_CLOSED);
	CHECK_CONTAINS(rinq_conn_error(f->conn), expected_error);
	fake_free(f);
	return after - before > FILE_SIZE / 2;
}

/* A file that stays as it is was read once; nothing of that outlasts a change. */
static void
test_kept(void)
{
	struct timespec times[2];
	struct stat st;
	const char *other;

	config.rootcert = write_authority(&authority, "kept.pem");

	/* what was written just now could be written again without a sign of it */
	ahead = 0;
	CHECK(log_in(""));
	CHECK(log_in(""));

	/* also while it was read, for however long */
	minute_after = bytes_read() + FILE_SIZE / 2;
	CHECK(log_in(""));
	minute_after = -1;
	ahead = 60;
	CHECK(log_in(""));
	CHECK(!log_in(""));
	CHECK(!log_in(""));

	/* as a revocation list, it says nothing, kept or not */
	config.crl = config.rootcert;
	(void) log_in("contains no revocation list");
	config.crl = "";

	/* in place, with the same size and the same time */
	CHECK(stat(config.rootcert, &st) == 0);
	(void) write_authority(&other_authority, "kept.pem");
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	CHECK(utimensat(AT_FDCWD, config.rootcert, times, 0) == 0);
	CHECK(log_in("unknown authority"));
	CHECK(!log_in("unknown authority"));

	/* another one in its place */
	other = write_authority(&authority, "kept-new.pem");
	CHECK(rename(other, config.rootcert) == 0);
	CHECK(log_in(""));
	CHECK(!log_in(""));

	/* gone, and something else there */
	other = test_path("kept-away.pem");
	CHECK(rename(config.rootcert, other) == 0);
	(void) log_in("could not open file");
	CHECK(mkdir(config.rootcert, 0755) == 0);
	(void) log_in("is not a regular file");
	CHECK(rmdir(config.rootcert) == 0);
	CHECK(rename(other, config.rootcert) == 0);
	(void) log_in("");
	CHECK(!log_in(""));
}

/* More files than are kept: each is what it is. */
static void
test_many(void)
{
	const char *path[8];
	char		name[16];

	for (int i = 0; i < 8; i++)
	{
		snprintf(name, sizeof(name), "many-%d.pem", i);
		path[i] = write_authority(i % 2 == 0 ? &authority : &other_authority, name);
	}
	for (int round = 0; round < 3; round++)
	{
		for (int i = 0; i < 8; i++)
		{
			config.rootcert = path[(i * 3 + round) % 8];
			(void) log_in((i * 3 + round) % 2 == 0 ? "" : "unknown authority");
		}
	}
	CHECK(!log_in((7 * 3 + 2) % 2 == 0 ? "" : "unknown authority"));
}

/* What the system trusts is kept as well, and its changes count for the next connection. */
static void
test_system(void)
{
	config.rootcert = "system";
	setenv("SSL_CERT_DIR", test_path("nothing"), 1);
	setenv("SSL_CERT_FILE", write_authority(&authority, "system.pem"), 1);
	(void) log_in("");
	setenv("SSL_CERT_FILE", write_authority(&other_authority, "other-system.pem"), 1);
	(void) log_in("which is none that the system trusts");
	setenv("SSL_CERT_FILE", test_path("system.pem"), 1);
	(void) log_in("");
	(void) write_authority(&other_authority, "system.pem");
	(void) log_in("which is none that the system trusts");
	setenv("SSL_CERT_FILE", test_path("nothing"), 1);
	(void) log_in("which is none that the system trusts");
	unsetenv("SSL_CERT_FILE");
	unsetenv("SSL_CERT_DIR");
}

/* Whatever allocation fails while a connection is judged anew: an authority that is gone is not trusted. */
static void
test_no_memory(void)
{
	char		text[RINQ_TLS_ERROR_SIZE];
	int			untrusted = 0;
	long		last;
	Fake	   *f;

	config.rootcert = cert_write(&authority, "memory.pem");
	f = fake_new();
	put_start(f, "RabbitMQ", "3.10.8", "PLAIN");
	put_tune(f, 2047, 131072, 60);
	put_open_ok(f);
	fake_send(f);
	CHECK_INT(rinq_conn_state(f->conn), RINQ_CONN_OPEN);
	(void) cert_write(&other_authority, "memory.pem");
	allocations = 0;
	CHECK_INT(rinq_conn_tls_compare(f->conn, &config, text, sizeof(text)), RINQ_TLS_UNTRUSTED);
	last = allocations;
	for (long count = 0; count < last; count++)
	{
		RinqTlsChange change;

		until_failure = count;
		change = rinq_conn_tls_compare(f->conn, &config, text, sizeof(text));
		until_failure = -1;
		CHECK(change == RINQ_TLS_UNTRUSTED || change == RINQ_TLS_UNUSABLE);
		CHECK(text[0] != '\0');
		untrusted += change == RINQ_TLS_UNTRUSTED;
	}
	CHECK(untrusted > 1);
	fake_free(f);
}

int
main(void)
{
	CHECK(CRYPTO_set_mem_functions(allocate, reallocate, release) == 1);
	authority = cert_make("Authority", NULL, -30, 30, NULL, true);
	other_authority = cert_make("Other Authority", NULL, -30, 30, NULL, true);
	good = cert_make("good", "DNS:" HOST, -10, 20, &authority, false);
	server = server_make(&good);
	config.verify = RINQ_TLS_VERIFY_FULL;
	config.host = HOST;
	config.rootcert = config.crl = config.cert = config.key = "";
	config.min_version = TLS1_2_VERSION;
	fake_defaults();
	fake_settings.server = server;
	fake_settings.tls = &config;

	test_kept();
	test_many();
	test_system();
	test_no_memory();
	SSL_CTX_free(server);
	cert_free(&authority);
	cert_free(&other_authority);
	cert_free(&good);
	certs_cleanup();
	return check_summary();
}
