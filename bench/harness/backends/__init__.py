"""What can be measured, behind one small interface.

One module each, whose class `Backend` is one side of a pair. A module imports what it measures, and
nothing else of this package but `base`.
"""
