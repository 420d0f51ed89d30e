"""The credit ledger as a pure state machine: (account, command, context) → entries, alerts, and the account folded on.

Rules of this package: no clock, no chance, no I/O, no framework; amounts are whole nano-units, times are whole
microseconds UTC, both `int`. README.md says what it means and what it is not.
"""
