"""The stages, a module each, with what they are measured against.

A stage has a `TITLE`; `PACKAGES`, whose versions are shown; `prepare(folder)`, which makes what its contenders read,
unmeasured; and `CONTENDERS`: name to what it is in words, and the function that does the work. The first is ours; those
whose name begins with `floor` only read or write, and show what no tool can go below. It may
have `OUTSIDE`, too: contenders of `benchmarks.outside`, name to what it is in words; and a `NOTE` for the page.
"""
