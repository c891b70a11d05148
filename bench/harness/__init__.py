"""Measures this library beside others that move bytes between two processes of one host.

Every subject does the same work (`workloads`) between a passive process that owns memory and an
active one that reads it. `pair` runs the two, `measure` interleaves the subjects, `report` writes
tables and pictures. What a subject is stands in `backends`; the floor, a C program, in `floor`.
"""
