"""Preference data and reward models that other tools write or read."""
