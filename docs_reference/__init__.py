"""The reference pages of docs/, generated from the code; a developer's tool, not packed."""
