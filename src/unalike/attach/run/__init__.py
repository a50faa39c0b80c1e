"""Guided runs without diffusers: session, ending, redraws, report, guard, outputs."""
