"""Runs the studies, stores what came out, and makes tables and plots of it."""
