"""Keeps a VisionLoop in order: backups, restoring them, and deleting what nobody needs."""
