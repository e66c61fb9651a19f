"""What happened to the versions of a model name, from the records of every store."""
