"""Each stage against the tools that a user would pick instead: `make bench`."""
