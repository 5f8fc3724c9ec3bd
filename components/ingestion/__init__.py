"""Reading data from files and databases into typed tables."""
