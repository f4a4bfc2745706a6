"""`python -m longplay`."""

from longplay.cli import main

main()
