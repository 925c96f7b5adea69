"""Authorities, certificates, keys and revocation lists for tests, made with the openssl program."""

import datetime
import os
import shutil
import subprocess

_CONFIG = """
[ca]
default_ca = authority
[authority]
database = %(folder)s/index
serial = %(folder)s/serial
crlnumber = %(folder)s/crlnumber
new_certs_dir = %(folder)s
default_md = sha256
default_crl_days = 30
policy = any
copy_extensions = copyall
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
"""


def _run(folder, *arguments):
    done = subprocess.run(("openssl",) + arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError("openssl %s: %s" % (" ".join(arguments), done.stdout))
    return done.stdout


def _date(days):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


class Certificate:
    """Paths of a certificate and its key."""

    def __init__(self, cert, key):
        self.cert = cert
        self.key = key


class Authority:
    """A folder with an authority of its own, which signs what it is asked to; give is called for each file that the server reads."""

    def __init__(self, folder, name, give):
        self.folder = folder
        self.name = name
        self._give = give
        for file, content in (("index", ""), ("serial", "1000\n"), ("crlnumber", "01\n"), ("config", _CONFIG % {"folder": folder})):
            self._write(file, content)
        own = self._request("authority", name)
        self.cert = self.path("authority.pem")
        _run(folder, "ca", "-batch", "-config", "config", "-selfsign", "-keyfile", own, "-in", "authority.csr", "-notext", "-out", self.cert,
             "-startdate", _date(-30), "-enddate", _date(60), "-extfile", self._extensions("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n"))
        self._give(self.cert, 0o644)
        self._key = own

    def path(self, name):
        return os.path.join(self.folder, name)

    def _write(self, name, content):
        with open(self.path(name), "w") as file:
            file.write(content)
        return self.path(name)

    def _extensions(self, text):
        return self._write("extensions", text)

    def _request(self, file, common_name):
        key = self.path(file + ".key")
        _run(self.folder, "req", "-config", "config", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
             "-subj", "/CN=" + common_name, "-out", file + ".csr")
        return key

    def sign(self, file, common_name, names="", from_day=-1, until_day=20):
        """A new certificate under this name of a file; names are like DNS:localhost,IP:127.0.0.1."""
        key = self._request(file, common_name)
        cert = self.path(file + ".pem")
        text = "basicConstraints=CA:FALSE\n" + ("subjectAltName=%s\n" % names if names else "")
        _run(self.folder, "ca", "-batch", "-config", "config", "-keyfile", self._key, "-cert", self.cert, "-in", file + ".csr", "-notext", "-out", cert,
             "-startdate", _date(from_day), "-enddate", _date(until_day), "-extfile", self._extensions(text))
        self._give(cert, 0o644)
        self._give(key, 0o600)
        return Certificate(cert, key)

    def revoke(self, certificate):
        _run(self.folder, "ca", "-batch", "-config", "config", "-keyfile", self._key, "-cert", self.cert, "-revoke", certificate.cert)

    def revocations(self, file):
        path = self.path(file)
        _run(self.folder, "ca", "-batch", "-config", "config", "-keyfile", self._key, "-cert", self.cert, "-gencrl", "-out", path)
        self._give(path, 0o644)
        return path

    def copy(self, source, file, mode=0o600):
        """Put a copy of a file in the place of another one, at once."""
        path = self.path(file)
        shutil.copyfile(source, path + ".new")
        self._give(path + ".new", mode)
        os.replace(path + ".new", path)
        return path


def listener(port, authority, certificate):
    """What has a RabbitMQ listen with TLS, for the rabbit argument of a Broker."""
    return (("ssl_listeners", '[{"127.0.0.1", %d}]' % port),
            ("ssl_options", '[{cacertfile, "%s"}, {certfile, "%s"}, {keyfile, "%s"}, {verify, verify_peer}, {fail_if_no_peer_cert, false},'
                            " {versions, ['tlsv1.3', 'tlsv1.2']}]" % (authority.cert, certificate.cert, certificate.key)))
