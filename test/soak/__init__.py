"""A long run under faults: load that keeps a ledger, faults at random, and sums that must agree at the end."""
