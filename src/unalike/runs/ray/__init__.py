"""Long runs on a Ray cluster: Ray places, restarts and feeds the workers, and actors on the machine
of the run own the memory that they share.
"""
