"""Sessions of the independent peer: a model of their rules, and an owner that serves them."""

import cbor2

from .peer import Failure, RemoteError


class Stale(Exception):
    pass


class StaleFetch(Exception):
    pass


class Frozen(Exception):
    pass


class Model:
    """One session, as section 5 of the protocol has it: every past revision is remembered."""

    def __init__(self):
        self.revision = 0
        self.attributes = {}  # (namespace, key) -> [value, frozen, created, updated]

    def _check(self, revision):
        if revision != self.revision:
            raise Stale

    def get(self, revision, namespace, key):
        found = self.attributes.get((namespace, key))
        if found is None or found[2] > revision:
            return ""
        if found[3] > revision:
            raise StaleFetch
        return found[0]

    def update(self, revision, namespace, attributes):
        """attributes: (key, value, frozen); returns the revisions each was created at."""
        self._check(revision)
        after = dict(self.attributes)
        for key, value, frozen in attributes:
            old = after.get((namespace, key), ["", False, 0, 0])
            if old[:2] == [value, frozen]:
                continue
            if old[1]:
                raise Frozen
            after[namespace, key] = [value, frozen, old[2] or revision + 1, revision + 1]
        self.attributes = after
        self.revision += 1
        return [after.get((namespace, key), ["", False, 0, 0])[2] for key, _, _ in attributes]

    def clear(self, revision, namespace):
        self._check(revision)
        mine = {place: entry for place, entry in self.attributes.items() if place[0] == namespace and entry[0]}
        if any(entry[1] for entry in mine.values()):
            raise Frozen
        for place, entry in mine.items():
            self.attributes[place] = ["", False, entry[2], revision + 1]
        self.revision += 1

    def destroy(self, revision):
        self._check(revision)


class Owner:
    """Has a peer serve its sessions to others."""

    def __init__(self, peer):
        self.peer = peer
        self.sessions = {}
        self.fetches = []
        peer._handlers["_sess"] = self._serve

    def create(self):
        number = self.peer.new_session()
        self.sessions[number] = Model()
        return "%s.%d" % (self.peer.id, number), self.sessions[number]

    def _serve(self, request):
        body = request.payload or {}
        session = self.sessions.get(body.get("s", 0))
        if request.command not in ("fetch", "update", "clear", "destroy"):
            raise RemoteError("unknown command")
        if session is None:
            raise Failure("not-found")
        try:
            return getattr(self, "_" + request.command)(session, body)
        except Stale:
            raise Failure("stale") from None
        except Frozen:
            raise Failure("frozen") from None

    def _fetch(self, session, body):
        self.fetches.append(body.get("k"))
        if "ns" not in body and "k" not in body:
            return {"r": session.revision}
        found = []
        for key in body.get("k", ()):
            entry = session.attributes.get((body["ns"], key))
            if entry is not None:
                attribute = {"k": key, "v": entry[0], "f": entry[1], "cr": entry[2], "ur": entry[3]}
                found.append({name: value for name, value in attribute.items() if name == "k" or value})
        return {"r": session.revision, "a": found}

    def _update(self, session, body):
        attributes = [(a.get("k", ""), a.get("v", ""), a.get("f", False)) for a in body.get("a", ())]
        created = session.update(body.get("r", 0), body.get("ns", ""), attributes)
        return {"r": session.revision, "cr": created}

    def _clear(self, session, body):
        session.clear(body.get("r", 0), body.get("ns", ""))
        return {"r": session.revision}

    def _destroy(self, session, body):
        session.destroy(body.get("r", 0))
        for number in [n for n, s in self.sessions.items() if s is session]:
            del self.sessions[number]


class Client:
    """Works on sessions of another peer."""

    def __init__(self, peer, session):
        self.peer = peer
        self.owner, _, number = session.partition("@")[0].rpartition(".")
        self.number = int(number)

    def raw(self, command, body):
        """The response as it came; the body is bytes."""
        from .peer import Raw
        return self.peer._correlated("cmd.uc", self.owner, "_sess", command, Raw(body), 5.0, None, None, 2)

    def ask(self, command, **body):
        return self.raw(command, cbor2.dumps(dict({"s": self.number}, **body))).result()

    def revision(self):
        return self.ask("fetch")["r"]

    def update(self, revision, namespace, *attributes):
        return self.ask("update", r=revision, ns=namespace, a=[{"k": k, "v": v, "f": f} for k, v, f in attributes])["r"]
