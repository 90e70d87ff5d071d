"""The stages in order: one run folder, its profiles, and the commands that fill it."""
