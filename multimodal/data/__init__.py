"""Data: the default text and drawings, and the user's own files; batches as pure functions of an index."""
