"""Moves a home into Postgres and S3, and back: `visionloop migrate`."""
