"""Running a stock PostgreSQL with an extension that is built with AddressSanitizer and UBSan."""

import glob
import os
import subprocess

COMPILE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1"
LINK = "-fsanitize=address,undefined"

# The runtime must be set up before any other library's constructor allocates: some of them hang it otherwise.
_FIRST = "#include <stdlib.h>\n__attribute__((constructor)) static void first(void) { free(malloc(1)); }\n"


def environment(scratch):
    """What the server's environment needs, with the shim compiled into the scratch folder."""
    folder = scratch.make_folder("sanitizer", owned=True)
    source = os.path.join(folder, "first.c")
    shim = os.path.join(folder, "first.so")
    with open(source, "w") as file:
        file.write(_FIRST)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-z,initfirst", "-o", shim, source], check=True)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return {
        "LD_PRELOAD": "%s:%s" % (os.path.realpath(runtime), shim),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:disable_coredump=0:detect_stack_use_after_return=0:log_path=%s/report" % folder,
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    }


def reports(scratch):
    """What they found: AddressSanitizer writes files of its own, UBSan into the servers' logs."""
    text = ""
    for path in sorted(glob.glob(scratch.path("sanitizer", "report*"))):
        with open(path, errors="replace") as file:
            text += "%s:\n%s\n" % (os.path.basename(path), file.read())
    for path in sorted(glob.glob(scratch.path("*-server", "log"))):
        with open(path, errors="replace") as file:
            found = [line.rstrip() for line in file if "runtime error:" in line or "Sanitizer" in line]
        if found:
            text += "%s:\n%s\n" % (path, "\n".join(found[:50]))
    return text
