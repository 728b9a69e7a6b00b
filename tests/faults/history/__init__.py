"""Randomized histories of the locks under faults, and the checker that judges them.

`worker` is a process that takes leases and writes to the `resource` under their fences. `driver`
kills and freezes a `crew` of them, with the faults that each of the `backends` has. `records` is
what all of them write down; `checker` reads it and says which promise was broken.
"""
