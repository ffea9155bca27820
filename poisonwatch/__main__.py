"""`python -m poisonwatch`."""

from poisonwatch.cli import main

main()
