"""Who started this process, as one of how many; how the processes of a run meet, and learn of each other's end."""
