"""Memory that does something when nobody has it any more."""

import numpy as np


class Memory:
    """Eight bytes. `do` is called in their finalizer."""

    def __init__(self, do):
        self.memory = np.zeros(8, np.uint8)
        self.do = do

    @property
    def __array_interface__(self):
        return self.memory.__array_interface__

    def __del__(self):
        self.do()
