"""`make bench-locks`: our locks beside the known libraries', interleaved in one run.

`contenders` says who takes part, `measures` what is done with them, `crew` and `worker` are the
processes that do it, `figures` computes, `targets`, `report` and `plot` show.
"""
