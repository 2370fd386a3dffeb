"""Losses between a student and a teacher, for every assignment."""
