"""What a passive operation tells of its memory."""

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.hold cimport Hold

cpdef str text_of(bytes stream)
cpdef bytes describe(Agent agent, Hold hold, int mem_type, bytes head)
