"""Shell commands that ask a running server: jobs and datasets."""
