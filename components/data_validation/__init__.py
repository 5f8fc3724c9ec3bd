"""Looking at a table, and judging it, before anything is built on it."""
