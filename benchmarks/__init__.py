"""Measurements of hotnas_torch, beside what a user would pick instead.

One module per question; ``python -m benchmarks`` answers all of them, ``python -m benchmarks speed
threads`` some. Every figure that a table shows was measured in the run that printed it.
"""
