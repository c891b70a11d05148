"""Memory that programs hand over: what it is, where it lies, and whether it may be touched.

Descriptors and blocks over buffers of any library (NumPy, DLPack, the CUDA array interface),
devices, streams and staging copies, and the checks for bytes that would be written twice. Who
transfers it, and when, is not known here.
"""
