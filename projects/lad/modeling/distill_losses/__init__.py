"""Losses between a student and a teacher, combined freely with every assignment."""
