"""The tests: unit, property, golden, house (the gates), integration and faults; what they share is in `tests.kit`."""
