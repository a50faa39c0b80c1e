"""A guided run, whatever hosts it: session, redraws, report, guard, outputs. Nothing here imports
diffusers.
"""
