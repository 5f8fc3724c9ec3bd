"""Reading files: formats, encodings, types found from every value, and the rows that cannot be read."""
