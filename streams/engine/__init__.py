"""Faust's extension points, hardened: batches in, one transaction out, positions in the state. No money here."""
