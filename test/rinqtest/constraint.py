"""Constraints, as section 6 of the protocol has them: which sessions a notification is for."""

import re

NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_MAX_NESTING = 64


def problem(constraint, nesting=1):
    """What the protocol has against a decoded constraint, or None."""
    if nesting > _MAX_NESTING:
        return "nested too deeply"
    if not isinstance(constraint, dict):
        return "not a map"
    operator, terms = constraint.get("o"), constraint.get("t", [])
    if operator not in ("*", "ns", "=", "!=", "!", "&", "|"):
        return "unknown operator"
    if not isinstance(terms, list) or not all(isinstance(constraint.get(name, ""), str) for name in "kv"):
        return "a key, value or list of terms of another type"
    if operator == "!" and len(terms) != 1 or operator in ("ns", "&", "|") and not terms:
        return "wrong number of terms"
    if operator == "ns" and (not NAMESPACE.match(constraint.get("v", "")) or constraint["v"].startswith("_")):
        return "bad namespace"
    return next(filter(None, (problem(term, nesting + 1) for term in terms)), None)


def matches(constraint, namespace, attributes):
    """Whether a session matches; attributes: {namespace: {key: value}}, what is missing is empty."""
    operator, terms = constraint["o"], constraint.get("t", [])
    if operator == "*":
        return True
    if operator == "ns":
        return all(matches(term, constraint["v"], attributes) for term in terms)
    if operator == "!":
        return not matches(terms[0], namespace, attributes)
    if operator == "&":
        return all(matches(term, namespace, attributes) for term in terms)
    if operator == "|":
        return any(matches(term, namespace, attributes) for term in terms)
    equal = attributes.get(namespace, {}).get(constraint.get("k", ""), "") == constraint.get("v", "")
    return equal if operator == "=" else not equal
