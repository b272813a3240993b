"""Who started this process, as one of how many, and how the processes of one run meet."""
