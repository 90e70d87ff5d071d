"""Pictures as tokens of a language model: vision tower, projector and their published weights."""
