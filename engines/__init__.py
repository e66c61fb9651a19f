"""Models for other programs: exports, checked against the engine that serves."""
