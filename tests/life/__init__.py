"""A model of the life of an operation: a table, an explorer of it, and what plays it for real."""
