"""What is sent to peers over any channel: the metadata of an operation, its forms and its seal."""
