"""Randomized histories of the locks under faults, and the checker that judges them.

`worker` is a process that takes leases and writes to the `resource` under their fences; `driver`
starts several and kills, freezes and cuts them off, with the faults that each of the `backends`
has; `records` is what they write down; `checker` reads it and says which promise was broken.
"""
