"""Prices that others publish: read as they are, and made into records of the price list.

The rules of this package:
1. A price is a decimal from the file to the record. No float is ever made of it.
2. What a file says and the price list cannot say is listed with a reason from a closed list, never left out silently.
3. Nothing here reads a topic, sends a record, or knows the time.
"""
