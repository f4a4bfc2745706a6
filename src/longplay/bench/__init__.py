"""`longplay bench`: speed of each stage beside the limits of the machine and a named baseline, in one run."""
