"""`make bench`."""

from benchmarks.speed import main

main()
